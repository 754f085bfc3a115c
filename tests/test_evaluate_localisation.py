"""Finding the first wrong step: numbers by hand, the naive double loop, chance, bootstrap."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from statistics import NormalDist, fmean

import pytest

from prmkit.evaluate.localisation import (
    CHANCE_AUC,
    bootstrap_interval,
    first_error_auc,
    first_error_hit_rate,
    hit_rate_chance,
    localise,
    within_rollout_auc,
)

VALUES = [[0.5, 0.2, -1.0, -3.0], [0.3, 0.3], [-0.5, 0.1, -0.5], [0.1, 0.4]]
ERRORS = [2, -1, 0, 1]
"""Wrong at step 2, right, wrong at the first step, wrong at step 1."""

Rollouts = list[tuple[Sequence[float], int]]


def test_auc_by_hand() -> None:
    # first wrong steps: -1.0, -0.5, 0.4; right steps: 0.5, 0.2 | 0.3, 0.3 | (none) | 0.1
    # -1.0 and -0.5 are below all 5; 0.4 is below 0.5 only: (5 + 5 + 1) / 15
    assert first_error_auc(VALUES, ERRORS) == pytest.approx(11 / 15)


def test_ties_count_half() -> None:
    # wrong 0.0 against right 0.0, 0.0, 1.0: (0.5 + 0.5 + 1) / 3
    assert first_error_auc([[0.0, 0.0, 0.0], [1.0]], [2, -1]) == pytest.approx(2 / 3)


def test_steps_after_the_first_error_do_not_count() -> None:
    assert first_error_auc([[1.0, 0.0, -9.0], [2.0]], [1, -1]) == first_error_auc([[1.0, 0.0, 9.0], [2.0]], [1, -1])


def test_within_rollout_auc_by_hand() -> None:
    # rollout 0: -1.0 is below both steps before it: 1; rollout 3: 0.4 is above 0.1: 0; rollout 2 has no step before: out
    assert within_rollout_auc(VALUES, ERRORS) == pytest.approx(0.5)


def test_within_rollout_auc_is_blind_to_levels() -> None:
    # the wrong rollout is low as a whole and flat inside: a tie with its own step, but below the 3 of the right rollout
    low_when_wrong = [[-5.0, -5.0], [1.0, 1.0, 1.0]]
    assert first_error_auc(low_when_wrong, [1, -1]) == pytest.approx((0.5 + 3) / 4)
    assert within_rollout_auc(low_when_wrong, [1, -1]) == CHANCE_AUC


def test_hit_rate_by_hand() -> None:
    # rollout 0: lowest is step 3, not 2: 0; rollout 2: steps 0 and 2 are equally low: 1/2; rollout 3: lowest is 0, not 1: 0
    assert first_error_hit_rate(VALUES, ERRORS) == pytest.approx(0.5 / 3)
    assert hit_rate_chance(VALUES, ERRORS) == pytest.approx((1 / 4 + 1 / 3 + 1 / 2) / 3)


@pytest.mark.parametrize(
    ("values", "errors", "pooled", "within", "hits"),
    [
        ([], [], None, None, None),
        ([[1.0, 2.0]], [-1], None, None, None),
        ([[1.0, 2.0]], [0], None, None, 1.0),
        ([[1.0], [2.0]], [0, -1], 1.0, None, 1.0),
    ],
    ids=["nothing", "none wrong", "no right step", "nothing before the error"],
)
def test_what_is_not_defined_is_none(
    values: list[list[float]], errors: list[int], pooled: float | None, within: float | None, hits: float | None
) -> None:
    assert first_error_auc(values, errors) == pooled
    assert within_rollout_auc(values, errors) == within
    assert first_error_hit_rate(values, errors) == hits
    assert (hit_rate_chance(values, errors) is None) == (hits is None)


def draw_rollouts(rng: random.Random, num: int, shift: float, digits: int = 9) -> Rollouts:
    """Steps of N(0, 1); the first wrong one is lower by `shift`. Few `digits` make ties."""
    rollouts: Rollouts = []
    for _ in range(num):
        length = rng.randint(1, 6)
        error = rng.randrange(length) if rng.random() < 0.5 else -1
        values = [round(rng.gauss(0, 1) - shift * (step == error), digits) for step in range(length)]
        rollouts.append((values, error))
    return rollouts


def columns(rollouts: Rollouts) -> tuple[list[Sequence[float]], list[int]]:
    return [values for values, _ in rollouts], [error for _, error in rollouts]


def pairs_won(wrong: Sequence[float], right: Sequence[float]) -> float:
    """The definition: every pair, one by one."""
    return fmean(1.0 if w < r else 0.5 if w == r else 0.0 for w in wrong for r in right)


@pytest.mark.parametrize("seed", range(20))
def test_ranks_agree_with_the_double_loop(seed: int) -> None:
    rollouts = draw_rollouts(random.Random(seed), 40, 0.7, digits=1)
    wrong = [values[error] for values, error in rollouts if error >= 0]
    right = [value for values, error in rollouts for value in values[: error if error >= 0 else None]]
    inside = [pairs_won([values[error]], values[:error]) for values, error in rollouts if error > 0]
    assert first_error_auc(*columns(rollouts)) == pytest.approx(pairs_won(wrong, right), rel=1e-12)
    assert within_rollout_auc(*columns(rollouts)) == pytest.approx(fmean(inside), rel=1e-12)


def test_only_order_matters_and_its_reversal_mirrors() -> None:
    values, errors = columns(draw_rollouts(random.Random(1), 200, 1.0))
    found = first_error_auc(values, errors)
    assert found is not None
    assert first_error_auc([[3 * v + 7 for v in row] for row in values], errors) == found
    assert first_error_auc([[-v for v in row] for row in values], errors) == pytest.approx(1 - found, rel=1e-12)


def test_values_that_know_nothing_score_chance() -> None:
    values, errors = columns(draw_rollouts(random.Random(2), 20_000, 0.0))
    # standard errors: about 0.5 / sqrt(10 000) = 0.005 at the most; four of them
    assert first_error_auc(values, errors) == pytest.approx(CHANCE_AUC, abs=0.02)
    assert within_rollout_auc(values, errors) == pytest.approx(CHANCE_AUC, abs=0.02)
    assert first_error_hit_rate(values, errors) == pytest.approx(hit_rate_chance(values, errors), abs=0.02)


def test_the_bootstrap_is_its_seed_and_holds_the_estimate() -> None:
    rollouts = draw_rollouts(random.Random(3), 60, 1.0)
    found = bootstrap_interval(first_error_auc, rollouts, seed=5)
    assert found is not None
    assert found == bootstrap_interval(first_error_auc, rollouts, seed=5)
    assert found != bootstrap_interval(first_error_auc, rollouts, seed=6)
    assert found.low < found.mean < found.high
    assert (found.mean, found.num) == (first_error_auc(*columns(rollouts)), 60)


def test_the_bootstrap_covers_the_truth() -> None:
    # wrong N(-1, 1) against right N(0, 1): P(w < r) = Phi(1 / sqrt 2)
    truth, rng = NormalDist().cdf(1 / 2**0.5), random.Random(4)
    found = [bootstrap_interval(first_error_auc, draw_rollouts(rng, 60, 1.0), seed=i, num=100) for i in range(300)]
    covered = sum(f is not None and f.low <= truth <= f.high for f in found)
    # 95% of 300 is 285 with a standard deviation of 3.8; percentile intervals of 100 resamples run a little short
    assert 270 <= covered <= 297


def test_resamples_without_an_error_are_left_out() -> None:
    # one wrong rollout of three: (2/3)^3 = 30% of the resamples hold none
    rollouts: Rollouts = [([1.0, 0.0], 1), ([2.0], -1), ([-1.0], -1)]
    found = bootstrap_interval(first_error_auc, rollouts, seed=0)
    assert found is not None
    assert found.mean == pytest.approx(2 / 3)
    assert 0.0 <= found.low <= found.mean <= found.high <= 1.0


def test_localise_gathers_all_measures() -> None:
    found = localise(VALUES, ERRORS, seed=0)
    assert found.first_error_auc is not None
    assert found.within_rollout_auc is not None
    assert found.hit_rate is not None
    assert found.first_error_auc.mean == pytest.approx(11 / 15)
    assert found.within_rollout_auc.mean == pytest.approx(0.5)
    assert found.hit_rate.mean == pytest.approx(0.5 / 3)
    assert found.hit_rate_chance == pytest.approx(13 / 36)
    assert (found.num_rollouts, found.num_wrong) == (4, 3)
    assert localise([[1.0]], [-1], seed=0).first_error_auc is None


@pytest.mark.parametrize("measure", [first_error_auc, within_rollout_auc, first_error_hit_rate, hit_rate_chance])
@pytest.mark.parametrize(
    ("values", "errors", "message"),
    [
        ([[1.0]], [0, -1], "1 rollouts have step values, but 2 have a first error"),
        ([[1.0], [1.0, 2.0]], [-1, 2], "rollout 1: first error 2, but it has 2 steps; -1 means that none is wrong"),
        ([[1.0]], [-2], "rollout 0: first error -2"),
        ([[]], [0], "rollout 0: first error 0, but it has 0 steps"),
        ([[1.0], [0.0, float("nan")]], [0, -1], "rollout 1: the value of step 1 is NaN"),
    ],
)
def test_bad_input_is_named(
    measure: Callable[[list[list[float]], list[int]], float | None],
    values: list[list[float]],
    errors: list[int],
    message: str,
) -> None:
    with pytest.raises(ValueError, match=message):
        measure(values, errors)


def test_too_few_resamples_are_refused() -> None:
    with pytest.raises(ValueError, match="num = 20 resamples do not reach the outer"):
        bootstrap_interval(first_error_auc, [([1.0], 0)], seed=0, num=20)
