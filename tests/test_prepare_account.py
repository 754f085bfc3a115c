"""`prmkit data prepare` accounts for every row: ids that differ, steps that lose or mix up rows, numbers that JSON has not."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from prepare_setup import prepare, read, record, write

from prmkit.curate.config import PrepareConfig
from prmkit.curate.read import read_records
from prmkit.curate.record import Outcome, Record, Step
from prmkit.curate.run import prepare as run_steps


@pytest.mark.parametrize(
    ("ids", "expected"),
    [
        (["q", "q", "q-2"], ["q", "q-3", "q-2"]),
        (["q-2", "q", "q", "q"], ["q-2", "q", "q-3", "q-4"]),
        (["q", "q", "q-2", "q-2"], ["q", "q-3", "q-2", "q-2-2"]),
        (["q", "q", "q-2-2", "q-2", "q-2"], ["q", "q-3", "q-2-2", "q-2", "q-2-3"]),
    ],
)
def test_made_up_ids_are_those_of_no_other_row(tmp_path: Path, ids: list[str], expected: list[str]) -> None:
    source = write(tmp_path / "q.jsonl", [{"id": name, "question": "Q?", "answer": "1"} for name in ids])
    records, _ = read_records(PrepareConfig(source=(str(source),), out="o"))
    assert [found.id for found in records] == expected


def test_no_row_is_lost_where_ids_look_like_made_up_ones(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"id": "q", "question": "What is 1+1?", "answer": "2"},
        {"id": "q", "question": "How many legs has a spider?", "answer": "B", "options": ["6", "8", "10"]},
        {"id": "q-2", "question": "How many legs has a dog?", "answer": "B", "options": ["3", "4", "5"]},
    ]
    assert prepare(tmp_path, f"--source={write(tmp_path / 'q.jsonl', rows)}") == 0
    prompts = read(tmp_path / "out" / "prompts.jsonl")
    assert [(row["question"], row["answer"]) for row in prompts] == [
        ("What is 1+1?", "2"),
        ("How many legs has a spider?", "8"),
        ("How many legs has a dog?", "4"),
    ]


def test_a_step_that_gives_one_row_for_another_is_caught() -> None:
    first = record("one?", name="q")
    second = replace(record("two?", name="q"), where="q.jsonl:2")

    def twice(records: object) -> Outcome:
        return Outcome(kept=[first, first])

    with pytest.raises(AssertionError, match=r"step own: 2 records in, 2 out; lost: \[\('q', 'q.jsonl:2'\)\]"):
        run_steps([first, second], [], [Step(name="own", run=twice)])


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"question": "a", "answer": NaN}', ":1: field 'answer' has the number nan"),
        ('{"question": "a", "answer": "1", "scores": [1, {"x": -Infinity}]}', ":1: field 'scores' has the number -inf"),
        ('{"question": "a", "answer": 1e999}', ":1: field 'answer' has the number inf"),
    ],
)
def test_numbers_that_json_has_not_stop_with_their_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], line: str, message: str
) -> None:
    source = tmp_path / "q.jsonl"
    source.write_text(line + '\n{"question": "b", "answer": "2"}\n')
    assert prepare(tmp_path, f"--source={source}") == 2
    assert f"{source}{message}" in capsys.readouterr().err
    assert prepare(tmp_path, f"--source={source}", "--on-bad=skip") == 0

    def refuse(name: str) -> None:
        raise AssertionError(f"bare {name}")

    for path in (tmp_path / "out").glob("*.jsonl"):
        for written in path.read_text().splitlines():
            json.loads(written, parse_constant=refuse)
    assert [row["id"] for row in read(tmp_path / "out" / "prompts.jsonl")] == ["q.jsonl:2"]


def test_a_step_of_ones_own_that_leaves_nan_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "my_nan_step.py").write_text(
        "def rate(record):\n    return record.with_found('rate', {'score': float('nan')})\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    source = write(tmp_path / "q.jsonl", [{"question": "a?", "answer": "1"}])
    assert prepare(tmp_path, f"--source={source}", "--steps", "my_nan_step:rate") == 2
    assert "q.jsonl:1: a step left the number nan" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_the_readers_ids_are_enough_for_the_check() -> None:
    rows: list[Record] = [record("one?", name="a"), record("two?", name="b")]
    done = run_steps(rows, [], [Step(name="own", run=lambda records: Outcome(kept=list(reversed(records))))])
    assert [found.id for found in done.kept] == ["b", "a"]
