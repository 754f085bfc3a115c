r"""Questions as words: what spelling does not change. Pure text, linear.

A word is a run of letters with their vowel signs, a number, a LaTeX command or a sign. Letter case, delimiters of formulas,
layout commands and punctuation are left out. What changes the mathematics stays: signs, since `x-1` is not `x+1`; `!` and `'`
after what they apply to; commas in brackets, since `(2,100)` is not `(2100)`; `.5` is 0.5, and a raised 2 is `^2`. Scripts
without spaces give one word for each character.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence

from prmkit.data.types import Message

_ONE_EACH = r"\u0e00-\u0e7f\u3040-\u30ff\u3400-\u9fff"
"""Thai, Japanese, Chinese: no spaces between words."""
_MARKS = "".join(
    character
    for character in map(chr, range(0x300, 0x12000))
    if unicodedata.category(character).startswith("M") and not re.match(f"[{_ONE_EACH}]", character)
)
"""Vowel signs and accents, which Python counts to no word; Hindi, Bengali or Tamil are nothing without them."""
_LETTER = rf"[^\W\d_{_ONE_EACH}]"
_WORD = re.compile(
    rf"\\[A-Za-z]+|\d+(?:\.\d+)?|(?<![\w.])\.\d+|[{_ONE_EACH}]|{_LETTER}(?:{_LETTER}|[{_MARKS}])*|[^\w\s]",
)
_THOUSANDS = re.compile(r"(?<![\d.,])(?<!,\})[1-9]\d{0,2}(?:(?:,|\{,\})\d{3})+(?!\d|,\d)")
"""A whole number in groups of three; `1,2,300` is a list."""
_GROUPED = re.compile(r",|\{,\}")
_DELIMITER = re.compile(r"(?<!\\)\\[()\[\]]")
_BRACKETS = re.compile(r"\\[{}]|[()\[\],]")
_OPENING = {"(": ")", "[": ")", r"\{": r"\}"}
"""`[0, 1)` is an interval, so `(` and `[` are closed by either."""
_COMMA = "\ue000"
"""Stands for a comma in brackets."""
_CONTRACTED = re.compile(r"'(?:s|t|re|ll|ve|d|m)(?!\w)")
_RAISED = re.compile("[\u2070\u2071\u00b9\u00b2\u00b3\u2074-\u207f]+")
_LOWERED = re.compile("[\u2080-\u208e]+")
_FRACTION = re.compile("[\u00bc-\u00be\u2150-\u215e\u2189]")
_ASTERISKS = re.compile(r"(?<=[\d)])[^\S\n]*(\*\*?)[^\S\n]*(?=[\d(.])|(?<=[A-Za-z0-9)])(\*\*)(?=[A-Za-z0-9(])")
"""Times and to the power of; others are marks of Markdown."""
_IDLE = re.compile("[\u00ad\u200b-\u200d\u2060\ufeff]")
"""Without width."""
_LEFT_OUT = frozenset("$.,?!;:\"'`~\\*\u2018\u201c\u201d\u3002\u3001")
_LAYOUT = re.compile(r"\\(?:left|right|displaystyle|text(?:bf|rm|it)?|mathrm|mbox|q?quad|[bB]ig+[lr]?|limits|,|!)")
_SAME = {
    r"\dfrac": r"\frac",
    r"\tfrac": r"\frac",
    r"\cfrac": r"\frac",
    r"\leq": r"\le",
    r"\geq": r"\ge",
    r"\cdot": r"\times",
    "\u2212": "-",
    "\u2044": "/",
    _COMMA: ",",
}
TURN = "\n"
"""The word that ends an earlier turn of a chat."""
_PRIMES = str.maketrans({"\u2019": "'", "\u2032": "'"})


def words(text: str) -> list[str]:
    """The words of a text, in order."""
    text = _LOWERED.sub(r"_\g<0> ", _RAISED.sub(r"^\g<0>", _FRACTION.sub(r" \g<0>", _IDLE.sub("", text))))
    plain = unicodedata.normalize("NFKC", text).replace(r"\,", "").replace(r"\!", "").translate(_PRIMES)
    plain = _ASTERISKS.sub(lambda found: "^" if "**" in found[0] else r"\times ", _DELIMITER.sub(" ", plain)).casefold()
    plain = _THOUSANDS.sub(lambda found: _GROUPED.sub("", found[0]), _commas_kept(plain))
    result = []
    for match in _WORD.finditer(plain):
        word = match[0]
        if word in _LEFT_OUT:
            if not _applies(word, plain, match.start()):
                continue
        elif _LAYOUT.fullmatch(word):
            continue
        elif word[0] == "." and len(word) > 1:
            word = f"0{word}"
        result.append(_SAME.get(word, word))
    return result


def _applies(sign: str, text: str, place: int) -> bool:
    """Whether `!` is a factorial (of a number, bracket or single letter) or part of `!=`, and `'` a prime."""
    before = text[max(place - 8, 0) : place]
    if sign == "!":
        before = before.rstrip(" !")
        single = before[-1:].isalpha() and not before[-2:-1].isalpha()
        return single or before[-1:].isdigit() or before.endswith((")", "]", "}")) or text.startswith("=", place + 1)
    if sign == "'":
        return (before[-1:].isalnum() or before.endswith((")", "]", "}", "'"))) and not _CONTRACTED.match(text, place)
    return False


def _commas_kept(text: str) -> str:
    r"""The text with `_COMMA` for each comma within brackets that are closed. Braces of LaTeX are no brackets, `\{` is one."""
    waiting: list[tuple[str, list[int]]] = []
    kept: list[int] = []
    for match in _BRACKETS.finditer(text):
        sign = match[0]
        if sign in _OPENING:
            waiting.append((_OPENING[sign], []))
        elif sign == "," and waiting:
            waiting[-1][1].append(match.start())
        elif sign in (")", "]", r"\}") and waiting:
            closing = ")" if sign == "]" else sign
            if waiting[-1][0] == closing:
                kept += waiting.pop()[1]
    characters = list(text)
    for place in kept:
        if text[place - 1 : place + 2] != "{,}":
            characters[place] = _COMMA
    return "".join(characters)


def asked_words(question: str, messages: Sequence[Message] | None) -> list[str]:
    """The words of a question with those of the turns before it. System turns say how to answer, and are left out."""
    earlier = [turn for turn in (messages or ())[:-1] if turn.role != "system"]
    return [word for turn in earlier for word in (*words(turn.content), TURN)] + words(question)


def key(text: str) -> str:
    """Equal for texts that differ in spelling alone."""
    return " ".join(words(text))


def numbers(found: Sequence[str]) -> list[str]:
    """The words that are numbers, in order."""
    return [word for word in found if word[0].isdigit()]


def spoken(found: Sequence[str]) -> list[str]:
    """The words less signs and commands of LaTeX: what n-grams of running text are made of."""
    return [word for word in found if word[0].isalnum()]


def ngrams(found: Sequence[str], n: int) -> Iterator[str]:
    """Runs of n words; none where there are fewer."""
    return (" ".join(found[start : start + n]) for start in range(len(found) - n + 1))
