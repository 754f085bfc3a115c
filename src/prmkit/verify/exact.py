r"""Equality by exact arithmetic: decides plain numbers, lists of them and equal strings, and leaves the rest open.

What is decided here is what math-verify decides on the same answers (tests/test_verify_fast.py); where its rounding of
decimals to 6 places could matter, nothing is decided. Where math-verify misreads a notation, ours is right (`notations`).
"""

from __future__ import annotations

import re
from fractions import Fraction
from itertools import pairwise

from prmkit.verify.notations import is_power_of_ten, same_notation
from prmkit.verify.plain_numbers import PlainList, PlainNumber, read_list, read_number
from prmkit.verify.spelling import same_text
from prmkit.verify.units import ODD_PARTS, POWERS

_ROUNDING_MARGIN = Fraction(1, 100_000)
"""Decimals closer than this may be equal once math-verify has rounded them to 6 places: it has to say."""
_EQUATION = re.compile(r"([A-Za-z0-9 +*/().^-]*)=\s*([^=]*)")
"""A plain equation: its right side is what it says."""
_NO_LEFT_SIDE = re.compile(r"[,;<>!~\\\u2248\u2260\u2264\u2265]|(?<![A-Za-z])(?:and|or)(?![A-Za-z])")
"""More than one equation, or none: `x = 1, y = 5`, `x <= 5`."""
_NAME = re.compile(r"[A-Za-z](?:_\{?[A-Za-z0-9]{1,4}\}?)? ?")
_PROSE = re.compile(r"(?<![\\A-Za-z])[A-Za-z]{2,} [A-Za-z]{2,}|[^\W\d_a-zA-Z]{2,}")
_PROSE_CHARS = 300
_PROSE_NUMBER = re.compile(
    r"(?<![\w.,/])(?P<number>[-+]?[$€£]?\d[\d.,]*(?:/\d+)?(?<![.,])(?: ?%| percent)?)(?![/\d^]|[.,]\d)"
)
_QUALIFIED = re.compile(
    r"\b(?:not|no|least|most|more|less|fewer|than|between|or|and|to|about|approximately|nearly|over|under|up|times|hundred|"
    r"thousand|million|billion|dozen|half|third|quarter|squared|cubed|plus|minus|remainder|modulo|mod|each|every|per|base|root|"
    r"pi|square|cube|reciprocal|inverse|opposite|multiples?|factors?|divisors?|divisible|divided|powers?|logarithm|double|triple|"
    rf"except|out|one|{'|'.join((*ODD_PARTS, *POWERS))})\b|[\\^=<>*+_]",
    re.IGNORECASE,
)
"""Words and signs that make the number of a sentence another one: `at least 5`, `5 or 6`, `5 million`."""
_ANOTHER_NUMBER = re.compile(
    r"\b(?:(?:squares?|cubes?|roots?|reciprocals?|inverse|opposite|multiples?|factors?|divisors?|powers?|logarithm|double|triple|"
    r"half) of|except(?: for)?|other than|divided by|divisible by|out of|one in)"
    r"(?: the)?(?: numbers?)? ?(?:\\(?:text|textrm|mathrm|mbox)\{|\} ?)*[-+]?[$€£]?\.?\d"
    rf"|\d ?(?:\\(?:text|textrm|mathrm|mbox)\{{ ?)?(?:{'|'.join(ODD_PARTS)})\b",
    re.IGNORECASE,
)
"""Words that surely make the number beside them another one."""
_WORDS = re.compile(r"[A-Za-z][A-Za-z' ,;.!-]{2,}")
_NUMBER_WORDS = frozenset(
    [
        *(
            "zero",
            "one",
            "two",
            "three",
            "four",
            "five",
            "six",
            "seven",
            "eight",
            "nine",
            "ten",
            "eleven",
            "twelve",
            "thirteen",
        ),
        *(
            "fourteen",
            "fifteen",
            "sixteen",
            "seventeen",
            "eighteen",
            "nineteen",
            "twenty",
            "thirty",
            "forty",
            "fifty",
            "sixty",
        ),
        *(
            "seventy",
            "eighty",
            "ninety",
            "hundred",
            "thousand",
            "million",
            "billion",
            "dozen",
            "half",
            "third",
            "thirds",
        ),
        *(
            "quarter",
            "quarters",
            "pair",
            "couple",
            "once",
            "twice",
            "both",
            "single",
            "double",
            "triple",
            "pi",
            "e",
            "i",
            "inf",
        ),
        *("infty", "infinity", "sqrt", "exp", "log", "ln", "sin", "cos", "tan"),
    ]
)
_LAYOUT = re.compile(
    r"\\(?:displaystyle|mathbin|mathrel|mathrm|[bB]igg?[lrm]?|lbrace|rbrace|[(){}\[\],;:! ])|[\s{}()\[\]$]"
)
_NO_OPERAND = re.compile(
    r"\\(?:text|textbf|textit|textrm|mathrm|mbox)\{(?!\d)[^{}]*\}(?: ?\^ ?\{?\d\}?)?|\^ ?\{? ?\\circ ?\}?"
    r"|(?<![\\A-Za-z])[A-Za-z]{2,}"
)
"""Units and words, with which nothing is calculated."""
_FRACTION = re.compile(r"\\frac(?:\{-?\d+\}\{\d+\}|\d\d)")
_OPERATION = re.compile(
    r"[\w.%!|](?:[+*/^\u00d7\u00f7\u00b7-]|\\(?:times|cdot|div|ast|bullet|star))[-+|]*[\w.\\]|\w!|\|[^|]*\d[^|]*\||\\frac"
)
_OPERATORS = re.compile(
    r"\\(?:sum|prod|int|iint|lim|log|ln|exp|sin|cos|tan|cot|arc(?:sin|cos|tan)|gcd|lcm|max|min|lfloor|lceil|b?mod|pmod|det|binom"
    r"|choose|sqrt|lvert|vert)(?![A-Za-z])"
)


def fast_equal(reference: str, answer: str, *, times_hundred: bool = False) -> bool | None:
    """Whether two normalised answers are equal, or None when this takes more than exact arithmetic."""
    if same_text(reference, answer):
        return True
    if (same := same_notation(reference, answer)) is not None:
        return same
    a, b = read_pair(reference, answer)
    if a is not None and b is not None:
        if times_hundred and (a.value * 100 == b.value or a.value == b.value * 100):
            return True
        return _same_numbers(a, b)
    if a is not None and is_only_words(answer, a):
        return False
    return _same_lists(reference, answer, a)


def read_pair(reference: str, answer: str) -> tuple[PlainNumber | None, PlainNumber | None]:
    """The numbers that two answers are compared as, where they are: what one means may depend on the other.

    Compared with a number, `12,5` has a decimal comma, `x = 5` and `2 + 3 = 5` stand for 5, and so does a sentence with that
    one number in it.
    """
    a = read_number(reference)
    if a is not None and not a.maybe_list:
        b = read_number(answer)
        if b is None:
            b = _right_side(answer) or _number_in_prose(answer)
        return a, b
    b = read_number(answer)
    if b is not None and b.maybe_list:
        b = None
    left = _EQUATION.fullmatch(reference)
    if left is None or not _NAME.fullmatch(left.group(1)):
        return None, b
    right = _EQUATION.fullmatch(answer)
    if right is not None and left.group(1).strip() == right.group(1).strip():
        b = read_number(right.group(2).strip())
    a = read_number(left.group(2).strip())
    both = a is not None and b is not None and not (a.maybe_list or b.maybe_list)
    return (a, b) if both else (None, None if right else b)


def _right_side(answer: str) -> PlainNumber | None:
    """What an equation or a chain of them comes to: `x = 5`, `2 + 3 (apples) = 5`."""
    left, equals, right = answer.rpartition("=")
    return read_number(right.strip()) if equals and not _NO_LEFT_SIDE.search(left) else None


def _number_in_prose(answer: str) -> PlainNumber | None:
    """The one number of a sentence that says nothing else about it: `she has 5 apples left`."""
    if len(answer) > _PROSE_CHARS or not _PROSE.search(answer) or _QUALIFIED.search(answer):
        return None
    found = list(_PROSE_NUMBER.finditer(answer))
    if len(found) != 1 or len(re.findall(r"\d+", answer)) != len(re.findall(r"\d+", found[0].group())):
        return None
    number = read_number(found[0].group("number"))
    return None if number is None or number.maybe_list else number


def is_only_words(answer: str, reference: PlainNumber) -> bool:
    """Whether an answer is English words without a number, which no number but 0 (`none`) equals."""
    if reference.value == 0 or not _WORDS.fullmatch(answer):
        return False
    return not _NUMBER_WORDS.intersection(re.findall("[a-z]+", answer.lower()))


def names_another_number(answer: str) -> bool:
    """Whether an answer says by words that it is not the one number in it: `the reciprocal of 25`, `a multiple of 5`."""
    return _ANOTHER_NUMBER.search(answer) is not None and len(re.findall(r"\d[\d.,]*", answer)) == 1


def is_arithmetic(answer: str) -> bool:
    r"""Whether an answer is a calculation that was not worked out: `2+2`, `x = 3 \times 4`, `5! m`, `\int_0^1 2x dx`.

    Powers of ten (`6 \times 10^3`) are a notation.
    """
    right = answer.rpartition("=")[2].strip()
    if read_number(right) is not None or is_power_of_ten(right) or not any(c.isdigit() for c in right):
        return False
    plain = _LAYOUT.sub("", _NO_OPERAND.sub(",", _FRACTION.sub("1", right)))
    return _OPERATION.search(plain) is not None or _OPERATORS.search(right) is not None


def _same_numbers(a: PlainNumber, b: PlainNumber) -> bool | None:
    if a.percent == b.percent:
        return _same_values(a.value, b.value, a.decimal or b.decimal, 100 if a.percent else 1)
    percent, plain = (a, b) if a.percent else (b, a)
    as_unit = _same_values(percent.value, plain.value, a.decimal or b.decimal, 1)
    as_value = _same_values(percent.value / 100, plain.value, True, 1)
    if as_unit or as_value:
        return True
    return False if as_unit is False and as_value is False else None


def _same_values(a: Fraction, b: Fraction, rounded: bool, scale: int) -> bool | None:
    if a == b:
        return True
    return None if rounded and abs(a - b) <= scale * _ROUNDING_MARGIN else False


def _same_lists(reference: str, answer: str, number: PlainNumber | None) -> bool | None:
    """Lists of plain numbers in the same kind of brackets; a number is no list of several."""
    b = read_list(answer)
    if b is None:
        return None
    if number is not None:
        return False if _distinct(b) else None
    a = read_list(reference)
    if a is None or a.brackets != b.brackets or not (_distinct(a) and _distinct(b)):
        return None
    if len(a.items) != len(b.items):
        return False
    pairs = zip(_ordered(a), _ordered(b), strict=True)
    same = [_same_values(x.value, y.value, x.decimal or y.decimal, 1) for x, y in pairs]
    if all(same):
        return True
    return False if False in same else None


def _ordered(numbers: PlainList) -> list[PlainNumber]:
    """A set has no order; what stands in brackets has one."""
    return list(numbers.items) if numbers.brackets else sorted(numbers.items, key=lambda item: item.value)


def _distinct(numbers: PlainList) -> bool:
    """Whether no two items could be one to math-verify, which drops what a set holds twice."""
    values = sorted(item.value for item in numbers.items)
    return all(b - a > _ROUNDING_MARGIN for a, b in pairwise(values))
