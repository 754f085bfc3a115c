"""ProcessBench and PRMBench: thresholds, F1, PRMScore, AUC, by hand and by brute force."""

from __future__ import annotations

import math
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prm_judge import scored, solution

from prmkit.data.types import Solution, StepLabel
from prmkit.evaluate.accuracy import wilson
from prmkit.evaluate.prm.bootstrap import Resampling
from prmkit.evaluate.prm.prm_bench import (
    best_step_threshold,
    by_category,
    evaluate_steps,
    in_total,
    judge_steps,
    prm_score,
    step_auc,
)
from prmkit.evaluate.prm.process_bench import (
    Located,
    best_threshold,
    evaluate_first_errors,
    harmonic,
    locate,
    predict,
    tally_first_errors,
    thresholds,
)
from prmkit.evaluate.prm.scored import as_probability, as_score

RESAMPLING = Resampling(num=40, seed=1)
FIVE = [
    # scores, labels; at 0.5 the first step below it is ...
    ([0.9, 0.2, 0.8], [1.0, 0.0, None]),  # 1: right, the truth is 1
    ([0.9, 0.8, 0.1], [1.0, 0.0, None]),  # 2: late
    ([0.4, 0.9], [1.0, 0.0]),  # 0: early
    ([0.9, 0.9], [1.0, 1.0]),  # none: right
    ([0.9, 0.5], [1.0, 1.0]),  # none, since 0.5 is not below 0.5
]


def five() -> list[Solution]:
    return [solution(s, labels, question=f"q{k}", outcome=1.0) for k, (s, labels) in enumerate(FIVE)]


def test_f1_is_the_harmonic_mean_of_both_accuracies() -> None:
    found = evaluate_first_errors(locate(scored(five()), "value"), 0.5, RESAMPLING)
    assert (found.num_error, found.num_correct) == (3, 2)
    assert found.error_accuracy is not None
    assert found.error_accuracy.mean == pytest.approx(1 / 3)
    assert found.correct_accuracy is not None
    assert found.correct_accuracy.mean == 1.0
    assert found.f1 is not None
    assert found.f1.mean == pytest.approx(2 * (1 / 3) * 1 / (1 / 3 + 1))  # 0.5
    assert found.f1.num == 5


def test_positions_say_what_happened_to_each_first_error() -> None:
    found = evaluate_first_errors(locate(scored(five()), "value"), 0.5, RESAMPLING)
    # position, early, exact, late, missed
    assert found.positions == ((-1, 0, 2, 0, 0), (1, 1, 1, 1, 0))


@pytest.mark.parametrize(
    ("counts", "expected"),
    [((2, 0, 3, 0), 0.0), ((0, 0, 3, 3), None), ((2, 2, 0, 0), None), ((2, 2, 3, 3), 1.0), ((4, 1, 4, 3), 0.375)],
)
def test_f1_where_accuracies_are_zero_or_have_no_solutions(counts: tuple[float, ...], expected: float | None) -> None:
    assert harmonic(counts) == expected  # 2 * 0.25 * 0.75 / 1 = 0.375


def test_solutions_whose_first_error_is_not_known_are_left_out() -> None:
    rows: list[tuple[list[float], list[StepLabel] | None]] = [
        ([0.9, 0.1], None),
        ([0.9, 0.1], [1.0, None]),
        ([0.9, 0.1], [None, 0.0]),
    ]
    assert locate(scored([solution(s, labels) for s, labels in rows]), "value") == []


@pytest.mark.parametrize(("neutral", "truth"), [("right", 2), ("wrong", 1), ("ignore", 2)])
def test_a_neutral_step_is_what_the_option_says(neutral: str, truth: int) -> None:
    (item,) = locate(scored([solution([1, 1, 1], [1.0, "neutral", 0.0])]), "value", neutral)  # type: ignore[arg-type]
    assert item.truth == truth


def test_unscored_solutions_are_in_no_count() -> None:
    rows = [solution([0.9], [1.0]), Solution(id="x", prompt=five()[0].prompt, steps=("?",), labels=(0.0,))]
    assert [item.item for item in locate(scored(rows), "value")] == [0]


def test_cumulative_reading_thresholds_the_prefix_value() -> None:
    # r = 1, -0.4, -0.8 gives q = 1, 0.6, -0.2: cumulatively step 2 is the first below 0, singly step 1
    row = scored([solution([1.0, -0.4, -0.8], [1.0, 1.0, 0.0])], "log_ratio")
    (cumulative,) = locate(row, "cumulative")
    (single,) = locate(row, "single")
    assert predict(cumulative.scores, 0.0) == 2
    assert predict(single.scores, 0.0) == 1


items = st.lists(
    st.tuples(st.lists(st.sampled_from([0.1, 0.2, 0.3, 0.5, 0.8]), min_size=1, max_size=4), st.integers(-1, 3)),
    min_size=1,
    max_size=8,
).map(
    lambda rows: [
        Located(item=k, problem=str(k), scores=tuple(scores), truth=min(truth, len(scores) - 1))
        for k, (scores, truth) in enumerate(rows)
    ]
)


@given(items)
def test_the_chosen_threshold_equals_brute_force(located: list[Located]) -> None:
    candidates = [0.05, 0.15, 0.25, 0.4, 0.65, 0.9]  # one in each gap of the scores that occur
    best = []
    for threshold in candidates:
        counts = [
            sum(column) for column in zip(*(t.counts for t in tally_first_errors(located, threshold)), strict=True)
        ]
        best.append(harmonic(counts))
    found = best_threshold(located)
    if best[0] is None:
        assert found is None
    else:
        assert found is not None
        assert found[1] == pytest.approx(max(value for value in best if value is not None))
        counts = [
            sum(column) for column in zip(*(t.counts for t in tally_first_errors(located, found[0])), strict=True)
        ]
        assert harmonic(counts) == pytest.approx(found[1])


def test_a_threshold_lies_between_neighbouring_floats() -> None:
    low = 0.5
    high = math.nextafter(low, 1)
    cuts = thresholds([low, high])
    assert [(low < t, high < t) for t in cuts] == [(False, False), (True, False), (True, True)]


@given(st.floats(0.001, 0.999), st.sampled_from(["probability", "logit", "log_ratio"]), st.floats(0.1, 1000))
def test_a_threshold_is_the_same_in_probability_and_in_the_models_unit(p: float, kind: str, temperature: float) -> None:
    score = as_score(p, kind, temperature)  # type: ignore[arg-type]
    assert as_probability(score, kind, temperature) == pytest.approx(p)  # type: ignore[arg-type]


def test_a_large_log_ratio_keeps_its_order() -> None:
    assert as_probability(800.0, "log_ratio") == as_probability(900.0, "log_ratio") == 1.0
    rows = [solution([900.0, 800.0], [1.0, 0.0]), solution([900.0, 900.0], [1.0, 1.0])]
    found = best_threshold(locate(scored(rows, "log_ratio"), "single"))
    assert found == (850.0, 1.0)


BENCH = [
    # at 0.5: TP FN FP TN
    ([0.9, 0.4, 0.3, 0.8], [1.0, 1.0, 0.0, 0.0], "redundency"),  # 1 1 1 1
    ([0.9, 0.9, 0.1], [1.0, 1.0, 0.0], "circular"),  # 2 0 0 1
    ([0.7, 0.2], [1.0, 1.0], "multi_solutions"),  # 1 1 0 0
    ([0.1, 0.1], [1.0, 1.0], "correct"),  # in no total
]


def bench() -> list[Solution]:
    return [
        solution(s, labels, question=f"q{k}", meta={"classification": kind})  # type: ignore[arg-type]
        for k, (s, labels, kind) in enumerate(BENCH)
    ]


def test_prm_score_by_hand() -> None:
    found = evaluate_steps(in_total(judge_steps(scored(bench()), "value")), 0.5, RESAMPLING)
    # TP 4, FN 2, FP 1, TN 2: F1 = 8 / (8 + 1 + 2), F1_neg = 4 / (4 + 2 + 1)
    assert found.f1 == pytest.approx(8 / 11)
    assert found.f1_neg == pytest.approx(4 / 7)
    assert found.prm_score is not None
    assert found.prm_score.mean == pytest.approx(0.5 * 8 / 11 + 0.5 * 4 / 7)
    assert found.accuracy is not None
    assert found.accuracy.mean == pytest.approx(6 / 9)
    assert (found.num_right, found.num_wrong) == (6, 3)


def test_categories_have_the_papers_names_and_solutions_without_error_have_no_prm_score() -> None:
    categories = by_category(judge_steps(scored(bench()), "value"))
    assert list(categories) == ["NR", "NCL", "MS", "correct"]
    false_alarms = evaluate_steps(categories["MS"], 0.5, RESAMPLING)
    assert (false_alarms.prm_score, false_alarms.f1_neg, false_alarms.auc) == (None, None, None)
    assert false_alarms.f1 == pytest.approx(2 / 3)  # 2 TP / (2 TP + FN) = 2 / 3
    assert false_alarms.right_accuracy is not None
    assert false_alarms.right_accuracy.mean == 0.5


def test_solutions_without_wrong_steps_are_no_evidence_about_wrong_steps() -> None:
    rows = [
        solution([0.9, 0.1], [1.0, float(k >= 5)], question=f"q{k}") for k in range(23)
    ]  # 5 of 23 have a wrong step, and all 5 are found
    found = evaluate_steps(judge_steps(scored(rows), "value"), 0.5, RESAMPLING)
    assert found.wrong_accuracy == wilson(5, 5)
    assert found.right_accuracy is not None
    assert found.right_accuracy.num == 23


@given(st.lists(st.tuples(st.sampled_from([0.1, 0.3, 0.6, 0.9]), st.booleans()), min_size=1, max_size=12))
def test_the_step_threshold_equals_brute_force(steps: list[tuple[float, bool]]) -> None:
    row = solution([score for score, _ in steps], [float(right) for _, right in steps])
    judged = judge_steps(scored([row]), "value")
    values = []
    for threshold in (0.05, 0.2, 0.45, 0.75, 0.95):
        counts = [0, 0, 0, 0]
        for score, right in steps:
            counts[(0 if score >= threshold else 1) if right else (2 if score >= threshold else 3)] += 1
        values.append(prm_score(counts))
    found = best_step_threshold(judged)
    if values[0] is None:
        assert found is None
    else:
        assert found is not None
        assert found[1] == pytest.approx(max(value for value in values if value is not None))


@given(st.lists(st.tuples(st.sampled_from([0.1, 0.3, 0.3, 0.9]), st.booleans()), min_size=2, max_size=12))
def test_auc_counts_pairs(steps: list[tuple[float, bool]]) -> None:
    rows = [solution([score], [float(right)], question=f"q{k}") for k, (score, right) in enumerate(steps)]
    right = [score for score, is_right in steps if is_right]
    wrong = [score for score, is_right in steps if not is_right]
    found = step_auc(judge_steps(scored(rows), "value"))
    if not right or not wrong:
        assert found is None
        return
    wins = [1.0 if a > b else 0.5 if a == b else 0.0 for a, b in product(right, wrong)]
    assert found is not None
    assert found.mean == pytest.approx(sum(wins) / len(wins))
    assert 0 <= found.low <= found.mean <= found.high <= 1


def test_the_interval_of_the_auc_is_that_of_a_bootstrap_over_problems() -> None:
    import random

    rng = random.Random(0)
    rows = []
    for k in range(120):
        shift = rng.gauss(0, 1)  # steps of one problem depend on each other
        labels = [float(rng.random() < 0.6) for _ in range(5)]
        scores = [label + shift + rng.gauss(0, 0.7) for label in labels]
        rows.append(solution(scores, labels, question=f"q{k}"))
    judged = judge_steps(scored(rows, "logit"), "value")
    found = step_auc(judged)
    assert found is not None
    drawn = []
    for _ in range(300):
        # drawn problems count as problems of their own: only the mean of a resample is used
        again = step_auc(rng.choices(judged, k=len(judged)))
        assert again is not None
        drawn.append(again.mean)
    drawn.sort()
    low, high = drawn[7], drawn[292]  # the outer 2.5% of 300
    assert found.low == pytest.approx(low, abs=0.2 * (high - low))
    assert found.high == pytest.approx(high, abs=0.2 * (high - low))
