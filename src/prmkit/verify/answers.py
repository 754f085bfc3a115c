r"""The final answer of a response, and plain spellings of answers. Pure text, nothing evaluated.

A response gives its answer by saying so: in `\boxed{...}`, after `#` (`#### 42` of GSM8K, `#16` of the arithmetic task)
or after "the answer is" / "answer:". A number that merely occurs in the text is no answer unless the caller asks for it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

_BRACES = re.compile(r"\\(?:boxed|fbox)\s*\{|\\[\\{}]|[{}]")
_HASH = re.compile(r"(#+)([^#\n]*)")
_PHRASE = re.compile(
    r"\banswers?\b(?:\s+to\s+[^.:\n]{1,80}?)?[*_]{0,3}\s*(?:\b(?:is|are)\b\s*:?|:)[*_]{0,3}\s*", re.IGNORECASE
)
_DELIMITED = re.compile(
    r"\$\$(.{1,1000}?)\$\$|(?<!\\)\$(.{1,1000}?)(?<!\\)\$|\\\((.{1,1000}?)\\\)|\\\[(.{1,1000}?)\\\]", re.DOTALL
)
_SENTENCE_END = re.compile(r"[.!?](?=\s|$)")
_CONNECTIVE = re.compile(r",?\s+(?:because|since|as|which|where|when|if|so|after|given|assuming)\b", re.IGNORECASE)
_LAST_NUMBER = re.compile(r"(?<![\w.])-?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?:/\d+)?%?(?![\w])")

_SENTENCE_CHARS = 1000
"""A sentence that gives an answer is no longer; keeps every search linear in the response."""
_NUMBER_CHARS = 80
"""Longer strings are not read as plain numbers."""
_DECIMAL_DIGITS = 15
"""Decimals with more digits are left to exact arithmetic elsewhere."""


def extract_answer(text: str, *, last_number: bool = False) -> str | None:
    r"""The answer that a response gives as final, as written; None when it gives none.

    In this order: the content of the last closed `\boxed{...}`; else whichever comes last of a `#` followed by a number
    (after exactly four `#` also by LaTeX, so that headings are no answers) and an "answer is" / "answer:" phrase; else,
    with `last_number`, the last number of the text.
    """
    boxed = _last_boxed(text)
    if boxed is not None:
        return boxed
    marked = [found for found in (_last_hash(text), _last_phrase(text)) if found is not None]
    if marked:
        return max(marked)[1]
    if last_number:
        numbers = _LAST_NUMBER.findall(text)
        return numbers[-1] if numbers else None
    return None


def _last_boxed(text: str) -> str | None:
    """Content of the closed, non-empty box that starts last: the inner one of two nested boxes."""
    opened: list[int] = []  # position after each open brace; negative when the brace does not open a box
    start, best = 0, None
    for match in _BRACES.finditer(text):
        token = match.group()
        if token.startswith("\\") and len(token) == 2:  # an escaped brace or backslash
            continue
        if token != "}":
            opened.append(match.end() if len(token) > 1 else -1)
        elif opened:
            begin = opened.pop()
            if begin > start and (content := text[begin : match.start()].strip()):
                start, best = begin, content
    return best


def _last_hash(text: str) -> tuple[int, str] | None:
    """(position, answer) of the last run of `#` with an answer on its line."""
    for match in reversed(list(_HASH.finditer(text))):
        answer = match.group(2).strip()
        as_latex = len(match.group(1)) == 4 and answer.startswith(("$", "\\", "(", "[", "{", "-\\"))
        if answer and (as_latex or read_number(normalise(answer)) is not None):
            return match.start(), answer
    return None


def _last_phrase(text: str) -> tuple[int, str] | None:
    """(position, answer) of the last "answer is" phrase that is followed by something."""
    for match in reversed(list(_PHRASE.finditer(text))):
        if answer := _clause(text, match.end()):
            return match.start(), answer
    return None


def _clause(text: str, start: int) -> str:
    """What a phrase names: the delimited maths that follows it, or the rest of its sentence."""
    delimited = _DELIMITED.match(text, start)
    line = text[start : start + _SENTENCE_CHARS].split("\n", 1)[0]
    if delimited and not _DELIMITED.search(line, max(0, delimited.end() - start)):
        return next(group for group in delimited.groups() if group is not None).strip()
    end = _SENTENCE_END.search(line)
    sentence = line[: end.start()] if end else line
    return _CONNECTIVE.split(sentence, maxsplit=1)[0].strip().strip("*_`\"' ")


_WRAPPERS: tuple[re.Pattern[str], ...] = tuple(
    re.compile(pattern, re.DOTALL)
    for pattern in (
        r"\$\$([^$]*)\$\$",
        r"\$([^$]*)(?<!\\)\$",
        r"\\\(((?:(?!\\\)).)*)\\\)",
        r"\\\[((?:(?!\\\]).)*)\\\]",
        r"\*\*([^*]*)\*\*",
        r"`([^`]*)`",
        r"\\(?:boxed|fbox)\{([^{}]*)\}",
    )
)
_SPELLINGS: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        ("[\u2212\u2012\u2013]", "-"),
        (r"\\[dtc]frac(?![A-Za-z])", r"\\frac"),
        (r"\\(?:left|right)(?![A-Za-z])\.?", ""),
        (r"(?<!\\)\\!", ""),
        (r"(?<!\\)\\[,;: ]|[~\u00a0\u2009\u202f]|\s+", " "),
        (r"\{,\}", ","),
        (r"\\([%$])", r"\1"),
        (r" {2,}", " "),
    )
)
_MIXED = re.compile(r"(-?\d+) (\d+)/(\d+)", re.ASCII)
_SPACED_GROUPS = re.compile(r"-?[1-9]\d{0,2}(?: \d{3})+(?:\.\d+)?", re.ASCII)
_TEXT_WORDS = re.compile(r"\\(?:text|textbf|mathrm|mbox)\{ ?([A-Za-z ]+?) ?\}")
_IDLE_SPACE = re.compile(r"(?<![0-9A-Za-z,]) | (?![0-9A-Za-z])")
"""Any other space separates words, digits or list items, and so has a meaning."""


def normalise(answer: str) -> str:
    r"""One plain spelling of an answer: no delimiters around it, no layout commands, no final full stop.

    `$\dfrac{1}{2}$.` -> `\frac{1}{2}`, `1\,000` -> `1000`, `2 1/3` -> `2\frac{1}{3}`. Letter case, order and value are
    left as they are.
    """
    text, before = answer, None
    while text != before:
        before = text
        text = text.strip().rstrip(".,;:").strip()
        for wrapper in _WRAPPERS:
            if match := wrapper.fullmatch(text):
                text = match.group(1)
    for pattern, replacement in _SPELLINGS:
        text = pattern.sub(replacement, text)
    text = text.strip()
    if match := _MIXED.fullmatch(text):
        return rf"{match.group(1)}\frac{{{match.group(2)}}}{{{match.group(3)}}}"
    return text.replace(" ", "") if _SPACED_GROUPS.fullmatch(text) else text


def same_text(a: str, b: str) -> bool:
    r"""Whether two normalised answers are the same but for idle spaces; `\text{Evelyn}` is `Evelyn`."""
    return a == b or _core(a) == _core(b)


def _core(answer: str) -> str:
    match = _TEXT_WORDS.fullmatch(answer)
    return _IDLE_SPACE.sub("", match.group(1) if match else answer)


@dataclass(frozen=True, kw_only=True, slots=True)
class PlainNumber:
    """A number read from text, exactly."""

    value: Fraction
    """As written: 9% has the value 9."""
    percent: bool
    integer: bool
    """Written as an integer."""
    decimal: bool
    """Written with a decimal point."""
    text: str
    """LaTeX without separators, currency and unit."""


_CURRENCY = "[$\u20ac\u00a3\u00a5\u20b9]"
_NUMBER = re.compile(
    rf"(?P<sign>[-+]?) ?{_CURRENCY}? ?(?P<inner_sign>[-+]?) ?"
    r"(?:\\frac(?:\{(?P<top_sign>-?)(?P<top>\d+)\}\{(?P<bottom>\d+)\}|(?P<top1>\d)(?P<bottom1>\d))"
    r"|(?P<numerator>\d+)/(?P<denominator>\d+)"
    r"|(?P<whole>[1-9]\d{0,2}(?:,\d{3})+|\d+)?(?P<fraction>\.\d+)?)"
    r"(?P<percent> ?(?:%|[Pp]ercent|[Pp]ct))?"
    rf"(?:(?P<currency_after> ?{_CURRENCY})"
    r"|(?P<latex_unit> ?\\(?:text|textbf|mathrm|mbox)\{(?P<latex_words>[A-Za-z. ~]+)\})"
    r"|(?P<words>(?: [A-Za-z]{2,}){1,3})"
    r")?(?P<power>\^\{?[23]\}?|[\u00b2\u00b3])?",
    re.ASCII,
)
_NOT_UNITS = frozenset(
    re.findall(
        "[a-z]+",
        """
        hundred thousand million billion trillion dozen half halves third thirds quarter quarters fourth fourths fifth fifths
        tenth tenths hundredth hundredths squared cubed times plus minus over divided mod modulo and or to by of is not per
        percent base pi sqrt sin cos tan cot log ln exp inf infinity
        """,
    )
)
"""Words that scale a number or belong to a formula, so they may not be dropped."""


def read_number(text: str) -> PlainNumber | None:
    r"""A plain number in a normalised answer, or None.

    Integers, decimals, thousands separated by commas, `a/b` and `\frac{a}{b}` of integers, with a sign, a currency sign,
    a per cent sign and a unit (words or `\text{...}`), which is dropped. Anything else is None, ambiguous forms too:
    `0,111`, `5 x`, `5 million`, `1/0`.
    """
    if len(text) > _NUMBER_CHARS:
        return None
    match = _NUMBER.fullmatch(text)
    if match is None:
        return None
    part = match.groupdict(default="")
    if (part["sign"] and part["inner_sign"]) or not _is_unit(part):
        return None
    sign = -1 if "-" in (part["sign"], part["inner_sign"]) else 1
    percent = bool(part["percent"])
    suffix = r"\%" if percent else ""
    minus = "-" if sign < 0 else ""
    top, bottom = (
        part["top"] or part["top1"] or part["numerator"],
        part["bottom"] or part["bottom1"] or part["denominator"],
    )
    if top:
        if int(bottom) == 0:
            return None
        value = sign * (-1 if part["top_sign"] else 1) * Fraction(int(top), int(bottom))
        latex = rf"{minus}\frac{{{part['top_sign']}{top}}}{{{bottom}}}{suffix}"
        return PlainNumber(value=value, percent=percent, integer=False, decimal=False, text=latex)
    whole, fraction = part["whole"].replace(",", ""), part["fraction"]
    if not whole + fraction or (fraction and len(whole + fraction) > _DECIMAL_DIGITS + 1):
        return None
    digits = (whole or "0") + fraction
    return PlainNumber(
        value=sign * Fraction(digits),
        percent=percent,
        integer=not fraction,
        decimal=bool(fraction),
        text=minus + digits + suffix,
    )


def _is_unit(part: dict[str, str]) -> bool:
    """Whether what follows the number may be dropped."""
    words = (part["words"] or part["latex_words"]).replace("~", " ").replace(".", " ").lower().split()
    if part["power"] and not words:  # 5^2 is no unit
        return False
    return not _NOT_UNITS.intersection(words)
