"""`prmkit eval compare A.json B.json`: two results on the same questions."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from prmkit.errors import ConfigError

console = Console(markup=False, emoji=False)  # texts of data and paths are no markup

NO_INTERVAL = "no interval"


def compare(args: Sequence[str]) -> None:
    """Print the paired comparison and write it as JSON."""
    from prmkit.evaluate.paired import compare_results
    from prmkit.evaluate.run import write_result

    options = _options(args)
    out: Path = options.out or options.first.with_name(f"{options.first.stem}_vs_{options.second.stem}.json")
    if out.suffix != ".json" or out in (options.first, options.second):
        raise ConfigError(f"out = {str(out)!r}: give the comparison a file of its own that ends in .json")
    found = compare_results(options.first, options.second, shared_only=options.shared_only)
    write_result(out, found)
    for side in ("first", "second"):
        about = found[side]
        console.print(
            f"{side}: {about['file']}  ({about['model']}, {about['task']}, {about['template']})", soft_wrap=True
        )
    console.print(comparison_table(found))
    if any(row["found"]["difference"]["low"] is None for row in found["comparisons"]):
        console.print(
            f"{NO_INTERVAL}: one question, or the same difference in all; its spread is unknown", soft_wrap=True
        )
    for key, (x, y) in found["differing_config"].items():
        console.print(f"{key}: {x!r} and {y!r}", soft_wrap=True)
    console.print(f"written: {out}", soft_wrap=True)


def comparison_table(found: Mapping[str, Any]) -> Table:
    """One row for each number: both values, their difference with its 95% interval, p, and who is higher how often."""
    table = Table()
    for column in ("", "questions", "first", "second", "first - second", "p", "higher", "lower"):
        table.add_column(column, justify="left" if not column else "right")
    for row in found["comparisons"]:
        difference = row["found"]["difference"]
        low, high = difference["low"], difference["high"]
        interval = NO_INTERVAL if low is None else f"[{low:+.3f}, {high:+.3f}]"
        table.add_row(
            row["name"],
            str(row["questions"]),
            f"{row['found']['first']:.3f}",
            f"{row['found']['second']:.3f}",
            f"{difference['mean']:+.3f} {interval}",
            f"{row['found']['p_value']:.2g}",
            str(row["better"]),
            str(row["worse"]),
        )
    return table


def _options(args: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="prmkit eval compare", description="Two results of prmkit eval on the same questions, compared in pairs."
    )
    parser.add_argument("first", metavar="A.json", type=Path, help="result of prmkit eval --out")
    parser.add_argument("second", metavar="B.json", type=Path, help="another one, on the same questions")
    parser.add_argument("--out", metavar="FILE", type=Path, help="where to write (default: A_vs_B.json beside A.json)")
    parser.add_argument("--shared-only", action="store_true", help="compare on the questions that both have")
    return parser.parse_args(args)
