"""Intervals: numbers by hand, coverage by simulation, bad input."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Sequence

import pytest

from prmkit.evaluate.accuracy import Interval, _t_quantile, clustered, pass_at_k, wilson


def test_wilson_by_hand() -> None:
    # 8 of 10, z = 1.959964, z^2 = 3.841459: scale 1 + 0.3841459 = 1.3841459
    # centre (0.8 + 3.841459 / 20) / scale = 0.992073 / 1.3841459 = 0.716740
    # half 1.959964 sqrt(0.8 * 0.2 / 10 + 3.841459 / 400) / scale = 1.959964 * 0.160011 / 1.3841459 = 0.226578
    found = wilson(8, 10)
    assert (found.mean, found.num) == (0.8, 10)
    assert found.low == pytest.approx(0.716740 - 0.226578, abs=2e-6)
    assert found.high == pytest.approx(0.716740 + 0.226578, abs=2e-6)


def test_wilson_is_no_point_at_the_ends_and_stays_inside() -> None:
    # p = 0: high = (z^2/n) / (1 + z^2/n) = 0.3841459 / 1.3841459 = 0.277533
    none, all_right = wilson(0, 10), wilson(10, 10)
    assert (none.mean, none.low, all_right.mean, all_right.high) == (0.0, 0.0, 1.0, 1.0)
    assert none.high == pytest.approx(0.277533, abs=1e-6)
    assert all_right.low == pytest.approx(1 - 0.277533, abs=1e-6)


def test_wilson_at_another_confidence() -> None:
    # z = 1 at confidence 0.6826895: 1 of 2 gives centre (0.5 + 1/4) / 1.5 = 0.5, half sqrt(0.125 + 1/16) / 1.5 = 0.288675
    found = wilson(1, 2, confidence=0.6826895)
    assert found.low == pytest.approx(0.5 - 0.288675, abs=1e-6)
    assert found.high == pytest.approx(0.5 + 0.288675, abs=1e-6)


def test_wilson_takes_partial_rewards() -> None:
    assert wilson(1.5, 3).mean == 0.5


@pytest.mark.parametrize(
    ("df", "table"), [(1, 12.7062), (2, 4.3027), (3, 3.1824), (4, 2.7764), (5, 2.5706), (10, 2.2281), (30, 2.0423)]
)
def test_t_quantiles_as_in_the_tables(df: int, table: float) -> None:
    assert _t_quantile(df) == pytest.approx(table, rel=2e-3)


def test_clustered_by_hand() -> None:
    # means 0.5, 0.75, 0.5, 0.25, 0.5: mean 0.5, sum of squares 2 * 0.0625 = 0.125
    # standard error sqrt(0.125 / 4 / 5) = 0.0790569, t(4) = 2.776445, half 0.219497
    found = clustered([[1, 0], [1, 1, 1, 0], [0, 1], [0, 0, 0, 1], [0.5]])
    assert (found.mean, found.num) == (0.5, 5)
    assert found.low == pytest.approx(0.5 - 0.219497, abs=2e-4)
    assert found.high == pytest.approx(0.5 + 0.219497, abs=2e-4)


def test_clustered_weighs_questions_not_responses() -> None:
    # means 1 and 0 weigh the same, though the second has five of the six responses; t(1) is wide enough to be cut
    assert clustered([[1], [0, 0, 0, 0, 0]]) == Interval(0.5, 0.0, 1.0, 2)


def test_more_copies_of_the_same_samples_are_no_evidence() -> None:
    once = [[1.0, 0.0], [1.0, 1.0], [0.0, 0.0], [1.0, 0.0]]
    assert clustered([row * 8 for row in once]) == clustered(once)


@pytest.mark.parametrize(
    ("values", "same_as"),
    [
        ([[1, 1], [1, 1, 1], [1]], wilson(3, 3)),
        ([[0, 0], [0]], wilson(0, 2)),
        ([[1, 0], [0, 1]], wilson(1, 2)),
        ([[1, 0, 0, 0]], wilson(0.25, 1)),
    ],
    ids=["all right", "all wrong", "all the same", "one question"],
)
def test_without_spread_wilson_on_questions_stands_in(values: Sequence[Sequence[float]], same_as: Interval) -> None:
    found = clustered(values)
    assert found == same_as
    assert found.high - found.low > 0.3


def coverage(num_simulations: int, truth: float, draw: Callable[[], Interval]) -> float:
    found = [draw() for _ in range(num_simulations)]
    return sum(interval.low <= truth <= interval.high for interval in found) / num_simulations


@pytest.mark.parametrize(("p", "num"), [(0.1, 50), (0.3, 40), (0.5, 100), (0.8, 25), (0.95, 200)])
def test_wilson_covers_the_truth_95_times_in_100(p: float, num: int) -> None:
    rng = random.Random(f"wilson/{p}/{num}")
    found = coverage(2000, p, lambda: wilson(sum(rng.random() < p for _ in range(num)), num))
    assert 0.92 <= found <= 0.98


def draw_questions(rng: random.Random, a: float, b: float, num: int, samples: int) -> list[list[float]]:
    """Questions of varying difficulty Beta(a, b), each asked `samples` times; the true mean is a / (a + b)."""
    chances = [rng.betavariate(a, b) for _ in range(num)]
    return [[float(rng.random() < chance) for _ in range(samples)] for chance in chances]


@pytest.mark.parametrize(("a", "b", "num"), [(2, 2, 6), (0.5, 0.5, 30), (3, 1, 40), (1, 3, 64)])
def test_clustered_covers_the_truth_95_times_in_100(a: float, b: float, num: int) -> None:
    rng = random.Random(f"clustered/{a}/{b}/{num}")
    assert 0.92 <= coverage(2000, a / (a + b), lambda: clustered(draw_questions(rng, a, b, num, 4))) <= 0.98


def test_counting_responses_as_independent_would_miss_the_truth() -> None:
    rng = random.Random("naive")

    def naive() -> Interval:
        rewards = list(itertools.chain(*draw_questions(rng, 0.5, 0.5, 30, 8)))
        return wilson(sum(rewards), len(rewards))

    assert coverage(1000, 0.5, naive) < 0.85


def test_pass_at_k_by_hand() -> None:
    assert pass_at_k(4, 1, 1) == pytest.approx(1 / 4)
    assert pass_at_k(4, 1, 2) == pytest.approx(1 / 2)  # 1 - C(3,2) / C(4,2) = 1 - 3/6
    assert pass_at_k(5, 2, 3) == pytest.approx(9 / 10)  # 1 - C(3,3) / C(5,3) = 1 - 1/10
    assert pass_at_k(4, 0, 4) == 0.0
    assert pass_at_k(4, 2, 3) == 1.0  # only 2 are wrong


def test_pass_at_k_is_the_share_of_subsets_with_a_right_one() -> None:
    rewards = [1, 0, 0, 1, 0, 0, 0]
    for k in range(1, 8):
        subsets = list(itertools.combinations(rewards, k))
        assert pass_at_k(7, 2, k) == pytest.approx(sum(any(s) for s in subsets) / len(subsets))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: wilson(0, 0), "at least 1 trial, got 0"),
        (lambda: wilson(3, 2), r"successes must be in \[0, 2\], got 3"),
        (lambda: wilson(float("nan"), 2), "got nan"),
        (lambda: wilson(1, 2, confidence=95), r"confidence must be in \(0, 1\), such as 0.95; got 95"),
        (lambda: clustered([]), "at least 1 question, got none"),
        (lambda: clustered([[1.0], []]), "question 1 has no value; leave it out"),
        (lambda: clustered([[1.0], [0.5, 1.5]]), r"question 1 has values outside \[0, 1\]"),
        (lambda: clustered([[float("nan")]]), "question 0 has values outside"),
        (lambda: pass_at_k(4, 1, 5), "1 <= k <= n, got k = 5, n = 4"),
        (lambda: pass_at_k(4, 1, 0), "got k = 0"),
        (lambda: pass_at_k(4, 5, 1), r"c right of n = 4 responses must be in \[0, 4\], got 5"),
    ],
)
def test_bad_input_is_named(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
