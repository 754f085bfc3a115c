"""Do process rewards find the first wrong step? Values of steps against the truth. No torch.

`step_values[i]` holds one number for each step of rollout i (the sum of its tokens' rewards), `first_error[i]` the index of
its first wrong step, -1 if there is none. Only steps whose truth is clean are compared: the first wrong step, and the right
ones, which are those before it and all steps of rollouts without error. What follows an error is left out.
"""

from __future__ import annotations

import math
import random
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean, quantiles

from prmkit.evaluate.accuracy import Interval

CHANCE_AUC = 0.5

Measure = Callable[[Sequence[Sequence[float]], Sequence[int]], float | None]
"""A number about rollouts, from their step values and first errors; None where they do not define it."""


@dataclass(frozen=True, kw_only=True)
class Localisation:
    """How well step values find the first wrong step. None where the rollouts do not define a number.

    The intervals hold 95% of a bootstrap over rollouts.
    """

    first_error_auc: Interval | None
    within_rollout_auc: Interval | None
    """Chance is `CHANCE_AUC` for both."""
    hit_rate: Interval | None
    hit_rate_chance: float | None
    num_rollouts: int
    num_wrong: int
    """Rollouts with an error."""


def localise(
    step_values: Sequence[Sequence[float]], first_error: Sequence[int], *, seed: int, num: int = 200
) -> Localisation:
    """All measures of this file, each with a bootstrap interval of `num` resamples."""
    rollouts = list(zip(step_values, first_error, strict=True))
    return Localisation(
        first_error_auc=bootstrap_interval(first_error_auc, rollouts, seed, num),
        within_rollout_auc=bootstrap_interval(within_rollout_auc, rollouts, seed, num),
        hit_rate=bootstrap_interval(first_error_hit_rate, rollouts, seed, num),
        hit_rate_chance=hit_rate_chance(step_values, first_error),
        num_rollouts=len(rollouts),
        num_wrong=sum(error >= 0 for error in first_error),
    )


def first_error_auc(step_values: Sequence[Sequence[float]], first_error: Sequence[int]) -> float | None:
    """P(a first wrong step has a lower value than a right step), ties half, all rollouts pooled (Mann-Whitney U).

    Also high when wrong rollouts are low as a whole; `within_rollout_auc` is not. None without a wrong or a right step.
    """
    _check(step_values, first_error)
    wrong = [values[error] for values, error in zip(step_values, first_error, strict=True) if error >= 0]
    right = [
        value
        for values, error in zip(step_values, first_error, strict=True)
        for value in (values[:error] if error >= 0 else values)
    ]
    return _auc(wrong, right) if wrong and right else None


def within_rollout_auc(step_values: Sequence[Sequence[float]], first_error: Sequence[int]) -> float | None:
    """The share of the steps before the first wrong one whose value is higher, ties half; mean over wrong rollouts.

    No rollout is compared with another, so neither its level nor its length counts. The wrong step is always the last one
    compared, so values that fall along every rollout, right ones too, raise this number. Rollouts that begin with the error
    are left out; None where no other is wrong.
    """
    _check(step_values, first_error)
    found = [
        _auc([values[error]], values[:error])
        for values, error in zip(step_values, first_error, strict=True)
        if error > 0
    ]
    return fmean(found) if found else None


def first_error_hit_rate(step_values: Sequence[Sequence[float]], first_error: Sequence[int]) -> float | None:
    """How often the lowest of all steps of a wrong rollout is the first wrong one; k equally low steps count 1/k each.

    None without a wrong rollout.
    """
    _check(step_values, first_error)
    hits = []
    for values, error in zip(step_values, first_error, strict=True):
        if error >= 0:
            lowest = min(values)
            hits.append((values[error] == lowest) / list(values).count(lowest))
    return fmean(hits) if hits else None


def hit_rate_chance(step_values: Sequence[Sequence[float]], first_error: Sequence[int]) -> float | None:
    """`first_error_hit_rate` of values that know nothing: the mean of 1 / (number of steps) over wrong rollouts."""
    _check(step_values, first_error)
    shares = [1 / len(values) for values, error in zip(step_values, first_error, strict=True) if error >= 0]
    return fmean(shares) if shares else None


def bootstrap_interval(
    fn: Measure, rollouts: Sequence[tuple[Sequence[float], int]], seed: int, num: int = 200
) -> Interval | None:
    """`fn` of the rollouts, with the middle 95% of its values on `num` resamples of them, drawn with replacement.

    Resamples that do not define `fn` are left out. None where the rollouts themselves do not define it. A measure that is
    the same on every resample has an interval without width.
    """
    if num < 40:
        raise ValueError(f"num = {num} resamples do not reach the outer 2.5%; use at least 40, such as 200")
    found = fn(*_columns(rollouts))
    if found is None:
        return None
    rng = random.Random(f"bootstrap/{seed}")
    resampled = (fn(*_columns(rng.choices(rollouts, k=len(rollouts)))) for _ in range(num))
    values = [value for value in resampled if value is not None]
    cuts = quantiles([*values, found], n=40, method="inclusive") if values else [found]
    return Interval(mean=found, low=min(found, cuts[0]), high=max(found, cuts[-1]), num=len(rollouts))


def _columns(rollouts: Sequence[tuple[Sequence[float], int]]) -> tuple[list[Sequence[float]], list[int]]:
    return [values for values, _ in rollouts], [error for _, error in rollouts]


def _auc(wrong: Sequence[float], right: Sequence[float]) -> float:
    """P(wrong < right) + P(wrong = right) / 2. O((n + m) log n) by ranks in the sorted right values."""
    ordered = sorted(right)
    above = sum(2 * len(ordered) - bisect_right(ordered, value) - bisect_left(ordered, value) for value in wrong)
    return above / (2 * len(wrong) * len(ordered))


def _check(step_values: Sequence[Sequence[float]], first_error: Sequence[int]) -> None:
    if len(step_values) != len(first_error):
        raise ValueError(f"{len(step_values)} rollouts have step values, but {len(first_error)} have a first error")
    for index, (values, error) in enumerate(zip(step_values, first_error, strict=True)):
        if not -1 <= error < len(values):
            raise ValueError(
                f"rollout {index}: first error {error}, but it has {len(values)} steps; -1 means that none is wrong"
            )
        if any(map(math.isnan, values)):
            raise ValueError(f"rollout {index}: the value of step {list(map(math.isnan, values)).index(True)} is NaN")
