"""The doctor on rows that are tokenised already: -100 casts and labels beside the separator."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from doctor_setup import Row, find, said, write_rows

from prmkit.doctor.config import DoctorConfig
from prmkit.doctor.examine import examine
from prmkit.doctor.finding import Finding


def look(tmp_path: Path, rows: list[Row]) -> list[Finding]:
    return examine(DoctorConfig(data=(write_rows(tmp_path / "train.jsonl", rows),), separator=";"), None)


def cast_to_bool(labels: list[Any]) -> list[bool]:
    """What a boolean column makes of numbers."""
    return [bool(label) for label in labels]


def tokenised_rows(**change: Any) -> list[Row]:
    """What TRL's trainer makes of rows: -100 but for the separator (9), which carries 0 or 1."""
    rows = []
    for n in range(12):
        ids, labels = [1, 2, 3], [-100] * 3
        for k in range(3):
            ids += [10 + n, 20 + k, 9]
            labels += [-100, -100, int(not (n % 3 == 0 and k == 2))]
        rows.append({"input_ids": [*ids, 2], "labels": [*labels, -100]})
    return [{**row, **{key: f(row) for key, f in change.items()}} for row in rows]


def test_ignored_labels_cast_to_true_are_seen(tmp_path: Path) -> None:
    """TRL pull request 2127: -100 became True in a boolean column, and accuracy was high from the start."""
    sound = tokenised_rows()
    assert sound[0]["labels"] == [-100] * 5 + [1, -100, -100, 1, -100, -100, 0, -100]
    assert said(look(tmp_path, sound)) == {("note", "data.tokenised")}
    broken = tokenised_rows(labels=lambda row: cast_to_bool(row["labels"]))
    assert broken[0]["labels"] == [True] * 11 + [False, True]
    findings = look(tmp_path, broken)
    assert said(findings) == {("note", "data.tokenised"), ("error", "labels.ignored_cast")}
    assert find(findings, "labels.ignored_cast").where.endswith("train.jsonl:1, :2, :3 and 9 more")


def test_unsigned_columns_lose_ignored_labels_too(tmp_path: Path) -> None:
    """-100 as an unsigned byte is 156."""
    broken = tokenised_rows(labels=lambda row: [label % 256 for label in row["labels"]])
    assert ("error", "labels.nothing_ignored") in said(look(tmp_path, broken))


def test_rows_that_carry_no_label_at_all_are_seen(tmp_path: Path) -> None:
    rows = tokenised_rows()
    empty = tokenised_rows(labels=lambda row: [-100] * len(row["labels"]))
    assert said(look(tmp_path, empty)) == {("note", "data.tokenised"), ("error", "labels.all_ignored")}
    findings = look(tmp_path, rows[:6] + empty[:6])
    assert said(findings) == {("note", "data.tokenised"), ("error", "labels.all_ignored")}
    assert find(findings, "labels.all_ignored").what.startswith(
        "6 of 12 (50.0%) tokenised rows have -100 at every token"
    )
    # one long row that the cut has left without a step
    assert ("warning", "labels.all_ignored") in said(look(tmp_path, rows + empty[:1]))


@pytest.mark.parametrize(
    ("move", "expected"), [(0, set()), (1, {("error", "labels.off_by_one")}), (-1, {("warning", "labels.off_by_one")})]
)
def test_labels_one_token_off_the_separator_are_seen(tmp_path: Path, move: int, expected: set[tuple[str, str]]) -> None:
    def moved(row: Row) -> list[int]:
        labels = row["labels"]
        return labels[-move:] + labels[:-move] if move else labels

    rows = tokenised_rows(labels=moved)
    for n, row in enumerate(rows):  # what follows a separator differs from row to row, as text does
        row["input_ids"][0] = 50 + n
    assert said(look(tmp_path, rows)) - {("note", "data.tokenised")} == expected


def test_label_tokens_that_carry_their_own_id_are_no_fault(tmp_path: Path) -> None:
    """The layout that the doctor recommends for a causal loss: separator (9), then + (5) or - (6), labelled with itself."""
    rows = []
    for n in range(12):
        ids, labels = [1, 2, 3], [-100] * 3
        for k in range(3):
            said_here = 5 + int(n % 3 == 0 and k == 2)
            ids += [10 + n, 20 + k, 9, said_here]
            labels += [-100, -100, -100, said_here]
        rows.append({"input_ids": [*ids, 50 + n], "labels": [*labels, -100]})
    assert said(look(tmp_path, rows)) == {("note", "data.tokenised")}
    for row in rows:  # one token on, they stand beside it
        row["labels"] = [-100, *row["labels"][:-1]]
    assert ("error", "labels.off_by_one") in said(look(tmp_path, rows))


def test_steps_that_all_end_in_the_same_token_are_no_fault(tmp_path: Path) -> None:
    """A full stop (8) before each separator: labels stand on one token, and behind one token."""
    rows = tokenised_rows()
    for row in rows:
        row["input_ids"] = [8 if 20 <= token < 30 else token for token in row["input_ids"]]
    assert said(look(tmp_path, rows)) == {("note", "data.tokenised")}
