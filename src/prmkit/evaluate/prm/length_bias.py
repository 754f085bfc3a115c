"""Length bias: does a solution's score follow its number of steps rather than its being right?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from prmkit.data.labels import is_right
from prmkit.data.step_scores import Aggregate, aggregate, ranked
from prmkit.data.types import StepRewards
from prmkit.evaluate.accuracy import Interval
from prmkit.evaluate.prm.bootstrap import Resampling, Tally, estimate, mean_of
from prmkit.evaluate.prm.scored import Scored, problem_key

MAX_BINS = 8


@dataclass(frozen=True, kw_only=True)
class LengthPoint:
    """Solutions of about the same number of steps and the same outcome."""

    low: int
    high: int
    steps: float
    """Mean number of steps."""
    score: Interval


@dataclass(frozen=True, kw_only=True)
class LengthBias:
    """Mean score by number of steps, right and wrong solutions apart, and the rank correlation of the two."""

    right: tuple[LengthPoint, ...]
    wrong: tuple[LengthPoint, ...]
    right_correlation: float | None
    """Spearman's rho of score and number of steps; None where one of them does not vary."""
    wrong_correlation: float | None


def length_bias(scored: Sequence[Scored], name: Aggregate, resampling: Resampling) -> LengthBias:
    """For the scored solutions whose outcome is known; right is an outcome above 0.5."""
    rows = [
        (len(row.solution.steps), aggregate(row.rewards, name), is_right(row.solution.outcome), row)
        for row in scored
        if isinstance(row.rewards, StepRewards) and row.solution.outcome is not None
    ]
    edges = step_bins([steps for steps, *_ in rows])
    parts: dict[bool, tuple[tuple[LengthPoint, ...], float | None]] = {}
    for outcome in (True, False):
        part = [(steps, score, row) for steps, score, right, row in rows if right == outcome]
        ranks = [ranked(row.rewards, name) for *_, row in part if isinstance(row.rewards, StepRewards)]
        points = []
        for low, high in edges:
            inside = [(steps, score, row) for steps, score, row in part if low <= steps <= high]
            tallies = [Tally(row.index, problem_key(row.solution), (score, 1.0)) for _, score, row in inside]
            found = estimate(tallies, mean_of, resampling, share=False)
            if found is not None:
                mean_steps = fmean(steps for steps, *_ in inside)
                points.append(LengthPoint(low=low, high=high, steps=mean_steps, score=found))
        rho = spearman([steps for steps, *_ in part], ranks)
        parts[outcome] = (tuple(points), rho)
    return LengthBias(
        right=parts[True][0], wrong=parts[False][0], right_correlation=parts[True][1], wrong_correlation=parts[False][1]
    )


def step_bins(lengths: Sequence[int]) -> list[tuple[int, int]]:
    """At most MAX_BINS ranges (low, high) of whole numbers of steps, that hold about equally many solutions."""
    if not lengths:
        return []
    ordered = sorted(lengths)
    lows = sorted({ordered[len(ordered) * k // MAX_BINS] for k in range(MAX_BINS)})
    return [(low, high - 1) for low, high in zip(lows, [*lows[1:], ordered[-1] + 1], strict=True)]


def spearman(x: Sequence[float], y: Sequence[float]) -> float | None:
    """Rank correlation, equal values sharing their mean rank; None where one does not vary."""
    if len(x) < 2:
        return None
    a, b = _ranks(x), _ranks(y)
    mean = (len(x) + 1) / 2
    cross = sum((p - mean) * (q - mean) for p, q in zip(a, b, strict=True))
    spread = sum((p - mean) ** 2 for p in a) * sum((q - mean) ** 2 for q in b)
    return cross / spread**0.5 if spread > 0 else None


def _ranks(values: Sequence[float]) -> list[float]:
    order = sorted(range(len(values)), key=lambda k: values[k])
    ranks = [0.0] * len(values)
    start = 0
    while start < len(order):
        end = start
        while end + 1 < len(order) and values[order[end + 1]] == values[order[start]]:
            end += 1
        for k in order[start : end + 1]:
            ranks[k] = (start + end) / 2 + 1
        start = end + 1
    return ranks
