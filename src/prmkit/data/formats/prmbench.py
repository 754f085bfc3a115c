"""PRMBench (arXiv:2501.03124): a right solution and one into which errors were put, in one row."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from prmkit.data.formats.base import (
    Format,
    Reader,
    ReadOptions,
    Row,
    WriteOptions,
    Writer,
    extras,
    hard_labels,
    has,
    list_field,
    prompt_of,
    rest,
    shown,
    texts_field,
    user_text,
)
from prmkit.data.formats.outcomes import row_of_id
from prmkit.data.jsonl import text_field
from prmkit.data.types import Solution
from prmkit.errors import DataError

KEYS = ("original_question", "modified_question", "original_process", "modified_process", "error_steps")
ADDED = ("part", "error_steps_outside")


def _reader(options: ReadOptions) -> Reader:
    """`{"original_question", "modified_question", "original_process", "modified_process", "error_steps", "classification",
    "idx", "modified_steps", "reason", "question"}`. `error_steps` counts from 1.

    Two solutions: `original` (every step right) and `modified` (wrong where `error_steps` says so, right elsewhere);
    `meta["part"]` says which, and every other field is in the `meta` of both.
    """
    seen: Counter[str] = Counter()

    def read(row: Row) -> list[Solution]:
        fields, where = row.fields, row.where
        idx, kind = fields.get("idx", row.name), fields.get("classification")
        name = f"{idx}/{kind}" if kind else str(idx)
        seen[name] += 1  # a problem may come back with another solution
        name = name if seen[name] == 1 else f"{name}#{seen[name]}"
        meta = rest(fields, *KEYS)
        steps = texts_field(fields, "modified_process", where)
        wrong, outside = _error_steps(list_field(fields, "error_steps", where), len(steps), options, where)
        modified = Solution(
            id=f"{name}/modified",
            prompt=prompt_of(text_field(fields, "modified_question", where)),
            steps=steps,
            labels=tuple(0.0 if k + 1 in wrong else 1.0 for k in range(len(steps))),
            meta=meta | {"part": "modified"} | ({"error_steps_outside": outside} if outside else {}),
        )
        if not options.original:
            return [modified]
        right = texts_field(fields, "original_process", where)
        original = Solution(
            id=f"{name}/original",
            prompt=prompt_of(text_field(fields, "original_question", where)),
            steps=right,
            labels=(1.0,) * len(right),
            meta=meta | {"part": "original"},
        )
        return [original, modified]

    return read


def _error_steps(values: Sequence[object], count: int, options: ReadOptions, where: str) -> tuple[list[int], list[int]]:
    """Those that the solution has, and those that it does not."""
    inside: list[int] = []
    outside: list[int] = []
    for value in values:
        if isinstance(value, bool) or not isinstance(value, int):
            raise DataError(f"{where}: error_steps has {shown(value)}, expected whole numbers, counted from 1")
        (inside if 1 <= value <= count else outside).append(value)
    if outside and options.outside == "refuse":
        raise DataError(
            f"{where}: error step {outside[0]} of a solution with {count} steps (counted from 1); mend the line, "
            "or leave such steps out, as the official evaluation does, with prmkit data convert --outside ignore"
        )
    return inside, outside


def _writer(options: WriteOptions) -> Writer:
    def write(solutions: Sequence[Solution]) -> dict[str, Any]:
        if [solution.meta.get("part") for solution in solutions] != ["original", "modified"]:
            raise DataError(
                f"solution {solutions[0].id!r}: prmbench rows hold an original and a modified solution, told apart by "
                "meta['part']; choose a format with one solution in a row"
            )
        original, modified = solutions
        if not all(hard_labels(original, "prmbench")):
            raise DataError(f"solution {original.id!r}: every step of an original solution in prmbench is right")
        wrong = [k + 1 for k, right in enumerate(hard_labels(modified, "prmbench")) if not right]
        return {
            "original_question": user_text(original, "prmbench"),
            "modified_question": user_text(modified, "prmbench"),
            "original_process": list(original.steps),
            "modified_process": list(modified.steps),
            "error_steps": [*wrong, *modified.meta.get("error_steps_outside", [])],
            **extras(modified, options, *KEYS, *ADDED),
        }

    return write


PRMBENCH = Format(
    name="prmbench",
    fits=has("original_process", "modified_process", "error_steps"),
    reader=_reader,
    writer=_writer,
    group=row_of_id,
)
