"""Intervals, paired differences, calibration, length bias, scored files, languages."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prm_judge import Echo, prompt, scored, solution

from prmkit.data.types import RewardKind, Solution, StepRewards
from prmkit.errors import DataError, ModelError
from prmkit.evaluate.prm.bootstrap import Resampling, Tally, estimate, estimate_mean, mean_of, paired
from prmkit.evaluate.prm.calibration import (
    Forecast,
    calibrate,
    equal_mass_edges,
    fit_temperature,
    forecasts,
    nll,
    rescaled,
)
from prmkit.evaluate.prm.languages import design_of, language_matrices, trained_languages
from prmkit.evaluate.prm.length_bias import length_bias, spearman, step_bins
from prmkit.evaluate.prm.scored import ScoredFile, as_probability, missing, score_solutions
from prmkit.evaluate.scoring import scored_row
from prmkit.protocols import Unscored

RESAMPLING = Resampling(num=400, seed=0)


def values(numbers: Sequence[float], problems: Sequence[str] | None = None) -> list[Tally]:
    names = problems or [f"p{k:03}" for k in range(len(numbers))]
    return [Tally(k, name, (x, 1.0)) for k, (x, name) in enumerate(zip(numbers, names, strict=True))]


def test_the_interval_of_a_mean_is_that_of_the_normal_law() -> None:
    rng = random.Random(0)
    numbers = [rng.gauss(0.5, 0.1) for _ in range(200)]
    found = estimate(values(numbers), mean_of, Resampling(num=2000, seed=0), share=False)
    assert found is not None
    assert found.mean == pytest.approx(fmean(numbers))
    half = 1.96 * 0.1 / math.sqrt(200)
    assert found.high - found.low == pytest.approx(2 * half, rel=0.15)


def test_solutions_of_one_problem_are_drawn_together() -> None:
    numbers = [0.0, 1.0] * 20
    copied = [x for x in numbers for _ in range(5)]
    problems = [f"p{k:03}" for k in range(40) for _ in range(5)]
    assert estimate(values(copied, problems), mean_of, RESAMPLING) == estimate(values(numbers), mean_of, RESAMPLING)


def test_the_order_of_solutions_does_not_matter() -> None:
    tallies = values([0.1, 0.9, 0.4, 0.4, 0.7])
    assert estimate(tallies[::-1], mean_of, RESAMPLING) == estimate(tallies, mean_of, RESAMPLING)


def test_a_share_that_never_varies_gets_wilsons_interval() -> None:
    found = estimate(values([1.0] * 10), mean_of, RESAMPLING)
    assert found is not None
    # Wilson, 10 of 10: low = n / (n + z^2) = 10 / (10 + 3.8415)
    assert (found.mean, found.high) == (1.0, 1.0)
    assert found.low == pytest.approx(10 / (10 + 1.959964**2))


def test_no_tally_gives_no_number() -> None:
    assert estimate([], mean_of, RESAMPLING) is None
    assert estimate_mean([values([1.0, 0.0]), []], mean_of, RESAMPLING) is None


def test_the_mean_of_splits_is_unweighted() -> None:
    found = estimate_mean([values([1.0] * 30 + [0.0] * 10), values([0.0, 1.0, 0.0, 0.0])], mean_of, RESAMPLING)
    assert found is not None
    assert found.mean == pytest.approx((0.75 + 0.25) / 2)
    assert found.num == 44


def test_paired_differences_use_what_both_have() -> None:
    first = values([1.0, 1.0, 0.0, 1.0])
    second = [Tally(k, f"p{k:03}", (x, 1.0)) for k, x in ((1, 0.0), (2, 0.0), (3, 1.0))]
    found = paired(first, second, mean_of, RESAMPLING)
    assert found is not None
    assert (found.first, found.second) == pytest.approx((2 / 3, 1 / 3))
    assert found.difference.mean == pytest.approx(1 / 3)
    assert found.difference.num == 3


def test_the_p_value_is_that_of_the_sign_test() -> None:
    # 6 problems, each better by 1: of 64 sign patterns 2 are as far from 0
    found = paired(values([1.0] * 6), values([0.0] * 6), mean_of, Resampling(num=8000, seed=0))
    assert found is not None
    assert found.p_value == pytest.approx(2 / 64, abs=0.006)
    assert (found.difference.low, found.difference.high) == (1.0, 1.0)


def test_equal_models_differ_by_nothing() -> None:
    found = paired(values([1.0, 0.0, 1.0]), values([1.0, 0.0, 1.0]), mean_of, RESAMPLING)
    assert found is not None
    assert (found.difference.low, found.difference.mean, found.difference.high, found.p_value) == (0, 0, 0, 1)


def test_pairing_narrows_the_interval() -> None:
    rng = random.Random(1)
    hard = [rng.random() for _ in range(100)]  # problems differ much, models little
    a, b = values(hard), values([x - 0.1 + 0.02 * rng.random() for x in hard])
    found = paired(a, b, mean_of, RESAMPLING)
    alone = estimate(a, mean_of, RESAMPLING)
    assert found is not None
    assert alone is not None
    assert found.difference.high - found.difference.low < 0.1 * (alone.high - alone.low)
    assert found.p_value == pytest.approx(1 / 401)


def test_too_few_resamples_are_refused() -> None:
    with pytest.raises(ValueError, match=r"39 resamples do not reach the outer 2.5%"):
        Resampling(num=39)


STEPS = [
    # probability, label
    (0.1, 0.0),
    (0.3, 1.0),
    (0.8, 1.0),
    (0.9, 1.0),
    (0.9, 0.0),
]


def forecast_rows(pairs: Sequence[tuple[float, float]], kind: RewardKind = "probability") -> list[Forecast]:
    rows = [solution([score], [label], question=f"q{k}") for k, (score, label) in enumerate(pairs)]
    return forecasts(scored(rows, kind), "value" if kind != "log_ratio" else "single")


def test_calibration_by_hand() -> None:
    found = calibrate(forecast_rows(STEPS), RESAMPLING, bins=2)
    # bins [0, .5): 0.1, 0.3, mean 0.2, right 1/2; [.5, 1]: 0.8, 0.9, 0.9, mean 2.6/3, right 2/3
    assert [(b.num, b.confidence, b.right) for b in found.reliability] == [
        (2, pytest.approx(0.2), 0.5),
        (3, pytest.approx(2.6 / 3), pytest.approx(2 / 3)),
    ]
    assert found.ece is not None
    assert found.ece.mean == pytest.approx((2 * 0.3 + 3 * 0.2) / 5)
    assert found.brier is not None
    assert found.brier.mean == pytest.approx((0.01 + 0.49 + 0.04 + 0.01 + 0.81) / 5)
    assert found.nll is not None
    logs = (math.log(0.9), math.log(0.3), math.log(0.8), math.log(0.9), math.log(0.1))
    assert found.nll.mean == pytest.approx(-sum(logs) / 5)


def test_bins_of_equal_mass() -> None:
    assert equal_mass_edges([0.1, 0.2, 0.3, 0.4], 2) == [0.3]
    assert equal_mass_edges([0.5] * 10, 4) == []  # equal values stay together
    found = calibrate(forecast_rows(STEPS), RESAMPLING, bins=2)
    # the 3rd smallest of 5 is the edge, 0.8: the halves are the same as before
    assert found.ece_mass == found.ece


def test_probabilities_of_0_and_1_are_clipped_for_the_nll_and_counted() -> None:
    found = calibrate(forecast_rows([(1.0, 0.0), (0.0, 0.0), (0.5, 1.0)]), RESAMPLING)
    assert found.num_clipped == 2
    assert found.nll is not None
    assert found.nll.mean == pytest.approx((-math.log(1e-7) + 1e-7 + math.log(2)) / 3)


def test_large_logits_need_no_clipping() -> None:
    found = calibrate(forecast_rows([(-800.0, 1.0)], "logit"), RESAMPLING)
    assert found.num_clipped == 0
    assert found.nll is not None
    assert found.nll.mean == pytest.approx(800.0)


@given(st.floats(-30, 30), st.sampled_from([0.0, 0.25, 1.0]))
def test_nll_is_the_cross_entropy(logit: float, label: float) -> None:
    p = 1 / (1 + math.exp(-logit))
    plain = -label * math.log(p) - (1 - label) * math.log1p(-p) if p < 1 else None
    if plain is not None:
        assert nll(logit, label) == pytest.approx(plain, rel=1e-3, abs=1e-9)


def test_a_fitted_temperature_is_found_again() -> None:
    rng = random.Random(0)
    pairs = []
    for _ in range(4000):
        z = rng.gauss(0, 1.5)
        pairs.append((3 * z, float(rng.random() < 1 / (1 + math.exp(-z)))))  # three times too sure
    steps = forecast_rows(pairs, "logit")
    temperature = fit_temperature(steps)
    assert temperature == pytest.approx(3.0, rel=0.1)
    assert temperature is not None
    best = fmean(nll(s.logit, s.label) for s in rescaled(steps, temperature))
    for other in (0.9 * temperature, 1.1 * temperature):
        assert fmean(nll(s.logit, s.label) for s in rescaled(steps, other)) > best


@pytest.mark.parametrize("pairs", [[(2.0, 0.0), (-2.0, 1.0)], [(2.0, 1.0), (-2.0, 0.0)], []])
def test_no_temperature_fits_scores_that_mislead_or_separate(pairs: list[tuple[float, float]]) -> None:
    assert fit_temperature(forecast_rows(pairs, "logit")) is None


def test_soft_and_neutral_labels() -> None:
    rows = scored([solution([0.6, 0.6, 0.6], [0.25, "neutral", None])])
    assert [f.label for f in forecasts(rows, "value")] == [0.25, 1.0]
    assert [f.label for f in forecasts(rows, "value", neutral="wrong")] == [0.25, 0.0]
    assert [f.label for f in forecasts(rows, "value", neutral="ignore")] == [0.25]


def test_temperature_divides_log_ratios_only() -> None:
    assert as_probability(20.0, "log_ratio", 1000.0) == pytest.approx(1 / (1 + math.exp(-0.02)))
    assert as_probability(20.0, "logit", 1000.0) == pytest.approx(1 / (1 + math.exp(-20)))


@pytest.mark.parametrize(
    ("x", "y", "expected"),
    [([1, 2, 3], [5, 6, 9], 1.0), ([1, 2, 3], [9, 6, 5], -1.0), ([1, 1], [0, 3], None), ([1], [1], None)],
)
def test_rank_correlation(x: list[float], y: list[float], expected: float | None) -> None:
    assert spearman(x, y) == (None if expected is None else pytest.approx(expected))


def test_rank_correlation_with_ties_by_hand() -> None:
    # ranks 1.5 1.5 3 against 1 2 3: centred -.5 -.5 1 and -1 0 1: 1.5 / sqrt(1.5 * 2)
    assert spearman([4, 4, 7], [1, 2, 3]) == pytest.approx(1.5 / math.sqrt(3))


def test_a_product_falls_with_the_number_of_steps() -> None:
    rows = [solution([0.9] * k, question=f"q{k}", outcome=1.0) for k in range(1, 9)]
    product = length_bias(scored(rows), "prod", RESAMPLING)
    assert product.right_correlation == pytest.approx(-1.0)
    assert [round(point.score.mean, 6) for point in product.right] == [round(0.9**k, 6) for k in range(1, 9)]
    assert product.wrong == ()
    assert length_bias(scored(rows), "min", RESAMPLING).right_correlation is None


def test_step_bins_hold_every_length_once() -> None:
    lengths = [1, 2, 2, 2, 3, 5, 8, 13, 13, 40]
    bins = step_bins(lengths)
    assert all(sum(low <= length <= high for low, high in bins) == 1 for length in lengths)
    assert step_bins([]) == []


def test_a_scorer_that_gives_too_few_results_is_refused() -> None:
    class Short(Echo):
        def score_all(self, solutions: Sequence[Solution]) -> list[StepRewards | Unscored]:
            return super().score_all(solutions)[1:]

    with pytest.raises(ModelError, match="1 results for 2 solutions"):
        score_solutions(Short(), [solution([1]), solution([1])])


def test_a_wrong_number_of_rewards_is_no_score() -> None:
    class Cut(Echo):
        def score_all(self, solutions: Sequence[Solution]) -> list[StepRewards | Unscored]:
            return [StepRewards(values=(0.5,), kind="probability") for _ in solutions]

    found = missing(score_solutions(Cut(), [solution([1, 1]), solution([1])]))
    assert (found.count, found.total, found.reasons) == (1, 2, {"1 rewards for 2 steps": 1})


def test_reasons_that_differ_in_ids_and_numbers_count_together() -> None:
    class Short(Echo):
        def score_all(self, solutions: Sequence[Solution]) -> list[StepRewards | Unscored]:
            return [
                Unscored(id=s.id, reason=f"solution {s.id!r} has {600 + k} tokens") for k, s in enumerate(solutions)
            ]

    found = missing(score_solutions(Short(), [solution([1], name="a"), solution([1], name="b")]))
    assert found.reasons == {"solution 'a' has 600 tokens": 2}


def write(path: Path, rows: Sequence[object]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_scores_of_a_file_are_found_by_id_and_steps(tmp_path: Path) -> None:
    one, two = solution([0.25, 0.5], name="a"), solution([0.75], name="b")
    rewards = Echo().score_all([one])[0]
    assert isinstance(rewards, StepRewards)
    path = write(tmp_path / "scores.jsonl", [scored_row(one, rewards, model="m")])
    write(tmp_path / "scores.jsonl.errors.jsonl", [{"row": 2, "line": 2, "id": "b", "reason": "too long"}])
    other = Solution(id="a", prompt=prompt(), steps=("something else",))
    found = ScoredFile(path)
    assert found.kind == "probability"
    assert found.score_all([two, one, other, solution([1.0], name="c")]) == [
        Unscored(id="b", reason="too long"),
        rewards,
        Unscored(id="a", reason="its prompt or steps differ from those that were scored"),
        Unscored(id="c", reason="not in the scored file"),
    ]


def test_another_sets_error_hides_no_score_of_the_same_id(tmp_path: Path) -> None:
    """An error says of which id alone; files are read in the order of their names."""
    one = solution([0.25, 0.5], name="0")
    rewards = StepRewards(values=(0.25, 0.5), kind="probability")
    write(tmp_path / "a.jsonl", [{"row": 1, "line": 1, "id": "0", "reason": "too long"}])
    write(tmp_path / "b.jsonl", [scored_row(one, rewards, model="m", texts=False)])
    asked = solution([1.0], name="0", question="of the first set")
    assert ScoredFile(tmp_path).score_all([one, asked]) == [rewards, Unscored(id="0", reason="too long")]


@pytest.mark.parametrize("texts", [True, False])
def test_scores_are_those_of_this_prompt_and_these_steps(texts: bool, tmp_path: Path) -> None:
    one = solution([0.25, 0.5], name="a", question="first")
    rewards = StepRewards(values=(0.25, 0.5), kind="probability")
    path = write(tmp_path / "scores.jsonl", [scored_row(one, rewards, model="m", texts=texts)])
    asked = solution([0.25, 0.5], name="a", question="second")
    stepped = solution([0.5, 0.25], name="a", question="first")
    moved = Solution(id="a", prompt=prompt("first"), steps=("0.25,0", ".5"))
    reason = "its prompt or steps differ from those that were scored"
    assert ScoredFile(path).score_all([one, asked, stepped, moved]) == [rewards, *[Unscored(id="a", reason=reason)] * 3]


def test_scores_made_elsewhere_are_found_by_their_steps(tmp_path: Path) -> None:
    row = {"id": "a", "steps": ["0.5"], "kind": "logit", "rewards": [2.0]}
    found = ScoredFile(write(tmp_path / "x.jsonl", [row])).score_all(
        [solution([0.5], name="a"), solution([1], name="a")]
    )
    assert [isinstance(one, StepRewards) for one in found] == [True, False]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"id": "a"}, r'x.jsonl:1: no field "rewards", and no "reason"'),
        ({"id": "a", "rewards": [0.5], "kind": "points"}, r"x.jsonl:1: kind is 'points'"),
        ({"id": "a", "rewards": [float("nan")], "kind": "logit"}, r"x.jsonl:1: rewards cannot be read .*finite"),
        ({"rewards": [0.5], "kind": "logit"}, r"x.jsonl:1: no field 'id'"),
        (
            {"id": "a", "rewards": [0.5], "kind": "logit"},
            r'x.jsonl:1: neither "solution_sha256" nor "steps", so nothing',
        ),
        ({"id": "a", "reason": "too long"}, "found no row with rewards"),
    ],
)
def test_damaged_scores_are_named(row: dict[str, object], message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message):
        ScoredFile(write(tmp_path / "x.jsonl", [row]))


def test_scores_of_two_kinds_are_refused(tmp_path: Path) -> None:
    rows = [{"id": "a", "rewards": [0.5], "kind": kind, "steps": ["x"]} for kind in ("logit", "probability")]
    with pytest.raises(DataError, match=r"of one kind; found logit .*x.jsonl:1.* probability .*x.jsonl:2"):
        ScoredFile(write(tmp_path / "x.jsonl", rows))


@pytest.mark.parametrize(
    ("name", "codes"),
    [("de", ("de",)), ("de+en+zh", ("de", "en", "zh")), ("my-prm", ()), ("EN", ()), ("qa", ()), ("de+qa", ())],
)
def test_languages_in_a_models_name(name: str, codes: tuple[str, ...]) -> None:
    assert trained_languages(name, ["de", "en", "zh"]) == codes


def test_designs() -> None:
    assert [design_of(*pair) for pair in ((("de",), "de"), (("de",), "en"), (("de", "en"), "de"), ((), "de"))] == [
        "mono",
        "cross",
        "multi",
        "unknown",
    ]


def interval(value: float) -> dict[str, float]:
    return {"mean": value, "low": value - 0.1, "high": value + 0.1, "num": 10}


def test_a_matrix_over_two_cards() -> None:
    first = {"languages": {"de": {"trained_on": [], "metrics": {"F1": {"de": interval(0.6), "en": interval(0.4)}}}}}
    second = {"languages": {"all": {"trained_on": ["de", "en"], "metrics": {"F1": {"de": interval(0.7)}}}}}
    (matrix,) = language_matrices([first, second])
    assert (matrix.rows, matrix.columns, matrix.trained_on) == (("de", "all"), ("de", "en"), (("de",), ("de", "en")))
    assert matrix.means == {"mono": 0.6, "cross": 0.4, "multi": 0.7}
    assert matrix.row_means == (0.5, None)
    with pytest.raises(DataError, match='two cards hold a model "de"'):
        language_matrices([first, first])
    with pytest.raises(DataError, match="no card holds numbers by language"):
        language_matrices([{"languages": {}}])
