"""A scored file as a source: converted, and scored by another model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from prm_models import classifier
from score_setup import lines, solution

from prmkit.cli.main import main
from prmkit.data.formats import detect_format, read_solutions
from prmkit.data.types import Solution, StepRewards
from prmkit.errors import DataError
from prmkit.evaluate.ledger import append
from prmkit.evaluate.scoring import scored_row

KNOWN = [
    solution(1, steps=("a", "b"), labels=(1.0, 0.5), outcome=0.0, answer="8", language="en", meta={"n": 1}),
    solution(2, steps=("c",), labels=(0.0,)),
]


def rows() -> list[dict[str, Any]]:
    return [
        scored_row(one, StepRewards(values=(0.5,) * len(one.steps), kind="probability"), model="first") for one in KNOWN
    ]


@pytest.fixture
def scores(tmp_path: Path) -> Path:
    append(tmp_path / "scores.jsonl", rows())
    return tmp_path / "scores.jsonl"


def test_the_solutions_of_a_scored_file_are_those_that_were_scored(scores: Path) -> None:
    assert detect_format(scores) == "prmkit"
    found: list[Solution] = read_solutions(scores)
    assert found == KNOWN


def test_a_scored_file_is_converted(scores: Path, tmp_path: Path) -> None:
    target = tmp_path / "plain.jsonl"
    assert main(["data", "convert", f"--source={scores}", f"--target={target}"]) == 0
    assert read_solutions(target) == KNOWN
    assert not {"rewards", "model", "solution_sha256"} & set(lines(target)[0])


def test_a_scored_file_is_scored_by_another_model(scores: Path, tmp_path: Path) -> None:
    classifier(tmp_path / "prm")
    out = tmp_path / "again.jsonl"
    assert main(["score", f"--model={tmp_path / 'prm'}", f"--source={scores}", f"--out={out}", "--device=cpu"]) == 0
    again = lines(out)
    assert [row["solution_sha256"] for row in again] == [row["solution_sha256"] for row in rows()]
    assert {row["model"] for row in again} == {str(tmp_path / "prm")}
    assert read_solutions(out) == KNOWN


@pytest.mark.parametrize(
    ("change", "unknown"),
    [({"rewrads": [0.5]}, "rewrads"), ({"rewards": None, "model": None, "kind": None}, "solution_sha256")],
)
def test_other_fields_are_still_refused(change: dict[str, Any], unknown: str, tmp_path: Path) -> None:
    row = {key: value for key, value in {**rows()[0], **change}.items() if value is not None or key == "labels"}
    path = tmp_path / "x.jsonl"
    path.write_text(json.dumps(row) + "\n")
    with pytest.raises(DataError, match=rf"x\.jsonl:1: unknown field '{unknown}'; put what is your own into 'meta'"):
        read_solutions(path)
