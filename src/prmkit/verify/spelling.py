r"""Plain spellings of answers: layout, delimiters, digits of other scripts. Pure text, nothing evaluated."""

from __future__ import annotations

import re
import unicodedata

_WRAPPERS: tuple[re.Pattern[str], ...] = tuple(
    re.compile(pattern, re.DOTALL)
    for pattern in (
        r"\$\$([^$]*)\$\$",
        r"\$([^$]*)(?<!\\)\$",
        r"\\\(((?:(?!\\\)).)*)\\\)",
        r"\\\[((?:(?!\\\]).)*)\\\]",
        r"\*\*([^*]*)\*\*",
        r"`([^`]*)`",
        r'\\?"([^"]*?)\\?"',
        r"\u201c([^\u201d]*)\u201d",
        r"\\(?:boxed|fbox)\{([^{}]*)\}",
    )
)
_DELIMITED_NUMBER = re.compile(r"\$([-+]?[\d.,/ ]{1,40})\$( ?[^$\\]*)")
"""`$28$ percent`: the sign or unit stands outside."""
PRICES = re.compile(r"[^$]*(?:\$(?=\.?\d)[^$]*)+")
"""A text in which each dollar sign stands before a number, and so delimits no formula."""
_DOUBLED_BACKSLASH = re.compile(r"\\\\(?=[A-Za-z({\[\])}])")
_ROWS = re.compile(r"matrix|array|cases|\\\\ |\\\\$", re.MULTILINE)
"""Where two backslashes begin a row, they are no doubled one."""
_SPELLINGS: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        ("[\u2212\u2012\u2013\ufe63]", "-"),
        (r"\\[dtc]frac(?![A-Za-z])", r"\\frac"),
        (r"\\(?:left|right)(?![A-Za-z])\.?", ""),
        (r"\\varnothing(?![A-Za-z])", r"\\emptyset"),
        (r"(?<!\\)\\!", ""),
        (r"(?<!\\)\\[,;: ]|[~\u00a0\u2009\u202f]|\s+", " "),
        (r"\{,\}", ","),
        (r"\\([%$])", r"\1"),
        (r"(?<![A-Za-z-])(?:[Nn]egative |\\(?:text|textrm|mathrm|mbox)\{ ?[Nn]egative ?\} ?)(?=[$€£]?\.?\d)", "-"),
        (r" {2,}", " "),
    )
)
_MIXED = re.compile(r"(-?\d+) (\d+)/(\d+)", re.ASCII)
_SPACED_GROUPS = re.compile(r"([-+]?[$€£]? ?)([1-9]\d{0,2}(?: \d{3})+(?:[.,]\d+)?)((?:[ %$€£][^\d,]*)?)", re.ASCII)
_TEXT_WORDS = re.compile(r"\\(?:text|textbf|textit|textrm|mathrm|mbox)\{ ?([A-Za-z ]+?) ?\}")
_IDLE_SPACE = re.compile(r"(?<![0-9A-Za-z,]) | (?![0-9A-Za-z])")
"""Any other space separates words, digits or list items, and so has a meaning."""
_FULL_WIDTH = {
    "\uff0c": ",", "\uff0e": ".", "\uff1a": ":", "\uff1b": ";", "\uff08": "(", "\uff09": ")", "\uff05": "%", "\uff04": "$",
    "\uff0d": "-", "\uff0b": "+", "\uff0f": "/", "\uff1d": "=", "\u3002": ".", "\u0964": ".", "\u3001": ",", "\u066a": "%",
    "\u066b": ".", "\uffe5": "\u00a5",
}  # fmt: skip


def ascii_digits(text: str) -> str:
    """Digits of every script as 0 to 9, and full-width punctuation as its ASCII twin. The length stays the same."""
    if text.isascii():
        return text
    return "".join(_plain_character(character) for character in text)


def _plain_character(character: str) -> str:
    if character.isascii():
        return character
    if character.isdecimal():
        return str(unicodedata.decimal(character))
    return _FULL_WIDTH.get(character, character)


def normalise(answer: str) -> str:
    r"""One plain spelling of an answer: no delimiters around it, no layout commands, no final full stop.

    `$\dfrac{1}{2}$.` -> `\frac{1}{2}`, `1\,000` -> `1000`, `2 1/3` -> `2\frac{1}{3}`, Bengali or full-width digits -> 0 to 9.
    Letter case, order and value are left as they are.
    """
    text, before = ascii_digits(answer), None
    while text != before:
        before = text
        text = text.strip().rstrip(".,;:").strip()
        for wrapper in _WRAPPERS:
            if match := wrapper.fullmatch(text):
                text = match.group(1)
    if "\\\\" in text and not _ROWS.search(text):  # LaTeX that was escaped once more, as in JSON
        text = _DOUBLED_BACKSLASH.sub(r"\\", text)
    if match := _DELIMITED_NUMBER.fullmatch(text):
        text = match.group(1) + match.group(2)
    for pattern, replacement in _SPELLINGS:
        text = pattern.sub(replacement, text)
    text = text.strip()
    if match := _MIXED.fullmatch(text):
        return rf"{match.group(1)}\frac{{{match.group(2)}}}{{{match.group(3)}}}"
    if match := _SPACED_GROUPS.fullmatch(text):
        return match.group(1) + match.group(2).replace(" ", "") + match.group(3)
    return text


def same_text(a: str, b: str) -> bool:
    r"""Whether two normalised answers are the same but for idle spaces; `\text{Evelyn}` is `Evelyn`."""
    return a == b or _core(a) == _core(b)


def _core(answer: str) -> str:
    match = _TEXT_WORDS.fullmatch(answer)
    return _IDLE_SPACE.sub("", match.group(1) if match else answer)
