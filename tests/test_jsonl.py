from __future__ import annotations

from pathlib import Path

import pytest

from prmkit.data.jsonl import read_jsonl, text_field, write_jsonl
from prmkit.errors import DataError


def test_rows_come_back_as_they_were_written(tmp_path: Path) -> None:
    rows = [
        {"question": "2 + 3?", "answer": "5"},
        {"question": "caf\u00e9\u2028\U0001f600", "answer": 7, "x": [1, None]},
    ]
    write_jsonl(tmp_path / "new" / "a.jsonl", rows)
    assert read_jsonl(tmp_path / "new" / "a.jsonl", ["question"]) == rows
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["a.jsonl"]


def test_a_byte_order_mark_windows_ends_and_blank_lines_at_the_end_are_no_errors(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b'\xef\xbb\xbf{"a": 1}\r\n{"a": 2}\r\n\r\n\n')
    assert read_jsonl(tmp_path / "a.jsonl") == [{"a": 1}, {"a": 2}]


@pytest.mark.parametrize(
    ("content", "line", "message"),
    [
        (b'{"a": 1}\n{"a": \n', 2, "not JSON"),
        (b'{"a": 1}\n\n{"a": 2}\n', 2, "blank line"),
        (b'{"a": 1}\n{"a": 2}\n[1, 2]\n', 3, "a list, expected an object"),
        (b'"text"\n', 1, "a string, expected an object"),
        (b"null\n", 1, "null, expected an object"),
        (b'{"a": 1}\n{"b": 2, "c": 3}\n', 2, "no field 'a'; the line has 'b', 'c'"),
        (b'{"a": 1}\n{}\n', 2, "no field 'a'; the line has no fields"),
        (b'{"a": "\xff"}\n', 1, "not UTF-8"),
        (b'{"a": 1}\n{"a": ' + b"1" * 5000 + b"}\n", 2, "a number cannot be read (Exceeds the limit"),
        (b'{"a": 1}\n{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}\n", 2, "nested too deep"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, content: bytes, line: int, message: str) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_bytes(content)
    with pytest.raises(DataError) as error:
        read_jsonl(path, ["a"])
    assert str(error.value).startswith(f"{path}:{line}: ")
    assert message in str(error.value)


@pytest.mark.parametrize("content", [b"", b"\n\n", b" \n"])
def test_an_empty_file_is_an_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "empty.jsonl").write_bytes(content)
    with pytest.raises(DataError, match=r"empty\.jsonl: the file is empty"):
        read_jsonl(tmp_path / "empty.jsonl")


def test_a_missing_file_and_a_folder_are_errors(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.jsonl: no such file"):
        read_jsonl(tmp_path / "none.jsonl")
    with pytest.raises(DataError, match="is a folder"):
        read_jsonl(tmp_path)


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    write_jsonl(path, [{"a": 1}])
    with pytest.raises(TypeError):
        write_jsonl(path, [{"a": 2}, {"a": object()}])
    assert read_jsonl(path) == [{"a": 1}]
    assert [p.name for p in tmp_path.iterdir()] == ["a.jsonl"]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({}, "t:4: no field 'q'"),
        ({"q": 3}, "t:4: field 'q' is a number, expected a string"),
        ({"q": None}, "t:4: field 'q' is null"),
        ({"q": " \n"}, "t:4: field 'q' is blank"),
    ],
)
def test_a_text_field_must_be_a_text(row: dict[str, object], message: str) -> None:
    with pytest.raises(DataError, match=message):
        text_field(row, "q", "t:4")
