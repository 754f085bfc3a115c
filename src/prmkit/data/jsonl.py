"""JSON lines: one object a line, UTF-8. Errors name the file and the line."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from prmkit.errors import DataError


def read_jsonl(path: str | Path, required: Sequence[str] = ()) -> list[dict[str, Any]]:
    """The objects of a file, in order: object i stands on line i + 1. Each has all `required` fields.

    Blank lines are allowed only at the end. Raises DataError for a file that is missing, empty or not UTF-8, and for a
    line that is no JSON object or lacks a field.
    """
    path = Path(path)
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; check the path, it is read relative to {Path.cwd()}") from None
    except IsADirectoryError:
        raise DataError(f"{path}: is a folder, expected a file with one JSON object a line") from None
    lines = raw.removeprefix(b"\xef\xbb\xbf").rstrip().split(b"\n")
    if lines == [b""]:
        raise DataError(f"{path}: the file is empty; it needs at least one line with a JSON object")
    return [parse_line(line, place(path, index), required) for index, line in enumerate(lines)]


def write_jsonl(path: str | Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write one object a line; the file is written aside and renamed, so it is never seen half-written."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with aside.open("w", encoding="utf-8", newline="\n") as file:
            for row in rows:
                file.write(json_line(row))
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


def json_line(row: Mapping[str, Any], *, allow_nan: bool = True) -> str:
    """One object and the line's end. Half of a surrogate pair, which JSON can state and UTF-8 cannot, stays escaped."""
    line = json.dumps(row, ensure_ascii=False, allow_nan=allow_nan)
    try:
        line.encode()
    except UnicodeEncodeError:
        line = json.dumps(row, allow_nan=allow_nan)
    return line + "\n"


def not_finite(value: object) -> float | None:
    """The first NaN or infinity within a value of JSON; None where there is none."""
    if isinstance(value, float):
        return None if math.isfinite(value) else value
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list | tuple):
        return next((found for item in value if (found := not_finite(item)) is not None), None)
    return None


def place(path: str | Path, index: int) -> str:
    """`file:line` of the object with this index."""
    return f"{path}:{index + 1}"


def parse_line(
    line: bytes, where: str, required: Sequence[str] = (), *, like: str = '{"question": "...", "answer": "..."}'
) -> dict[str, Any]:
    """The object of one line, with all `required` fields. Raises DataError, which shows a row `like` those expected."""
    if not line.strip():
        raise DataError(f"{where}: blank line between rows; remove it")
    try:
        row = json.loads(line)
    except UnicodeDecodeError as error:
        raise DataError(f"{where}: not UTF-8 ({error.reason}); save the file as UTF-8") from None
    except json.JSONDecodeError as error:
        raise DataError(
            f"{where}: not JSON ({error.msg}, column {error.colno}); each line is one JSON object"
        ) from None
    except RecursionError:
        raise DataError(f"{where}: lists or objects are nested too deep to be read; flatten them") from None
    except ValueError as error:  # a whole number of more digits than Python converts
        raise DataError(f"{where}: a number cannot be read ({error}); write it as a string") from None
    if not isinstance(row, dict):
        raise DataError(f"{where}: {_kind(row)}, expected an object such as {like}")
    for key in required:
        if key not in row:
            raise DataError(f"{where}: no field {key!r}; the line has {_names(row)}; add it")
    return row


def text_field(row: Mapping[str, Any], key: str, where: str) -> str:
    """A field that must be there and be a string that is not blank."""
    if key not in row:
        raise DataError(f"{where}: no field {key!r}; the line has {_names(row)}; add it")
    value = row[key]
    if not isinstance(value, str):
        raise DataError(f"{where}: field {key!r} is {_kind(value)}, expected a string; put it in quotes")
    if not value.strip():
        raise DataError(f"{where}: field {key!r} is blank; fill it or remove the line")
    return value


def id_field(row: Mapping[str, Any], where: str, default: str) -> str:
    """The field `id`, a string or a whole number; `default` where there is none."""
    value = row.get("id")
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return default if value is None else text_field(row, "id", where)


def _names(row: Mapping[str, Any]) -> str:
    return ", ".join(repr(key) for key in row) or "no fields"


def _kind(value: object) -> str:
    names = {str: "a string", bool: "a boolean", int: "a number", float: "a number", list: "a list", dict: "an object"}
    return "null" if value is None else names.get(type(value), type(value).__name__)
