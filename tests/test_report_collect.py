from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from fake_run import write_fake_run, write_lines

from prmkit.errors import DataError
from prmkit.report.collect import read_run, read_runs, run_names


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return write_fake_run(tmp_path / "run", steps=12, with_prm=True, seed=0)


def rollout_file(run: Path) -> Path:
    return run / "rollouts" / "step_000012.jsonl"


def edit_first_rollout(run: Path, **changes: Any) -> None:
    rows = [json.loads(line) for line in rollout_file(run).read_text().splitlines()]
    rows[0].update(changes)
    write_lines(rollout_file(run), rows)


def test_a_run_is_read_whole(run: Path) -> None:
    read = read_run(run, name="x")
    assert [row["step"] for row in read.metrics] == list(range(1, 13))
    assert [row["step"] for row in read.evals] == [0, 3, 6, 9, 12]
    assert [recorded.step for recorded in read.recorded] == [1, 10, 12]
    assert [len(recorded.responses) for recorded in read.recorded] == [32, 32, 32]
    assert read.config["task"]["name"] == "arithmetic"


@pytest.mark.parametrize("cut", ['{"step": 13, "rew', '{"step": 13, "note": "\xc3', "{"])
def test_a_cut_last_line_is_passed_over(run: Path, cut: str) -> None:
    with (run / "metrics.jsonl").open("ab") as file:
        file.write(cut.encode("latin-1"))
    assert read_run(run, name="x").metrics[-1]["step"] == 12


def test_a_whole_last_line_without_its_newline_counts(run: Path) -> None:
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"step": 13, "reward": 0.5}')
    assert read_run(run, name="x").metrics[-1] == {"step": 13, "reward": 0.5}


def test_of_a_step_written_twice_the_later_line_counts(run: Path) -> None:
    write_lines(run / "metrics.jsonl", [{"step": s, "reward": r} for s, r in ((1, 0.1), (2, 0.2), (2, 0.7), (1, 0.3))])
    assert read_run(run, name="x").metrics == ({"step": 1, "reward": 0.3}, {"step": 2, "reward": 0.7})


def test_only_metrics_and_config_are_needed(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text("seed = 1\n")
    write_lines(tmp_path / "metrics.jsonl", [{"step": 1}])
    read = read_run(tmp_path, name="x")
    assert (read.timings, read.evals, read.recorded) == ((), (), ())


def test_runs_of_one_name_are_told_apart_by_their_parents() -> None:
    assert run_names([Path("/a/prime/s1"), Path("/a/rloo/s1")]) == ["prime/s1", "rloo/s1"]
    assert run_names([Path("/a/prime"), Path("/b/rloo")]) == ["prime", "rloo"]


def test_no_run_a_run_twice_and_a_missing_folder_are_errors(run: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no run folder was given"):
        read_runs([])
    with pytest.raises(DataError, match="given twice"):
        read_runs([run, run / ".." / "run"])
    with pytest.raises(DataError, match="absent: there is no such run folder"):
        read_runs([tmp_path / "absent"])


@pytest.mark.parametrize("name", ["config.toml", "metrics.jsonl"])
def test_a_folder_that_is_no_run_folder_is_an_error(run: Path, name: str) -> None:
    (run / name).unlink()
    with pytest.raises(DataError, match=f"{name} is missing, so this is not a run folder"):
        read_runs([run])


LATER = '{"step": 2}\n'
BAD_LINES = [
    ("metrics.jsonl", '{"step": 1, "rew\n' + LATER, r"metrics\.jsonl:1: not valid JSON"),
    ("metrics.jsonl", LATER + '{"step": 3, "rew\n', r"metrics\.jsonl:2: not valid JSON"),
    ("metrics.jsonl", "[1]\n" + LATER, r"metrics\.jsonl:1: expected one JSON object a line, found list"),
    ("metrics.jsonl", LATER + '{"reward": 1}\n', r'metrics\.jsonl:2: "step" is None'),
    ("metrics.jsonl", '{"step": 1.5}\n', r'"step" is 1\.5; expected a whole number'),
    (
        "metrics.jsonl",
        '{"step": 1, "kl": NaN}\n',
        r'metrics\.jsonl:1: "kl" is nan; a metric is a finite number or null',
    ),
    ("metrics.jsonl", '{"step": 1, "kl": "0.1"}\n', r'"kl" is \'0\.1\''),
    ("metrics.jsonl", '{"step": 1, "kl": true}\n', r'"kl" is True'),
    ("metrics.jsonl", "", r"metrics\.jsonl: no complete line yet"),
    ("metrics.jsonl", '{"step": 1', r"metrics\.jsonl: no complete line yet"),
    ("timings.jsonl", '{"step": 1, "time/step": Infinity}\n', r'timings\.jsonl:1: "time/step" is inf'),
    ("eval.jsonl", "x\n" + LATER, r"eval\.jsonl:1: not valid JSON"),
    ("config.toml", "seed = \n", r"config\.toml: not valid TOML"),
]


@pytest.mark.parametrize(("name", "text", "message"), BAD_LINES)
def test_a_line_that_cannot_be_read_is_named(run: Path, name: str, text: str, message: str) -> None:
    (run / name).write_text(text)
    with pytest.raises(DataError, match=message):
        read_runs([run])


BAD_ROLLOUTS: list[tuple[dict[str, Any], str]] = [
    ({"text": None}, '"text" is None; expected text'),
    ({"status": "fine"}, "\"status\" is 'fine'; expected one of ok, unparsed, timeout, error"),
    ({"finish": "eos"}, "\"finish\" is 'eos'; expected one of stop, length, error"),
    ({"detail": 3}, '"detail" is 3; expected text'),
    ({"outcome": "1"}, "\"outcome\" is '1'; expected a finite number or null"),
    ({"token_ends": [3, 1]}, '"token_ends" must rise from 0'),
    ({"token_ends": [10_000]}, '"token_ends" must rise from 0'),
    ({"token_ends": ["1"]}, '"token_ends" must be a list of whole numbers'),
    ({"step_of_token": [0]}, '1 values in "step_of_token" for '),
    ({"process_rewards": [0.5, 0.5]}, '2 values in "process_rewards" for '),
    ({"advantages": [None]}, '"advantages" must be a list of finite numbers'),
    ({"first_error_step": -2}, '"first_error_step" is -2; expected a step number, -1 or null'),
]


@pytest.mark.parametrize(("changes", "message"), BAD_ROLLOUTS)
def test_a_rollout_that_cannot_be_read_is_named(run: Path, changes: dict[str, Any], message: str) -> None:
    edit_first_rollout(run, **changes)
    with pytest.raises(DataError) as caught:
        read_runs([run])
    assert f"{rollout_file(run)}:1: {message}" in str(caught.value)


def test_undecided_is_not_wrong(run: Path) -> None:
    for outcome, verdict in ((None, "undecided"), (0.0, "wrong"), (0.49, "wrong"), (0.5, "right"), (1.0, "right")):
        edit_first_rollout(run, outcome=outcome)
        assert read_run(run, name="x").recorded[-1].responses[0].verdict == verdict
