"""Whole files: find the format, stream the rows, name every fault by file and line."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import Any

from prmkit.data.formats.base import (
    BadRow,
    Fields,
    Format,
    ReadOptions,
    Row,
    SplitName,
    WriteOptions,
    language_column,
    lookup,
    with_language,
)
from prmkit.data.formats.catalog import FORMATS
from prmkit.data.formats.nearest import NEEDED, nearest_formats, own_id
from prmkit.data.formats.roundtrip import check_kept
from prmkit.data.jsonl import not_finite, parse_line, place, write_jsonl
from prmkit.data.pairs import by_prompt, make_pairs
from prmkit.data.types import Group, Pair, Solution
from prmkit.errors import DataError

ROW = '{"prompt": "...", "steps": ["...", "..."], "labels": [1, 0]}'
"""What a row may look like, for messages."""


LABEL_COLUMNS = ("trl", "openrlhf")
"""Formats with one column of labels, whose type the labels of the whole file decide."""


def read_solutions(
    path: str | Path,
    *,
    format: str = "auto",
    split: SplitName | None = None,
    options: ReadOptions | None = None,
) -> list[Solution]:
    """All solutions of a file, in order. Raises DataError with file and line at the first bad line.

    `split` says how responses that come as one text are cut into steps, by default as their format usually is; it is short
    for `options=ReadOptions(split=...)`.
    """
    found = []
    for item in iter_solutions(path, format, options=_options(options, split)):
        if isinstance(item, BadRow):
            raise DataError(item.reason)
        found.append(item)
    return found


def iter_solutions(
    path: str | Path, format: str = "auto", *, options: ReadOptions | None = None
) -> Iterator[Solution | BadRow]:
    """The solutions of a file, one by one; a bad line gives a `BadRow` and the next lines follow.

    With `format="auto"` the first line that is a JSON object decides. Raises DataError where the file is missing, empty or of
    no known format.
    """
    path = Path(path)
    chosen = lookup(detect_format(path) if format == "auto" else format, FORMATS)
    return (item for result in iter_rows(path, chosen, options or ReadOptions()) for item in _items(result))


def iter_rows(path: Path, format: Format, options: ReadOptions) -> Iterator[list[Solution] | BadRow]:
    """The solutions of each line of a file of JSON lines."""
    return read_rows(_json_rows(path), format, options)


def read_rows(rows: Iterable[Row | BadRow], format: Format, options: ReadOptions) -> Iterator[list[Solution] | BadRow]:
    """The solutions of each row, wherever rows come from."""
    read = format.reader(options)
    for row in rows:
        if isinstance(row, BadRow):
            yield row
            continue
        try:
            _check_format(row.fields, format, row.where)
            found = with_language(row.fields, read(row))
            _check_finite(found, row.where)
            yield found
        except DataError as error:
            yield BadRow(where=row.where, reason=str(error), id=own_id(row.fields))
        except ValueError as error:  # what `Solution` refuses
            reason = f"{row.where}: {error}; mend the line or remove it"
            yield BadRow(where=row.where, reason=reason, id=own_id(row.fields))


def detect_format(path: str | Path) -> str:
    """The name of the format of a file, from the fields of its first readable line."""
    return format_of(_json_rows(Path(path)), str(path))


def format_of(rows: Iterable[Row | BadRow], source: str) -> str:
    """The name of the first format that fits the first readable row."""
    for row in rows:
        if isinstance(row, BadRow):
            continue
        name = _fitting(row.fields)
        if name is None:
            near = nearest_formats(row.fields)
            raise DataError(
                f"{row.where}: no known format has the fields {', '.join(map(repr, row.fields))}; "
                + (f"nearest: {near}; add what is missing, or " if near else "")
                + f"name the format, one of {', '.join(FORMATS)}"
            )
        return name
    record = Path(source).with_suffix(".items.jsonl")
    if Path(source).suffix == ".json" and record.is_file():
        raise DataError(
            f"{source}: no line is a JSON object; {record.name} beside it is the record of that evaluation: give that"
        )
    raise DataError(f"{source}: no line is a JSON object; each line is one JSON object")


def write_solutions(
    path: str | Path, solutions: Iterable[Solution], format: str = "prmkit", *, options: WriteOptions | None = None
) -> int:
    """Write a file and return its number of rows. Raises DataError, and writes nothing, for what the format cannot hold.

    What a format has no place for (ids, separators, ...) is left out; prompt, steps and labels never are, unless the format is
    one of whole responses.
    """
    chosen = lookup(format, FORMATS)
    options = options or WriteOptions()
    if options.label_type == "auto" and chosen.name in LABEL_COLUMNS:
        solutions = list(solutions)
        options = replace(options, label_type=label_type(solutions))
    num_rows = 0

    def rows() -> Iterator[dict[str, Any]]:
        nonlocal num_rows
        for _, row in written(solutions, chosen, options):
            num_rows += 1
            yield row

    write_jsonl(path, rows())
    return num_rows


def written(
    solutions: Iterable[Solution], format: Format, options: WriteOptions
) -> Iterator[tuple[list[Solution], dict[str, Any]]]:
    """Rows, each with the solutions that it holds, checked by reading it back."""
    write = format.writer(options)
    for members in grouped(solutions, format):
        row = language_column(members, options) | write(members)
        check_kept(members, row, format, options)
        yield members, row


def grouped(solutions: Iterable[Solution], format: Format) -> Iterator[list[Solution]]:
    """Neighbours that share a row."""
    if format.group is None:
        return ([solution] for solution in solutions)
    return (list(members) for _, members in groupby(solutions, key=format.group))


def label_type(solutions: Iterable[Solution]) -> Any:
    """`bool` if every label is 0 or 1, else `float`."""
    hard = (None, 0.0, 1.0, "neutral")
    return "bool" if all(label in hard for s in solutions for label in s.labels or ()) else "float"


def read_pairs(path: str | Path, *, format: str = "auto", mode: Any = "all", seed: int = 0) -> list[Pair]:
    """Preferred and refused responses: those of a preference file as they stand, else right with wrong ones of a prompt.

    `mode` and `seed` are those of `make_pairs`, for files that hold outcomes.
    """
    path = Path(path)
    name = detect_format(path) if format == "auto" else format
    solutions = read_solutions(path, format=name)
    if name == "preference":
        return [Pair(chosen=a, rejected=b) for a, b in zip(solutions[::2], solutions[1::2], strict=True)]
    return make_pairs(solutions, mode=mode, seed=seed)


def read_pools(
    path: str | Path, format: str = "auto", *, split: SplitName | None = None, options: ReadOptions | None = None
) -> list[Group[Solution]]:
    """Solutions by prompt: what best-of-N chooses from. Prompts are the same when their ids are; DataError where different
    questions have one id."""
    solutions = read_solutions(path, format=format, split=split, options=options)
    try:
        pools = [tuple(solutions[i] for i in members) for members in by_prompt(solutions)]
    except DataError as error:
        raise DataError(f"{path}: {error}") from error
    return [Group(prompt=members[0].prompt, members=members) for members in pools]


def _options(options: ReadOptions | None, split: SplitName | None) -> ReadOptions:
    options = options or ReadOptions()
    return options if split is None else replace(options, split=split)


def _items(result: list[Solution] | BadRow) -> list[Solution] | list[BadRow]:
    return [result] if isinstance(result, BadRow) else result


def _fitting(fields: Fields) -> str | None:
    return next((name for name, format in FORMATS.items() if format.fits(fields)), None)


def _check_format(fields: Fields, format: Format, where: str) -> None:
    if format.fits(fields):
        return
    other = _fitting(fields)
    if other:
        raise DataError(
            f"{where}: the line has the fields of {other}, but the file is read as {format.name}; put each format in its own file"
        )
    has = ", ".join(map(repr, fields)) or "of nothing"
    lacking = [key for key in NEEDED[format.name] if key not in fields]
    needs = f", which needs {' and '.join(map(repr, lacking))} as well; add it, or" if lacking else ";"
    near = nearest_formats(fields)
    raise DataError(
        f"{where}: the line has the fields {has}, but the file is read as {format.name}{needs} put each format in its own file"
        + (f" (nearest: {near})" if near and not near.startswith(f"{format.name} ") else "")
    )


def _check_finite(found: Sequence[Solution], where: str) -> None:
    """Raises DataError for a number among the further columns that can be read and not be written again."""
    for solution in found:
        for name, value in (*solution.meta.items(), *solution.prompt.meta.items()):
            if (number := not_finite(value)) is not None:
                raise DataError(
                    f"{where}: field {name!r} has the number {number}, which JSON cannot hold; write null, or remove the field"
                )


def _json_rows(path: Path) -> Iterator[Row | BadRow]:
    for index, line in _lines(path):
        where = place(path, index)
        try:
            yield Row(parse_line(line, where, like=ROW), where, place(path.name, index))
        except DataError as error:
            yield BadRow(where=where, reason=str(error))


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Lines with their index; blank ones only where something follows."""
    blank: list[int] = []
    empty = True
    try:
        with path.open("rb") as file:
            for index, line in enumerate(file):
                if index == 0:
                    line = line.removeprefix(b"\xef\xbb\xbf")
                if not line.strip():
                    blank.append(index)
                    continue
                yield from ((i, b"") for i in blank)
                blank, empty = [], False
                yield index, line
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; check the path, it is read relative to {Path.cwd()}") from None
    except IsADirectoryError:
        raise DataError(f"{path}: is a folder, expected a file with one JSON object a line") from None
    if empty:
        raise DataError(f"{path}: the file is empty; it needs at least one line with a JSON object")
