r"""Letters of multiple choice: what a reference asks for, and which letter a response gives.

A letter is compared only where the reference is one (`B`, `(B)`, `B.`, `\text{(B)}`, `(C) Cecile`). Options go from A to J.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from prmkit.verify.spelling import normalise, same_text

_LETTER = "[A-J]"
_WRAPPED = r"\\(?:text|textbf|textrm|mathbf|mathrm|bf|mbox)\{"
_ALONE = re.compile(rf"(?:{_WRAPPED})*[(\[]?(?:{_WRAPPED})*({_LETTER})\}}*[)\].:]{{0,2}}\}}*")
_NO_OPTION = r"[-+*/^=<>()\[]|\\(?:cup|cap|times|cdot|setminus)"
"""After a letter in brackets, this goes on with a formula."""
_WITH_TEXT = re.compile(
    rf"(?:{_WRAPPED})?(?:\(({_LETTER})\)|\[({_LETTER})\]|({_LETTER})[).:](?=[\s}}]))\}}?"
    rf"[ :.]*(?!{_NO_OPTION})(?=\S)(.{{1,300}})",
    re.DOTALL,
)
_BARE_WITH_TEXT = re.compile(r"([B-HJ]) ([A-Z0-9$].{0,300})", re.DOTALL)
"""`C Cecile`; not for A and I, which are words."""
_IN_CLAUSE = re.compile(
    rf"(?:[Oo]ption|[Cc]hoice|[Aa]nswer|[Ll]etter)?\s*[*_(\[\"'`$]*(?:{_WRAPPED})*[(\[]?({_LETTER})(?![A-Za-z0-9'\u2019=+^_])"
    r"(?! (?:[a-z]|\d)(?!s the\b|ecause\b))"
)
"""A letter that begins a clause; `A dog` is none, `A because` is one."""
_LETTER_WORD = re.compile(rf"(?<![A-Za-z0-9\\'\u2019])\(?({_LETTER})(?![A-Za-z0-9'\u2019=+^_])")
_CONCLUSION = re.compile(
    r"\b(?:therefore|thus|hence|so|conclude that|i think|i believe|i (?:would )?choose|must be|"
    r"(?:correct|best|right) (?:option|choice)(?: is)?|go with|pick|select|option|choice)\b",
    re.IGNORECASE,
)
_AFTER_CONCLUSION = re.compile(
    rf"[^.!?\n]{{0,120}}?(?<![A-Za-z0-9\\'\u2019])\(?({_LETTER})\)?\**(?=[.!?,;:]?(?:\s|$)|\*)"
    r"(?! (?!rather than|instead of|over|and not|but not|not)[a-z])"
)
_NEGATED = re.compile(
    r"\b(?:not|cannot|never|neither|nor|eliminate[sd]?|rul(?:e|es|ed|ing) out|exclude[sd]?|rather than|instead of|over|"
    r"other than|except)\b|n['\u2019]t\b",
    re.IGNORECASE,
)
"""Before a letter: that it is not the one."""
_SEVERAL = re.compile(
    rf"(?:options?|choices?|answers?)?\W*({_LETTER})\b((?:(?:\W|\b(?:or|and|und|oder|y|et|ou)\b)+\b{_LETTER}\b)+)\W*",
    re.IGNORECASE,
)
"""Nothing but letters: `A, B or C`, `(A)(B)`."""
_ANOTHER_WITH_TEXT = re.compile(
    rf"(?:[,;/|\n]|\b(?:or|oder|ou)\b|\\q?quad)\s*(?:{_WRAPPED})?\(?({_LETTER})(?:\)|:(?=\s)|\.(?=\s+[-$\\\d]))"
)
"""`(A) 5, (B) 6` or `A: 5, B: 6`; not `(D) both (A) and (B)`."""
_COMMANDS = re.compile(r"\\(?:text|textbf|textrm|mathbf|mathrm|bf|mbox|q?quad)(?![A-Za-z])")
_HASH = re.compile(rf"#{{1,4}} ?\(?({_LETTER})\)?(?=[\s.,]|$)")
_LISTED_CHARS = 300
_CONCLUSIONS = 20
"""So many conclusions are looked at, from the end."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Choice:
    """An option of multiple choice: its letter and, where it is known, its text."""

    letter: str
    text: str = ""


def read_choice(answer: str) -> Choice | None:
    r"""The option that a normalised answer names as a whole: `B`, `(b)`, `B.`, `\textbf{(B)}`, `(C) Cecile`, `C Cecile`."""
    text = answer.strip()
    if len(text) == 3 and text[0] + text[2] in ("()", "[]"):
        text = text.upper()
    if match := _ALONE.fullmatch(text):
        return Choice(letter=match.group(1))
    if match := _WITH_TEXT.fullmatch(text):
        letter = next(group for group in match.groups() if group)
        if set(_ANOTHER_WITH_TEXT.findall(match.group(4))) - {letter}:  # `A: 5, B: 6`
            return None
        return Choice(letter=letter, text=normalise(match.group(4).rstrip("}")))
    if match := _BARE_WITH_TEXT.fullmatch(text):
        return Choice(letter=match.group(1), text=normalise(match.group(2)))
    return None


def choice_in(answer: str) -> str | None:
    """The letter that an answer as written begins with: `D, it makes no sense to ...`, `option (C)`, `b`."""
    text = answer.strip()
    if len(text) == 1 and text.upper() in "ABCDEFGHIJ":
        return text.upper()
    if named := read_choice(normalise(text)):
        return named.letter
    match = _IN_CLAUSE.match(text)
    return match.group(1) if match else None


def concluded_choice(response: str) -> str | None:
    """The letter that a response without a marked answer is, gives after `#`, or concludes with: `so it must be B`."""
    if len(response.strip()) == 1 or read_choice(normalise(response[:400])):
        return choice_in(response)
    if marked := list(_HASH.finditer(response)):
        line = response[marked[-1].start(1) :].split("\n", 1)[0]
        return None if names_several(line) else marked[-1].group(1)
    places = list(_CONCLUSION.finditer(response))[-_CONCLUSIONS:]
    for place in reversed(places):
        match = _AFTER_CONCLUSION.match(response, place.end())
        if match and not _NEGATED.search(response, place.end(), match.start(1)):
            said = re.split(r"[.!?\n]", response[place.end() : place.end() + _LISTED_CHARS], maxsplit=1)[0]
            first = _LETTER_WORD.search(said)
            return None if first and names_several(said[first.start() :]) else match.group(1)
    return None


def last_choice(response: str) -> str | None:
    """The last letter that stands alone. `A` and `I` count only where they cannot be words."""
    letters = [
        match.group(1)
        for match in _LETTER_WORD.finditer(response)
        if match.group(1) not in "AI" or not re.match(r" [a-z]", response[match.end() : match.end() + 2])
    ]
    return letters[-1] if letters else None


def names_several(answer: str) -> bool:
    """Whether an answer lists options instead of choosing one: `A, B, C or D`, `(A) 5, (B) 6`. Letters twice are one."""
    plain = _COMMANDS.sub(" ", answer[:_LISTED_CHARS])
    if _SEVERAL.fullmatch(plain):
        return len(set(re.findall(rf"\b{_LETTER}\b", plain.upper()))) > 1
    first = choice_in(answer)
    return first is not None and bool(set(_ANOTHER_WITH_TEXT.findall(plain)) - {first})


def same_choice(wanted: Choice, answer: str) -> bool:
    """Whether an answer names the wanted option, by its letter or by its text. A list of options names none."""
    if names_several(answer) and not (wanted.text and same_text(wanted.text.lower(), normalise(answer).lower())):
        return False
    letter = choice_in(answer)
    if letter is not None and (letter == wanted.letter or not wanted.text):
        return letter == wanted.letter
    plain = normalise(answer)
    return bool(wanted.text) and same_text(wanted.text.lower(), plain.lower())
