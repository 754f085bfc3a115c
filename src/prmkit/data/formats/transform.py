"""What a conversion may do to a solution. Pure functions; each gives the solution itself where there is nothing to do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Literal

from prmkit.data.labels import is_right
from prmkit.data.types import Solution, StepLabel

PARTIAL = ("cut_from", "alternative", "lead")
"""Keys of `meta` that mark what is only the beginning of a response."""


def with_neutral(solution: Solution, how: Literal["keep", "right", "wrong", "drop"]) -> Solution:
    """Neutral labels as right, as wrong, or removed."""
    if how == "keep":
        return solution
    value: StepLabel = {"right": 1.0, "wrong": 0.0, "drop": None}[how]
    return _relabelled(solution, lambda label: value if label == "neutral" else label)


def with_unlabelled(solution: Solution, how: Literal["keep", "right", "wrong"]) -> Solution:
    """Missing labels as right or as wrong."""
    if how == "keep":
        return solution
    value = 1.0 if how == "right" else 0.0
    return _relabelled(solution, lambda label: value if label is None else label)


def until_unlabelled(solution: Solution) -> Solution | None:
    """The solution cut before its first step without label; None where no step is left."""
    if solution.labels is None:
        return solution
    first = next((k for k, label in enumerate(solution.labels) if label is None), len(solution.steps))
    return cut(solution, first) if first else None


def hardened(solution: Solution, threshold: float) -> Solution:
    """Labels and outcome above the threshold 1, others 0; neutral and missing ones stay."""
    outcome = None if solution.outcome is None else float(is_right(solution.outcome, threshold))

    def hard(label: StepLabel) -> StepLabel:
        return float(is_right(label, threshold)) if isinstance(label, (int, float)) else label

    return replace(_relabelled(solution, hard), outcome=outcome)


def after_error(solution: Solution, how: Literal["keep", "unlabel", "cut"]) -> Solution:
    """Steps after the first wrong one cut, or without their labels."""
    first = solution.first_error
    if how == "keep" or first is None or solution.labels is None:
        return solution
    if how == "cut":
        return cut(solution, first + 1)
    count = len(solution.steps) - first - 1
    return replace(solution, labels=(*solution.labels[: first + 1], *(None,) * count))


def cut(solution: Solution, count: int) -> Solution:
    """The first `count` steps. Outcome and answer belong to the whole response, so what is shorter has neither."""
    if count >= len(solution.steps):
        return solution
    return replace(
        solution,
        steps=solution.steps[:count],
        labels=None if solution.labels is None else solution.labels[:count],
        outcome=None,
        answer=None,
        meta={**solution.meta, "cut_from": len(solution.steps)},
    )


def numbered(solution: Solution) -> Solution:
    """Each step begins with `Step k: `."""
    steps = (
        step if step.startswith(f"Step {k}:") else f"Step {k}: {step}" for k, step in enumerate(solution.steps, start=1)
    )
    return replace(solution, steps=tuple(steps))


def with_outcome(solution: Solution) -> Solution:
    """Where no outcome is known: wrong if a step is wrong, right if the solution is whole (see `is_whole`), all its steps are
    labelled and none is wrong (PRM800K's rule)."""
    if solution.outcome is not None or not solution.labels:
        return solution
    if solution.first_error is not None:
        return replace(solution, outcome=0.0)
    return replace(solution, outcome=1.0) if None not in solution.labels and is_whole(solution) else solution


def is_whole(solution: Solution) -> bool:
    """Whether nothing says that the solution ends before its answer: no cut, no alternative of PRM800K or prefix of MATH-APS, and
    a PRM800K labelling that ended with finish_reason `solution`."""
    if any(key in solution.meta for key in PARTIAL):
        return False
    return bool(solution.meta.get("finish_reason", "solution") == "solution")


def _relabelled(solution: Solution, change: Callable[[StepLabel], StepLabel]) -> Solution:
    if solution.labels is None:
        return solution
    labels = tuple(change(label) for label in solution.labels)
    return solution if labels == solution.labels else replace(solution, labels=labels)
