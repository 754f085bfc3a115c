r"""Whether a mathematical answer equals the reference: plain numbers and equal strings here, the rest by math-verify.

Equality is of values: no tolerance beyond math-verify's rounding of decimals to 6 places, and a percentage never equals
its hundredth without its sign. Units are ignored, as math-verify ignores them.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import Any

from prmkit.data.types import Verdict
from prmkit.verify.answers import extract_answer, normalise, read_number, same_text

_ROUNDING_MARGIN = Fraction(1, 100_000)
"""Decimals closer than this may be equal once math-verify has rounded them to 6 places: it has to say."""
_TEXT = re.compile(r"\\(?:text|textbf|mathrm|mbox)\{[^{}]*\}")
_PROSE = re.compile(r"(?<![\\A-Za-z])[A-Za-z]{2,} [A-Za-z]{2,}")
_EQUATION = re.compile(r"[A-Za-z0-9 +*/().^-]*=\s*([^=]*)")
"""A plain equation: compared with a number, it stands for its right side."""
_SHOWN_CHARS = 80


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """Two normalised answers that only math-verify can compare. Hashable, so equal ones are compared once."""

    reference: str
    answer: str


def fast_verdict(reference: str, response: str, *, last_number: bool = False) -> Verdict | Comparison:
    """Decides without sympy when the answer is missing, the strings are equal or both are plain numbers.

    No final answer in the response is decided: reward 0 with detail "no answer", since the task asks for one
    (`last_number` also takes the last number of the text for one). A `Comparison` is what is left to do.
    """
    wanted = _reference_answer(reference)
    if not wanted:
        return Verdict(status="unparsed", reward=None, detail="the reference answer is empty")
    answer = normalise(extract_answer(response, last_number=last_number) or "")
    if not answer:
        return Verdict(status="ok", reward=0.0, detail="no answer")
    same = fast_equal(wanted, answer)
    return Comparison(reference=wanted, answer=answer) if same is None else _decided(same)


def fast_equal(reference: str, answer: str) -> bool | None:
    """Whether two normalised answers are equal, or None when this takes more than exact arithmetic."""
    if same_text(reference, answer):
        return True
    a = read_number(reference)
    b = read_number(answer) or (read_number(match.group(1)) if (match := _EQUATION.fullmatch(answer)) else None)
    if a is None or b is None:
        return None
    if a.percent != b.percent:  # 9% is 9 and is 0.09, but 9 is not 0.09
        return True if a.value == b.value and a.integer and b.integer else None
    if a.value == b.value:
        return True
    margin = (100 if a.percent else 1) * _ROUNDING_MARGIN
    return None if (a.decimal or b.decimal) and abs(a.value - b.value) <= margin else False


def judge(reference: str, response: str) -> Verdict:
    """The whole judgement, math-verify included. It has no deadline: run it in a `WorkerPool`."""
    found = fast_verdict(reference, response)
    return found if isinstance(found, Verdict) else math_verify_verdict(found)


def math_verify_verdict(item: Comparison) -> Verdict:
    """math-verify's judgement, without its alarm-based time limits: the pool kills what takes too long."""
    _, verify = _math_verify()
    gold = _parsed(item.reference)
    if not gold:
        return Verdict(status="unparsed", reward=None, detail=f"the reference {_shown(item.reference)} cannot be read")
    found = _parsed(item.answer)
    if not found:
        return Verdict(status="unparsed", reward=None, detail=f"the answer {_shown(item.answer)} cannot be read")
    failure = ""
    for a in gold:
        for b in found:
            try:
                if verify(a, b, timeout_seconds=None, raise_on_error=True):
                    return _decided(True)
            except Exception as error:  # sympy raises anything; another pair may still be equal
                failure = f"math-verify failed: {type(error).__name__}: {str(error)[:200]}"
    return Verdict(status="error", reward=None, detail=failure) if failure else _decided(False)


def load_math_verify() -> Callable[[Comparison], Verdict]:
    """For a worker: imports math-verify and warms its parser up, so that no deadline pays for it."""
    math_verify_verdict(Comparison(reference=r"\frac{1}{2}", answer="x+1"))
    return math_verify_verdict


@lru_cache(maxsize=4096)
def _reference_answer(reference: str) -> str:
    return normalise(extract_answer(reference) or reference)


def _decided(same: bool) -> Verdict:
    return Verdict(status="ok", reward=1.0 if same else 0.0)


def _shown(text: str) -> str:
    return repr(text if len(text) <= _SHOWN_CHARS else text[:_SHOWN_CHARS] + "...")


@lru_cache(maxsize=1)
def _math_verify() -> tuple[Callable[..., list[Any]], Callable[..., bool]]:
    from math_verify import parse, verify  # sympy takes half a second and 60 MB: only where it is used

    # It warns of the missing time limits, which the pool provides, and of every failure, which the verdict tells.
    logging.getLogger("math_verify").setLevel(logging.ERROR)
    return parse, verify


def _parsed(text: str) -> list[Any]:
    """The sympy objects that math-verify reads in a normalised answer: none when it falls back on the bare string."""
    parse, _ = _math_verify()
    number = read_number(text)
    if number is not None:
        source = rf"\boxed{{{number.text}}}"
    elif "$" in text:  # prose with maths in it
        source = text
    elif _PROSE.search(_TEXT.sub("", text)):  # as LaTeX, each letter would be a variable
        source = f"The final answer is: {text}"
    else:
        source = rf"\boxed{{{text}}}"
    return [found for found in parse(source, parsing_timeout=None) if not isinstance(found, str)]
