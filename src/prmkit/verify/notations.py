r"""Numbers whose notation math-verify misreads: `6.02e23` (a product with e, to it) and `1011_2` (the base is ignored)."""

from __future__ import annotations

import re
from fractions import Fraction

from prmkit.verify.plain_numbers import read_number
from prmkit.verify.units import UNIT, is_unit

_TEN = r"10 ?(?:\^|\*\*) ?"
_SCIENTIFIC = re.compile(
    r"(?:(?P<mantissa>[-+]?(?:\d{1,40}(?:\.\d{0,40})?|\.\d{1,40}))"
    r"(?:(?P<letter>[eE])(?P<power>[-+]?\d{1,4})"
    rf"| ?(?:\\times|\\cdot|\\ast|\u00d7|\u00b7|\*) ?{_TEN}(?:\{{ ?(?P<braced>[-+]?\d{{1,4}}) ?\}}|(?P<bare>-?\d{{1,4}})))"
    rf"|{_TEN}(?:\{{ ?(?P<only_braced>[-+]?\d{{1,4}}) ?\}}|(?P<only_bare>-?\d{{1,4}})))"
    rf"(?:{UNIT})?",
    re.ASCII,
)
_BASED = re.compile(r"(?P<digits>[0-9A-Za-z]{1,64}) ?_ ?(?:\{ ?(?P<braced>\d{1,2}) ?\}|(?P<bare>\d{1,2}))", re.ASCII)


def same_notation(reference: str, answer: str) -> bool | None:
    r"""Whether two normalised answers are equal, where one is written `1.5e3` or both are digits with a base; else None.

    Powers of ten are compared exactly, with other powers of ten and with plain numbers. Digits are equal if they and their bases
    are: a question about base 2 asks for that notation, so `11_{10}` is no `1011_2`.
    """
    a, b = _digits_and_base(reference), _digits_and_base(answer)
    if a is not None and b is not None:
        return a == b
    x, y = _scientific(reference), _scientific(answer)
    if not ((x and x[1]) or (y and y[1])):
        return None
    left, right = _value(reference, x), _value(answer, y)
    return None if left is None or right is None else left == right


def is_power_of_ten(text: str) -> bool:
    r"""Whether a normalised answer is a number times a power of ten: `6 \times 10^3`, `10^6`, `6e3`."""
    return _scientific(text) is not None


def _value(text: str, scientific: tuple[Fraction, bool] | None) -> Fraction | None:
    if scientific is not None:
        return scientific[0]
    plain = read_number(text)
    return None if plain is None or plain.percent or plain.maybe_list else plain.value


def _scientific(text: str) -> tuple[Fraction, bool] | None:
    """Its value, and whether the power is written with the letter e."""
    match = _SCIENTIFIC.fullmatch(text)
    if match is None:
        return None
    part = match.groupdict(default="")
    if not is_unit(part["words"] or part["latex_words"]):
        return None
    power = next(part[name] for name in ("power", "braced", "bare", "only_braced", "only_bare") if part[name])
    return Fraction(part["mantissa"] or "1") * Fraction(10) ** int(power), bool(part["letter"])


def _digits_and_base(text: str) -> tuple[str, int] | None:
    """The digits in upper case without leading zeros, and a base from 2 to 36 that has them."""
    match = _BASED.fullmatch(text)
    if match is None:
        return None
    digits, base = match["digits"].upper().lstrip("0") or "0", int(match["braced"] or match["bare"])
    if not (2 <= base <= 36 and match["digits"][0].isdigit()) or any(int(digit, 36) >= base for digit in digits):
        return None  # x_2 is a name
    return digits, base
