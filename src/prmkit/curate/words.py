r"""Questions as words: what spelling does not change. Pure text, linear.

A word is a run of letters, a number, a LaTeX command or a sign. Letter case, dollar signs, layout commands and punctuation are
left out; signs of arithmetic stay, since `x-1` is not `x+1`. Scripts without spaces give one word for each character.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence

_ONE_EACH = r"\u0e00-\u0e7f\u3040-\u30ff\u3400-\u9fff"
"""Thai, Japanese, Chinese: no spaces between words."""
_WORD = re.compile(
    rf"\\[A-Za-z]+|\d+(?:\.\d+)?|[{_ONE_EACH}]|[^\W\d_{_ONE_EACH}]+|[^\w\s]",
)
_THOUSANDS = re.compile(r"(?<=\d)(?:,|\{,\})(?=\d{3}(?!\d))")
_LEFT_OUT = frozenset("$.,?!;:\"'`~\\*\u2019\u2018\u201c\u201d\u3002\u3001")
_LAYOUT = re.compile(r"\\(?:left|right|displaystyle|text(?:bf|rm|it)?|mathrm|mbox|q?quad|[bB]ig+[lr]?|limits|,|!)")
_SAME = {
    r"\dfrac": r"\frac",
    r"\tfrac": r"\frac",
    r"\cfrac": r"\frac",
    r"\leq": r"\le",
    r"\geq": r"\ge",
    r"\cdot": r"\times",
}


def words(text: str) -> list[str]:
    """The words of a text, in order."""
    plain = unicodedata.normalize("NFKC", text).replace(r"\,", "").replace(r"\!", "").casefold()
    plain = _THOUSANDS.sub("", plain)
    found = (_SAME.get(word, word) for word in _WORD.findall(plain))
    return [word for word in found if word not in _LEFT_OUT and not _LAYOUT.fullmatch(word)]


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
