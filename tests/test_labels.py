"""One rule for soft labels: what training calls right, evaluation, the doctor and the pages call right too."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from prm_judge import Echo, prompt, solution

from prmkit.data.labels import is_right
from prmkit.data.types import Solution, StepRewards
from prmkit.doctor.config import DoctorConfig
from prmkit.doctor.finding import Item
from prmkit.doctor.labels import check_labels, class_of, outcomes
from prmkit.evaluate.ledger import append
from prmkit.evaluate.prm.bootstrap import Resampling
from prmkit.evaluate.prm.length_bias import length_bias
from prmkit.evaluate.prm.prm_bench import judge_steps
from prmkit.evaluate.prm.scored import first_error, right_step, score_solutions
from prmkit.evaluate.scoring import scored_row
from prmkit.report.scored import scored_data
from prmkit.train.stepwise import step_targets
from prmkit.train.stepwise_config import StepwiseConfig

SAID: dict[str, Callable[[float], bool]] = {
    "shared rule": is_right,
    "training": lambda label: step_targets([label], StepwiseConfig())[0].kind == 1,  # type: ignore[union-attr]
    "evaluation": lambda label: bool(right_step(label, "ignore")),
    "evaluation, first error": lambda label: first_error(soft(label)) == -1,
    "data": lambda label: soft(label).first_error is None,
    "doctor": lambda label: class_of(label) == "right",
}


def soft(label: float) -> Solution:
    return solution([0.9], [label])


@pytest.mark.parametrize("place", SAID)
@pytest.mark.parametrize(
    ("label", "right"), [(0.0, False), (0.5, False), (0.5 + 2**-53, True), (0.75, True), (1.0, True)]
)
def test_a_label_of_exactly_half_is_wrong_everywhere(place: str, label: float, right: bool) -> None:
    # OpenR: '+' iff mc_value > 0.5
    assert SAID[place](label) is right


def test_the_threshold_is_a_parameter() -> None:
    # Math-Shepherd's hard labels: one right completion is enough, none is not
    assert [is_right(label, 0.0) for label in (0.0, 0.125)] == [False, True]


def test_the_page_of_a_scored_file_follows_it(tmp_path: Path) -> None:
    known = Solution(
        id="a", prompt=prompt(), steps=("x", "y", "z", "w"), labels=(1.0, 0.5, None, "neutral"), outcome=0.5
    )
    row = scored_row(known, StepRewards(values=(0.5,) * 4, kind="probability"), model="m")
    append(tmp_path / "s.jsonl", [row])
    (shown,) = scored_data(tmp_path / "s.jsonl")["rows"]
    assert shown["right"] == [True, False, None, None]
    assert (shown["first_error"], shown["verdict"]) == (1, "wrong")


def test_steps_and_outcomes_of_the_card_follow_it() -> None:
    rows = score_solutions(Echo(), [solution([0.9, 0.8], [1.0, 0.5], outcome=0.5)])
    assert judge_steps(rows, "value", "right")[0].steps == ((0.9, True), (0.8, False))
    bias = length_bias(rows, "min", Resampling(num=40, seed=0))
    assert (len(bias.right), len(bias.wrong)) == (0, 1)


def test_the_doctor_counts_half_as_wrong() -> None:
    items = [Item(where=f"f:{k}", solution=solution([0.9], [0.5], outcome=0.5)) for k in range(3)]
    found = check_labels(items, DoctorConfig(expected="hard"))
    what = next(finding.what for finding in found if finding.check == "labels.soft")
    assert what.startswith("3 labels lie between 0 and 1, but hard labels are expected; 3 of them are wrong at")
    one_class = [finding.what for finding in outcomes(items, pairs=False)]
    assert "all 3 outcomes are wrong: there is nothing to learn" in one_class
