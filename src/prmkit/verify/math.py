r"""Whether a mathematical answer equals the reference: what exact arithmetic can decide here, the rest by math-verify.

Equality is of values: no tolerance beyond math-verify's rounding of decimals to 6 places. A per cent sign may be read as a unit
(`12.5%` for `12.5`) or as its value (`0.125`); a factor of 100 without the sign is never forgiven unless asked for. Units are
ignored, as math-verify ignores them. docs/verifiers.md has every decision.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from prmkit.config import MathConfig
from prmkit.data.types import Verdict
from prmkit.verify.answers import after_thinking, extract_answer, marked_answer
from prmkit.verify.choices import Choice, concluded_choice, last_choice, read_choice, same_choice
from prmkit.verify.exact import fast_equal, is_arithmetic, is_only_words, names_another_number, read_pair
from prmkit.verify.plain_numbers import PlainNumber, read_number
from prmkit.verify.spelling import PRICES, normalise

__all__ = [
    "Comparison",
    "fast_equal",
    "fast_verdict",
    "final_answer",
    "judge",
    "load_math_verify",
    "math_verify_verdict",
]

_TEXT = re.compile(r"\\(?:text|textbf|mathrm|mbox)\{[^{}]*\}")
_PROSE = re.compile(r"(?<![\\A-Za-z])[A-Za-z]{2,} [A-Za-z]{2,}")
_AND = re.compile(r"(?<=\d)\s*(?:\\q?quad\s*)?\\text\{ ?(?:and|or) ?\}\s*(?:\\q?quad\s*)?(?=[A-Za-z] ?=)")
"""Between solutions such as `p = 5, q = 2 and p = 7, q = 2`, where a comma would make one long list."""
_SYMBOLS = str.maketrans(
    {
        "\u03c0": r"\pi ", "\u00d7": r"\times ", "\u00b7": r"\cdot ", "\u22c5": r"\cdot ", "\u00f7": "/", "\u221e": r"\infty ",
        "\u2264": r"\leq ", "\u2265": r"\geq ", "\u2260": r"\neq ", "\u222a": r"\cup ", "\u2229": r"\cap ", "\u2208": r"\in ",
        "\u00b0": r"^\circ ", "\u00b2": "^{2}", "\u00b3": "^{3}", "\u00b1": r"\pm ", "\u221a": r"\sqrt",
    }
)  # fmt: skip
_SENTENCES = re.compile(r"[.!?] +[A-Z]")
"""A whole derivation, of which math-verify takes the last number before a dollar sign or the end."""
_UNEQUAL = re.compile(r"\\n(?:e|eq)(?![A-Za-z])|\u2260|!=|\\not ?=")
_NOTHING = re.compile(r"(?:\\(?:text|textbf|mathrm|mbox)(?=\{)|[{}\s?._-]|\\(?= ))*")
"""A reference that says nothing, such as `?` or `\\text{}`: a response could say nothing too, and be right."""
_SHOWN_CHARS = 80
_READABLE_CHARS = 2000
"""No answer is longer; what is longer can hold a parser up without end."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """Two normalised answers that only math-verify can compare. Hashable, so equal ones are compared once."""

    reference: str
    answer: str


@dataclass(frozen=True, kw_only=True, slots=True)
class _Reference:
    text: str
    choice: Choice | None
    number: bool


_DEFAULTS = MathConfig()


def fast_verdict(reference: str, response: str, *, options: MathConfig = _DEFAULTS) -> Verdict | Comparison:
    """Decides without sympy where exact arithmetic can. A `Comparison` is what is left to do.

    No final answer in the response is decided: reward 0 with detail "no answer", since the task asks for one
    (`options.last_number` also takes the last number or formula of the text for one). A reference that is a letter of
    multiple choice is compared by letter.
    """
    wanted = _read_reference(reference)
    if not wanted.text:
        return Verdict(status="unparsed", reward=None, detail="the reference answer is empty")
    if wanted.choice is not None:
        return _choice_verdict(wanted.choice, response, options.last_number)
    answer = normalise(extract_answer(response, last_number=options.last_number) or "")
    if not answer:
        return _no_answer()
    same = fast_equal(wanted.text, answer, times_hundred=options.times_hundred)
    if same is not True and not options.unevaluated and wanted.number and is_arithmetic(answer):
        return Verdict(status="ok", reward=0.0, detail="arithmetic that was not worked out")
    if same is not None:
        return _decided(same)
    return _too_long(wanted.text, answer) or Comparison(reference=wanted.text, answer=answer)


def judge(reference: str, response: str, *, options: MathConfig = _DEFAULTS) -> Verdict:
    """The whole judgement, math-verify included. It has no deadline: run it in a `WorkerPool`."""
    found = fast_verdict(reference, response, options=options)
    return found if isinstance(found, Verdict) else math_verify_verdict(found)


def math_verify_verdict(item: Comparison) -> Verdict:
    """math-verify's judgement, without its alarm-based time limits: the pool kills what takes too long.

    Where one side has a per cent sign and the other none, equal with or without the sign is equal.
    """
    a, b = read_pair(item.reference, item.answer)
    if a is not None and b is None and is_only_words(item.answer, a):
        return _decided(False)
    if a is not None and b is None and names_another_number(item.answer):  # math-verify reads `cube of 5` as 5
        return _decided(False)
    if _UNEQUAL.search(item.answer) and not _UNEQUAL.search(item.reference):  # math-verify reads `\neq 5` as 5
        return _decided(False)
    gold = _parsed(item.reference, a)
    if not gold:
        return Verdict(status="unparsed", reward=None, detail=f"the reference {_shown(item.reference)} cannot be read")
    found = _parsed(item.answer, b)
    if not found:
        return Verdict(status="unparsed", reward=None, detail=f"the answer {_shown(item.answer)} cannot be read")
    verdict = _any_equal(gold, found)
    if verdict.reward != 1.0 and a is not None and b is not None and a.percent != b.percent:
        return _any_equal(_parsed(a.text.removesuffix(r"\%"), None), _parsed(b.text.removesuffix(r"\%"), None))
    return verdict


def _any_equal(gold: tuple[Any, ...], found: tuple[Any, ...]) -> Verdict:
    _, verify = _math_verify()
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
def _read_reference(reference: str) -> _Reference:
    text = normalise(marked_answer(reference) or reference)
    text = "" if _NOTHING.fullmatch(text) else text
    return _Reference(text=text, choice=read_choice(text), number=read_number(text) is not None)


def final_answer(reference: str, response: str, *, options: MathConfig = _DEFAULTS) -> str | None:
    """The answer of a response as it is compared with this reference, as written; None where there is none."""
    if _read_reference(reference).choice is not None:
        return _chosen(response, options.last_number)
    return extract_answer(response, last_number=options.last_number)


def _choice_verdict(wanted: Choice, response: str, anywhere: bool) -> Verdict:
    chosen = _chosen(response, anywhere)
    return _no_answer() if chosen is None else _decided(same_choice(wanted, chosen))


def _chosen(response: str, anywhere: bool) -> str | None:
    """What names the option: an answer that is marked, else the letter that the response concludes with."""
    response = after_thinking(response)
    marked = extract_answer(response)
    if marked is None:
        marked = concluded_choice(response)
    return last_choice(response) if marked is None and anywhere else marked


def _decided(same: bool) -> Verdict:
    return Verdict(status="ok", reward=1.0 if same else 0.0)


def _too_long(reference: str, answer: str) -> Verdict | None:
    for name, text in (("reference", reference), ("answer", answer)):
        if len(text) > _READABLE_CHARS:
            detail = f"the {name} {_shown(text)} has {len(text)} characters, more than {_READABLE_CHARS} are not read"
            return Verdict(status="unparsed", reward=None, detail=detail)
    return None


def _no_answer() -> Verdict:
    return Verdict(status="ok", reward=0.0, detail="no answer")


def _shown(text: str) -> str:
    return repr(text if len(text) <= _SHOWN_CHARS else text[:_SHOWN_CHARS] + "...")


@lru_cache(maxsize=1)
def _math_verify() -> tuple[Callable[..., list[Any]], Callable[..., bool]]:
    from math_verify import parse, verify  # sympy takes half a second and 60 MB: only where it is used

    # It warns of the missing time limits, which the pool provides, and of every failure, which the verdict tells.
    logging.getLogger("math_verify").setLevel(logging.ERROR)
    return parse, verify


@lru_cache(maxsize=512)
def _parsed(text: str, number: PlainNumber | None) -> tuple[Any, ...]:
    """The sympy objects that math-verify reads in a normalised answer: none when it falls back on the bare string.

    Kept, since the answers to one question have one reference.
    """
    parse, _ = _math_verify()
    if PRICES.fullmatch(text) and not _SENTENCES.search(text):
        text = text.replace("$", "")
    if number is not None:
        source = rf"\boxed{{{number.text}}}"
    elif "$" in text:  # prose with maths in it
        source = text
    elif _PROSE.search(_TEXT.sub("", text)):  # as LaTeX, each letter would be a variable
        source = f"The final answer is: {text}"
    else:
        source = rf"\boxed{{{_AND.sub('; ', text).translate(_SYMBOLS)}}}"
    return tuple(found for found in parse(source, parsing_timeout=None) if not isinstance(found, str))
