"""What an evaluation says on the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rich.table import Table

from prmkit.cli.tables import accuracy_table, interval_text
from prmkit.evaluate.accuracy import Interval
from prmkit.evaluate.names import model_title
from prmkit.evaluate.run import EvaluationResult
from prmkit.evaluate.summary import CUT_OFF_SHARE

MAX_CATEGORY_ROWS = 40
"""More lines are in the result file and on the page."""


def tables(result: EvaluationResult, found: Mapping[str, Any]) -> Iterator[Table]:
    """Accuracy; pass@k and majority@k where there are several samples; one table for each category."""
    yield accuracy_table(model_title(found["config"]["model"], found.get("model", {})), result.accuracy)
    if found["config"]["samples"] > 1:
        yield _at_k_table(found)
    for category in dict.fromkeys(row["category"] for row in found["categories"]):
        rows = [row for row in found["categories"] if row["category"] == category]
        if len(rows) <= MAX_CATEGORY_ROWS:
            yield _category_table(category, rows)


def notes(found: Mapping[str, Any]) -> Iterator[str]:
    """What a reader of the number should know."""
    truncation = found["truncation"]
    if (truncation["sampled_share"] or 0.0) > CUT_OFF_SHARE:
        yield (
            f"{truncation['sampled_share']:.1%} of the sampled responses were cut at max_tokens = "
            f"{truncation['max_tokens']}: raise sampling.max_tokens, or read the number as one of that limit"
        )
    undecided = found["accuracy"]["undecided"]
    if undecided:
        yield f"{undecided} responses could not be judged and are in no number; verdicts and reasons are in the result"


def read_interval(values: Mapping[str, Any] | None) -> Interval | None:
    """An interval of a result file."""
    return None if values is None else Interval(**values)


def _at_k_table(found: Mapping[str, Any]) -> Table:
    table = Table()
    for column in ("k", "pass@k (questions)", "avg@k (questions)", "majority@k (questions)"):
        table.add_column(column, justify="right")
    for k in dict.fromkeys([*found["pass_at_k"], *found["majority_at_k"], *found["avg_at_k"]]):
        row = [found[name].get(k) for name in ("pass_at_k", "avg_at_k", "majority_at_k")]
        table.add_row(k, *(_of_questions(values) for values in row))
    return table


def _of_questions(values: Mapping[str, Any] | None, expected: int | None = None) -> str:
    """An interval, and how many questions it is of, where that is not the number `expected`."""
    found = read_interval(values)
    count = "" if found is None or found.num == expected else f" ({found.num})"
    return f"{interval_text(found)}{count}"


def _category_table(category: str, rows: list[Mapping[str, Any]]) -> Table:
    table = Table()
    for column in (category, "questions", "sampled accuracy", "greedy accuracy", "cut off"):
        table.add_column(column, justify="left" if column == category else "right")
    for row in rows:
        intervals = [_of_questions(row[name], row["questions"]) for name in ("sampled", "greedy")]
        cut_off = "-" if row["truncated_share"] is None else f"{row['truncated_share']:.1%}"
        table.add_row(row["value"], str(row["questions"]), *intervals, cut_off)
    return table
