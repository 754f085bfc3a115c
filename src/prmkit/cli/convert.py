"""`prmkit data convert`: a file of PRM data into another format, and what became of every row."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from prmkit.errors import ConfigError

if TYPE_CHECKING:
    from prmkit.data.convert import Conversion, Source
    from prmkit.data.convert_config import ConvertConfig

SHOWN_BAD_ROWS = 20


def convert(config: ConvertConfig) -> None:
    """Convert and print the counts."""
    from prmkit.data.convert import convert as run

    for key in ("source", "target"):
        if not getattr(config, key):
            raise ConfigError(f'{key} = "" is empty; set --{key} to a file')
    name, source = _source(config)
    done = run(source, config)
    _print(config, name, done)


def _source(config: ConvertConfig) -> tuple[str, Source]:
    """The format's name and the rows, from JSON lines or, for anything else, through `datasets`."""
    from prmkit.data.formats import FORMATS
    from prmkit.data.formats.base import Row
    from prmkit.data.formats.files import detect_format, format_of, iter_rows, read_rows
    from prmkit.tasks.rows import read_rows as read_table

    path, options = Path(config.source).expanduser(), config.read_options
    if (path.is_file() and path.suffix != ".parquet") or path.suffix in (".jsonl", ".json"):
        name = detect_format(path) if config.source_format == "auto" else config.source_format
        return name, lambda: iter_rows(path, FORMATS[name], options)
    table = [Row(*row) for row in read_table(config.source, split=config.source_split)]
    name = format_of(table, config.source) if config.source_format == "auto" else config.source_format
    return name, lambda: read_rows(table, FORMATS[name], options)


def _print(config: ConvertConfig, name: str, done: Conversion) -> None:
    console = Console(soft_wrap=True, highlight=False, markup=False, emoji=False)
    console.print(f"read     {config.source} ({name}): {done.rows_in} rows, {done.solutions_in} solutions")
    console.print(
        f"written  {config.target} ({config.target_format}): {done.rows_out} rows, {done.solutions_out} solutions"
    )
    for reason, count in done.dropped.most_common():
        console.print(f"dropped  {count} solutions: {reason}")
    for lost, count in done.lost.most_common():
        if lost == "steps":  # of the formats that hold a response as one text: all of it is there
            console.print(
                f"recut    {count} solutions: {config.target_format} holds a response as one text, and will cut it into "
                "other steps when it is read"
            )
            continue
        console.print(f"left out {lost} of {count} solutions: {config.target_format} has no place for it")
    if done.need_problem_end:
        console.print(
            f"note     {done.need_problem_end} rows have no single 'Step 1:' between problem and first step: read them with "
            "--problem-end blank_line, or write them with --number-steps true"
        )
    if done.bad:
        console.print(f"skipped  {len(done.bad)} rows that could not be used:")
        for bad in done.bad[:SHOWN_BAD_ROWS]:
            console.print(f"  {bad.reason}")
        if len(done.bad) > SHOWN_BAD_ROWS:
            console.print(f"  and {len(done.bad) - SHOWN_BAD_ROWS} more")
