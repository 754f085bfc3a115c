"""`prmkit data convert`: choices and changes, counts that add up, refusals with file and line."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from test_formats_read import NAMED, WRITTEN

from prmkit.cli.main import main
from prmkit.data.convert_config import ConvertConfig
from prmkit.data.formats import FORMATS, ReadOptions, detect_format, read_pairs, read_solutions, write_solutions
from prmkit.data.formats.transform import (
    after_error,
    cut,
    hardened,
    numbered,
    until_unlabelled,
    with_neutral,
    with_outcome,
    with_unlabelled,
)
from prmkit.data.types import Message, Prompt, Solution
from prmkit.errors import ConfigError, DataError

PROMPT = Prompt(id="p", messages=(Message(role="user", content="2+3?"),), answer="5")


def solution(*labels: Any, outcome: float | None = None) -> Solution:
    steps = tuple("abcdef"[: len(labels)])
    return Solution(id="s", prompt=PROMPT, steps=steps, labels=labels, outcome=outcome, answer="5")


def test_neutral_labels() -> None:
    found = solution(1.0, "neutral", 0.0)
    assert [with_neutral(found, how).labels for how in ("keep", "right", "wrong", "drop")] == [
        (1.0, "neutral", 0.0),
        (1.0, 1.0, 0.0),
        (1.0, 0.0, 0.0),
        (1.0, None, 0.0),
    ]


def test_missing_labels() -> None:
    found = solution(1.0, None, 0.0)
    assert [with_unlabelled(found, how).labels for how in ("keep", "right", "wrong")] == [
        (1.0, None, 0.0),
        (1.0, 1.0, 0.0),
        (1.0, 0.0, 0.0),
    ]
    shorter = until_unlabelled(found)
    assert shorter is not None
    assert (shorter.steps, shorter.labels) == (("a",), (1.0,))
    assert until_unlabelled(solution(None, 1.0)) is None


def test_a_threshold_is_exclusive_and_spares_neutral() -> None:
    found = hardened(solution(0.5, 0.51, "neutral", None, outcome=0.5), 0.5)
    assert (found.labels, found.outcome) == ((0.0, 1.0, "neutral", None), 0.0)
    assert hardened(solution(0.0, 0.125), 0).labels == (0.0, 1.0)  # Math-Shepherd: any completion right


def test_what_follows_the_first_error() -> None:
    found = solution(1.0, 0.0, 1.0, 0.0, outcome=0.0)
    assert after_error(found, "unlabel").labels == (1.0, 0.0, None, None)
    shorter = after_error(found, "cut")
    assert (shorter.steps, shorter.labels) == (("a", "b"), (1.0, 0.0))
    assert after_error(solution(1.0, "neutral"), "cut").labels == (1.0, "neutral")


def test_a_cut_response_has_no_outcome_of_its_own() -> None:
    shorter = cut(solution(1.0, 1.0, outcome=1.0), 1)
    assert (shorter.outcome, shorter.answer, shorter.meta) == (None, None, {"cut_from": 2})
    assert cut(solution(1.0, 1.0, outcome=1.0), 2).outcome == 1.0


def test_outcomes_from_labels() -> None:
    cases = [(1.0, "neutral"), (1.0, 0.0), (None, 0.0), (1.0, None)]
    assert [with_outcome(solution(*labels)).outcome for labels in cases] == [1.0, 0.0, 0.0, None]
    assert with_outcome(solution(0.0, outcome=1.0)).outcome == 1.0


@pytest.mark.parametrize(
    "meta", [{"cut_from": 3}, {"alternative": [1, 1]}, {"finish_reason": "give_up"}, {"lead": "\n\n"}]
)
def test_the_beginning_of_a_response_may_be_wrong_and_is_never_right(meta: dict[str, Any]) -> None:
    assert with_outcome(replace(solution(1.0, 1.0), meta=meta)).outcome is None
    assert with_outcome(replace(solution(1.0, 0.0), meta=meta)).outcome == 0.0
    assert with_outcome(replace(solution(1.0, 1.0), meta={"finish_reason": "solution"})).outcome == 1.0


@pytest.mark.parametrize(("labels", "outcome"), [((1.0, None, 0.0), None), ((1.0, 1.0, 1.0), 1.0)])
def test_outcomes_are_found_before_anything_is_cut(
    labels: tuple[Any, ...], outcome: float | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Right, unknown, wrong: cut before the second step, the beginning has no wrong step left, and the whole is not right."""
    write_solutions(tmp_path / "a.jsonl", [replace(solution(*labels), answer=None)])
    flags = ["--unlabelled", "cut", "--outcome-from-labels", "true"]
    assert run(capsys, tmp_path / "a.jsonl", tmp_path / "b.jsonl", "prmkit", *flags)[0] == 0
    (found,) = read_solutions(tmp_path / "b.jsonl")
    assert (len(found.steps), found.outcome) == (1 if None in labels else 3, outcome)


def test_prm800k_labellings_that_were_given_up_and_alternatives_are_not_right(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The first phase's excerpt ends with a solution; its ten alternatives end at steps that are wrong, neutral or right."""
    row = json.loads(NAMED["prm800k_phase1"].read_text())
    row["label"]["finish_reason"] = "give_up"
    (tmp_path / "a.jsonl").write_text(json.dumps(row) + "\n")
    found = {}
    for name, source in (("solution", NAMED["prm800k_phase1"]), ("give_up", tmp_path / "a.jsonl")):
        flags = ["--outcome-from-labels", "true", "--alternatives", "all"]
        assert run(capsys, source, tmp_path / "b.jsonl", "prmkit", *flags)[0] == 0
        found[name], *others = read_solutions(tmp_path / "b.jsonl")
        assert {s.outcome for s in others} == {0.0, None}
    assert (found["solution"].outcome, found["give_up"].outcome) == (1.0, None)


def test_numbers_are_put_where_they_are_missing() -> None:
    found = Solution(id="s", prompt=PROMPT, steps=("a", "Step 2: b", "Step 1: c"))
    assert numbered(found).steps == ("Step 1: a", "Step 2: b", "Step 3: Step 1: c")


def run(capsys: pytest.CaptureFixture[str], source: Path, target: Path, name: str, *flags: str) -> tuple[int, str, str]:
    code = main(["data", "convert", "--source", str(source), "--target", str(target), "--target-format", name, *flags])
    out = capsys.readouterr()
    return code, out.out, out.err


def rows_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_neutral_into_trl_is_refused_with_file_line_and_fix(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "b.jsonl"
    code, out, err = run(capsys, NAMED["prm800k_steps"], target, "trl")
    assert (code, out) == (2, "")
    assert err.startswith(
        f"error: {NAMED['prm800k_steps']}:2: solution 'prm800k_steps.jsonl:2': step 1 is neutral, which trl"
    )
    assert not target.exists()


def test_counts_of_what_arrived_and_what_did_not(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "b.jsonl"
    code, out, _ = run(capsys, NAMED["prm800k_steps"], target, "trl", "--on-bad", "skip")
    assert code == 0
    assert out.splitlines()[:-1] == [
        f"read     {NAMED['prm800k_steps']} (prm800k_steps): 2 rows, 2 solutions",
        f"written  {target} (trl): 1 rows, 1 solutions",
        "dropped  1 solutions: cannot be trl",
        "left out answer of 1 solutions: trl has no place for it",
        "skipped  1 rows that could not be used:",
    ]
    assert rows_of(target)[0]["labels"] == [True] * 5
    code, out, _ = run(capsys, NAMED["prm800k_steps"], target, "trl", "--neutral", "right")
    assert rows_of(target)[1]["labels"] == [True] * 5 + [False]
    assert "dropped" not in out


@pytest.mark.parametrize("stem", ["prm800k_phase1", "prm800k_phase2", "prmbench"])
def test_a_row_that_comes_out_as_it_went_in_has_lost_nothing(
    stem: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "b.jsonl"
    name = detect_format(NAMED[stem])
    code, out, _ = run(capsys, NAMED[stem], target, name, "--lossless", "true", "--outside", "ignore")
    assert code == 0
    assert rows_of(target) == rows_of(NAMED[stem])
    assert "left out" not in out


def test_a_field_of_meta_that_does_not_arrive_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    row = {"prompt": "2+3?", "steps": ["5"], "labels": [1.0], "meta": {"generator": "a", "source": "b"}}
    (tmp_path / "a.jsonl").write_text(json.dumps(row) + "\n")
    _, out, _ = run(capsys, tmp_path / "a.jsonl", tmp_path / "b.jsonl", "trl", "--extras", "false")
    assert "left out meta of 1 solutions: trl has no place for it" in out


def test_lossless_refuses_what_would_be_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    row = {"id": "a", "prompt": "2+3?", "steps": ["2+3=5", "So 5."], "labels": [1.0, 1.0], "separator": "\n"}
    (tmp_path / "a.jsonl").write_text(json.dumps(row) + "\n")
    code, _, err = run(capsys, tmp_path / "a.jsonl", tmp_path / "b.jsonl", "processbench", "--lossless", "true")
    assert code == 2
    assert "processbench has no place for its separator; lossless = false leaves that out" in err
    code, _, _ = run(capsys, NAMED["mr_gsm8k"], tmp_path / "b.jsonl", "prmkit", "--lossless", "true")
    assert code == 0


def test_what_is_known_of_the_prompt_is_counted_where_it_has_no_place(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = {"messages": [{"role": "user", "content": "2+3?"}], "answer": "5", "task": "code", "meta": {"level": 3}}
    (tmp_path / "a.jsonl").write_text(json.dumps({"prompt": asked, "steps": ["5"], "outcome": 1.0}) + "\n")
    _, out, _ = run(capsys, tmp_path / "a.jsonl", tmp_path / "b.jsonl", "unpaired")
    for name in ("answer", "task", "meta"):
        assert f"left out prompt.{name} of 1 solutions: unpaired has no place for it" in out
    code, _, err = run(capsys, tmp_path / "a.jsonl", tmp_path / "b.jsonl", "unpaired", "--lossless", "true")
    assert code == 2
    assert "unpaired has no place for its prompt.answer, prompt.meta, prompt.task" in err


def test_a_text_that_will_be_cut_into_other_steps_is_written_whole_and_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    steps = ["3*4=12\nand then", "2+12=14"]
    asked = {"messages": [{"role": "user", "content": "2+3*4?"}], "answer": "14"}
    row = {"prompt": asked, "steps": steps, "separator": "\n", "outcome": 1.0, "answer": "14", "meta": {"reward": 1.5}}
    (tmp_path / "a.jsonl").write_text(json.dumps(row) + "\n")
    code, out, _ = run(capsys, tmp_path / "a.jsonl", tmp_path / "b.jsonl", "math_bestof_rm")
    assert code == 0
    assert "recut    1 solutions: math_bestof_rm holds a response as one text, and will cut it into other steps" in out
    assert "left out steps" not in out
    assert rows_of(tmp_path / "b.jsonl")[0]["code"] == ["3*4=12\nand then\n2+12=14"]
    assert run(capsys, tmp_path / "a.jsonl", tmp_path / "b.jsonl", "math_bestof_rm", "--lossless", "true")[0] == 2


def test_rlhflow_rows_that_the_reader_must_be_told_about_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.jsonl").write_text(json.dumps(WRITTEN["trl"]) + "\n")
    target = tmp_path / "b.jsonl"
    _, out, _ = run(capsys, tmp_path / "a.jsonl", target, "rlhflow")
    assert "note     1 rows have no single 'Step 1:'" in out
    assert "--problem-end blank_line" in out
    with pytest.raises(DataError, match="occurs 0 times"):
        read_solutions(target)
    assert read_solutions(target, options=ReadOptions(problem_end="blank_line"))[0].labels == (1.0, 0.0)
    _, out, _ = run(capsys, tmp_path / "a.jsonl", target, "rlhflow", "--number-steps", "true")
    assert "note" not in out
    assert read_solutions(target)[0].steps[0] == "Step 1: 3*4=12"


def test_rows_that_say_different_things_of_one_prompt_stay_apart(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [WRITTEN["ultrainteract"] | {"correctness": [True, False], "dataset": name} for name in ("a", "b", "b")]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert run(capsys, tmp_path / "a.jsonl", tmp_path / "b.jsonl", "ultrainteract")[0] == 0
    assert [(row["dataset"], len(row["completions"])) for row in rows_of(tmp_path / "b.jsonl")] == [("a", 2), ("b", 4)]


def test_half_of_a_surrogate_pair_is_written_as_json_states_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    row = WRITTEN["trl"] | {"completions": ["3*4=12 \ud800", "é"]}
    (tmp_path / "a.jsonl").write_text(json.dumps(row) + "\n")
    assert run(capsys, tmp_path / "a.jsonl", tmp_path / "b.jsonl", "trl")[0] == 0
    assert rows_of(tmp_path / "b.jsonl") == [row]


def test_signs_stay_signs_whichever_way_a_file_is_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    row = WRITTEN["openrlhf"] | {"value": ["+", "-"]}
    (tmp_path / "a.jsonl").write_text(json.dumps(row) + "\n")
    write_solutions(tmp_path / "b.jsonl", read_solutions(tmp_path / "a.jsonl"), "openrlhf")
    assert run(capsys, tmp_path / "a.jsonl", tmp_path / "c.jsonl", "openrlhf")[0] == 0
    assert rows_of(tmp_path / "b.jsonl") == rows_of(tmp_path / "c.jsonl") == [row]


def test_soft_values_become_signs_by_a_threshold(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "a.jsonl"
    source.write_text(json.dumps(WRITTEN["openrlhf"]) + "\n")
    assert run(capsys, source, tmp_path / "b.jsonl", "math_shepherd")[0] == 2
    assert run(capsys, source, tmp_path / "b.jsonl", "math_shepherd", "--threshold", "0.5")[0] == 0
    assert rows_of(tmp_path / "b.jsonl") == [
        {key: WRITTEN["math_shepherd"][key] for key in ("input", "label")}  # no task is known
    ]


def test_a_pool_becomes_pairs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(
        capsys, NAMED["gsm8k_model_solutions"], tmp_path / "b.jsonl", "preference", "--pairs", "one_to_one"
    )
    assert code == 0
    assert "dropped  2 solutions: are in no pair" in out
    (pair,) = read_pairs(tmp_path / "b.jsonl")
    assert (pair.chosen.text[-6:], pair.rejected.text[-5:]) == ("A: 540", "A: 60")
    code, out, _ = run(capsys, NAMED["gsm8k_model_solutions"], tmp_path / "c.jsonl", "unpaired", "--balance", "dataset")
    assert "dropped  2 solutions: are left out for balance" in out
    assert sorted(row["label"] for row in rows_of(tmp_path / "c.jsonl")) == [False, True]


def test_without_outcome_no_pairs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = run(capsys, NAMED["candidates_matched"], tmp_path / "b.jsonl", "preference")
    assert code == 2
    assert f"{NAMED['candidates_matched']}:1: solution '106/gemma-2-2b-it' has no outcome" in err
    code, _, err = run(capsys, NAMED["candidates_matched"], tmp_path / "b.jsonl", "preference", "--on-bad", "skip")
    assert code == 2
    assert "nothing to write: no solution is left of 2; 1 have no outcome, 1 are in no pair" in err
    assert not (tmp_path / "b.jsonl").exists()
    (tmp_path / "b.jsonl").write_text("what was there\n")
    run(capsys, NAMED["candidates_matched"], tmp_path / "b.jsonl", "preference", "--on-bad", "skip")
    assert (tmp_path / "b.jsonl").read_text() == "what was there\n"


def test_prm800k_rows_are_chosen_by_phase_and_quality(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "a.jsonl"
    rows = [json.loads(NAMED[stem].read_text()) for stem in ("prm800k_phase1", "prm800k_phase2")]
    rows += [rows[1] | {"is_quality_control_question": True}, rows[1] | {"is_initial_screening_question": True}]
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    flags = ["--phase", "2", "--drop-quality-control", "true", "--drop-screening", "true"]
    code, out, _ = run(capsys, source, tmp_path / "b.jsonl", "prmkit", *flags)
    assert code == 0
    for reason in ("are not of phase 2", "are quality control", "are screening"):
        assert f"dropped  1 solutions: {reason}" in out
    (kept,) = read_solutions(tmp_path / "b.jsonl")
    assert kept.id == "a.jsonl:2"
    code, out, _ = run(capsys, source, tmp_path / "c.jsonl", "prm800k", "--finish-reasons", "solution")
    assert "dropped  3 solutions: ended with found_error" in out
    assert rows_of(tmp_path / "c.jsonl") == rows[:1]


def test_bad_rows_are_skipped_and_listed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "a.jsonl"
    source.write_text(json.dumps(WRITTEN["trl"]) + "\n{\n")
    code, out, _ = run(capsys, source, tmp_path / "b.jsonl", "prmkit", "--on-bad", "skip")
    assert code == 0
    assert "2 rows, 1 solutions" in out
    assert f"  {source}:2: not JSON" in out
    code, _, err = run(capsys, source, tmp_path / "b.jsonl", "prmkit")
    assert code == 2
    assert err.startswith(f"error: {source}:2: not JSON")


def test_parquet_is_read_through_datasets(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    datasets = pytest.importorskip("datasets")
    rows = [WRITTEN["trl"], WRITTEN["trl"] | {"labels": [True, True]}]
    datasets.Dataset.from_list(rows).to_parquet(tmp_path / "a.parquet")
    code, out, _ = run(capsys, tmp_path / "a.parquet", tmp_path / "b.jsonl", "trl")
    assert code == 0
    assert "(trl): 2 rows, 2 solutions" in out
    assert rows_of(tmp_path / "b.jsonl") == rows


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"target_format": "math-shepherd"},
            'target_format = "math-shepherd" is no data format; did you mean "math_shepherd"',
        ),
        ({"source_format": "csv"}, 'source_format = "csv" is no data format'),
        ({"target": "b.parquet"}, 'target = "b.parquet", but JSON lines are written'),
        ({"threshold": 1.0}, "threshold = 1.0, but labels above it are right, so it must be below 1"),
        ({"placeholder": ""}, 'placeholder = "" is empty'),
        ({"response_start": " "}, 'response_start = "" is empty'),
    ],
)
def test_settings_that_cannot_run(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ConvertConfig(**{"source": "a.jsonl", "target": "b.jsonl", **changes})


def test_white_space_that_is_left_out_is_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "a.jsonl"
    source.write_text(json.dumps({"prompt": "2+3? ", "completions": ["Step 1: 5\n"], "labels": [True]}) + "\n")
    code, out, _ = run(capsys, source, tmp_path / "b.jsonl", "math_shepherd")
    assert code == 0
    for what in ("prompt", "steps"):
        assert f"left out white space around {what} of 1 solutions" in out
    assert run(capsys, source, tmp_path / "b.jsonl", "math_shepherd", "--lossless", "true")[0] == 2


def test_source_and_target_must_be_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "convert", "--target", "b.jsonl"]) == 2
    assert capsys.readouterr().err == 'error: source = "" is empty; set --source to a file\n'


PAGE = (Path(__file__).parents[1] / "docs" / "prm_data.md").read_text()


@pytest.mark.parametrize("name", FORMATS)
def test_the_page_shows_a_row_of_every_format(name: str, tmp_path: Path) -> None:
    section = PAGE.partition(f"### {name}\n")[2].partition("\n#")[0]
    (row,) = re.findall(r"```json\n(.*?)\n```", section)
    path = tmp_path / "a.jsonl"
    path.write_text(row + "\n")
    assert detect_format(path) == name
    found = read_solutions(path, options=ReadOptions(keep_alternatives=True))
    if FORMATS[name].made_by:
        assert [solution.outcome for solution in found] == [1.0, 0.0, None][: len(found)]
    else:
        write_solutions(tmp_path / "b.jsonl", found, name)
        assert rows_of(tmp_path / "b.jsonl") == rows_of(path)
    assert f"| `{name}` |" in PAGE
