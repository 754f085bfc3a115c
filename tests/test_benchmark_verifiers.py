"""What the benchmark of the verifiers counts."""

from __future__ import annotations

import sys

import pytest
from code_setup import ROOT, benchmark_module

from prmkit.data.types import Verdict

sys.path.insert(0, str(ROOT / "benchmarks"))  # they import each other
verifiers, answer_sets, hostile = (benchmark_module(name) for name in ("verifiers", "_answer_sets", "_hostile"))
Case = answer_sets.Case


def test_an_undecided_answer_is_neither_accepted_nor_rejected() -> None:
    cases = [Case(str(i), "1", "", correct) for i, correct in enumerate([True, True, True, False, False, False])]
    counts = verifiers.accuracy(cases, [True, False, None, True, False, None])
    assert counts == {"right": 2, "false_accepts": 1, "false_rejects": 1, "undecided": 2}


@pytest.mark.parametrize(
    ("reference", "response", "same"),
    [("1/2", r"so \boxed{1/2}", True), ("$x+1$", "The answer is x + 1.", True), ("0.5", r"\boxed{1/2}", False)],
)
def test_string_match_compares_texts(reference: str, response: str, same: bool) -> None:
    assert verifiers.string_match(reference, response) is same


def test_a_disagreement_of_the_exact_path_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    cases = [Case("a", "5", "#### 5", True), Case("b", "5", "#### 6", False), Case("c", "x+1", r"\boxed{1+x}", True)]
    counted = verifiers.exact_path(cases)
    assert (counted["pairs"], counted["decided_exactly"], counted["disagreements"]) == (3, 2, 0)
    right = Verdict(status="ok", reward=1.0)
    monkeypatch.setattr(verifiers, "math_verify_verdict", lambda item: right)  # as if it took 6 for 5
    assert [row["id"] for row in verifiers.exact_path(cases)["differing"]] == ["b"]


def test_the_excerpts_and_the_hostile_responses_are_there() -> None:
    cases, outputs = answer_sets.equivalence_cases(None), answer_sets.model_outputs(None)
    assert {case.correct for case in cases} == {case.correct for case in outputs} == {True, False}
    found = hostile.hostile_responses(40)
    assert len(found) == 40 == len(hostile.hostile_responses(40, seed=1))
    assert found == hostile.hostile_responses(40)
