"""References as the data sets write them, turned into the text that a response is compared with."""

from __future__ import annotations

import math
from typing import Any

from prmkit.errors import DataError
from prmkit.verify.answers import extract_answer

MARK = "####"
MOST_CHARACTERS = 200
"""Of a reference that is no worked solution."""


def plain(value: Any, where: str) -> str:
    """A text that is not blank, or a number; whole numbers lose their `.0` (AMC and SVAMP store 142.0 for 142)."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if isinstance(value, float) and math.isfinite(value):
        return str(int(value)) if value.is_integer() else repr(value)
    if isinstance(value, str) and value.strip():
        text = value.strip()
        whole, point, rest = text.partition(".")
        return whole if point and rest and not rest.strip("0") and whole.lstrip("-").isdigit() else text
    raise DataError(
        f"{where}: the reference is {value!r}, expected a text or a finite number; mend it or remove the row"
    )


def after_hashes(value: Any, where: str) -> str:
    """What follows the last `####` of a worked solution (GSM8K); a value without one is the reference itself."""
    if not isinstance(value, str) or MARK not in value:
        return plain(value, where)
    return plain(value.rpartition(MARK)[2], where)


def boxed(value: Any, where: str) -> str:
    r"""The content of the last `\boxed{}` of a worked solution (Minerva Math); a short text without one is the reference.

    Raises DataError for a long text without a box: a whole solution is no reference.
    """
    text = plain(value, where)
    if "\\boxed" not in text and len(text) <= MOST_CHARACTERS:
        return text
    answer = extract_answer(text) if "\\boxed" in text else None
    if answer is None:
        raise DataError(f"{where}: the solution has no \\boxed{{}} to take the reference from; add a field 'answer'")
    return answer


def joined(value: Any, where: str) -> str:
    """A list of references as one text (OlympiadBench); a single one as it stands."""
    if isinstance(value, list):
        return ", ".join(plain(item, where) for item in value) if value else plain(None, where)
    return plain(value, where)


def yes_no(value: Any, where: str) -> str:
    """`yes` for true, `no` for false (StrategyQA)."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    text = plain(value, where).lower()
    if text in ("yes", "true", "no", "false"):
        return "yes" if text in ("yes", "true") else "no"
    raise DataError(f"{where}: the reference is {value!r}, expected true or false")
