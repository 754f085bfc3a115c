"""Step rewards for every solution in a file: streaming, resumable by id, and what cannot be scored is named.

    rows -> windows of some thousand -> any StepScorer -> scores, in the order of the rows; errors beside them

The numbers of a row depend a little on the rows that share its forward pass. A run that goes on therefore scores the window
it was cut off in as a whole, and writes what is missing of it: on one machine's CPU the file gets the bytes that it would
have had without the cut.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, TypeAlias

from prmkit.data.formats import FORMATS, BadRow, ReadOptions, WriteOptions, detect_format
from prmkit.data.formats.base import lookup
from prmkit.data.formats.files import iter_rows
from prmkit.data.step_scores import aggregates
from prmkit.data.types import Solution, StepRewards, TokenRewards
from prmkit.errors import DataError, ModelError, PrmkitError
from prmkit.evaluate.ledger import append
from prmkit.evaluate.score_files import Done, ScoreFiles, solution_hash
from prmkit.protocols import StepScorer, Unscored

Row: TypeAlias = tuple[int, Solution | BadRow]
"""A line of the source, from 1, and what stands on it. Some formats hold several solutions on one line."""


class ScoringIncomplete(PrmkitError):
    """A scoring run is finished, but some rows have no score."""


@dataclass(frozen=True, kw_only=True)
class Tally:
    """How a run ended."""

    scored: int
    failed: int


def source_rows(path: Path, format: str = "auto", options: ReadOptions | None = None) -> Iterator[Row]:
    """The solutions of a file and its bad lines, one by one.

    Raises DataError where the file is missing, empty or of no known format; ConfigError for a format that is not known.
    """
    known = lookup(detect_format(path) if format == "auto" else format, FORMATS)
    for line, result in enumerate(iter_rows(path, known, options or ReadOptions()), 1):
        yield from ((line, item) for item in ([result] if isinstance(result, BadRow) else result))


def survey(rows: Iterable[Row], source: str) -> int:
    """The number of rows; refuses, before any model is loaded, a source in which an id stands twice.

    Raises DataError naming both lines: scores are told apart by id, and a run goes on by it.
    """
    line_of: dict[str, int] = {}
    num_rows = 0
    for line, row in rows:
        num_rows += 1
        if not isinstance(row, Solution):
            continue
        if row.id in line_of:
            raise DataError(
                f"{source}:{line}: the id {row.id!r} stands on line {line_of[row.id]} already; give each solution an id of "
                "its own"
            )
        line_of[row.id] = line
    return num_rows


def score_rows(
    rows: Iterable[Row],
    scorer: StepScorer,
    files: ScoreFiles,
    done: Done,
    *,
    window: int,
    model: str,
    texts: bool = True,
    on_rows: Callable[[int], None] = lambda num_rows: None,
) -> Tally:
    """Score what is not done yet and append it to the files; `on_rows` is told how many rows are behind.

    Memory holds one window of rows. Each window goes to the scorer in one call, which sorts and packs it by length.
    """
    scored, failed, behind = len(done.ids), done.failed, 0
    for part in _windows(rows, window):
        missing = [_is_missing(row, done) for row in part]
        if any(missing):
            results = _score_window([row for _, row in part if isinstance(row, Solution)], scorer, model)
            lines = [_result(row, results, model, texts) for row, wanted in zip(part, missing, strict=True) if wanted]
            errors, scores = ([line for line in lines if ("reason" in line) is bad] for bad in (True, False))
            append(files.errors, errors)
            append(files.out, scores)
            scored, failed = scored + len(scores), failed + len(errors)
        behind += len(part)
        on_rows(behind)
    return Tally(scored=scored, failed=failed)


def scored_row(solution: Solution, rewards: StepRewards, *, model: str, texts: bool = True) -> dict[str, Any]:
    """One line of the scores: the solution as it was read, and what the model says of its steps.

    `solution_sha256` says which prompt and steps were scored (see `solution_hash`), also where they are not repeated.
    `rewards` are those of single steps, of the `kind` named; `cumulative` their prefix sums, which for log-ratios are the
    values of the prefixes; `aggregates` min, prod, last, mean and sum (see `data.step_scores.aggregate`). Token rewards follow
    where there are any, under the names that recorded rollouts of a run use.
    """
    row: dict[str, Any] = {"id": solution.id}
    if texts:
        row |= FORMATS["prmkit"].writer(WriteOptions())([solution])
    return row | {
        "solution_sha256": solution_hash(solution),
        "model": model,
        "kind": rewards.kind,
        "rewards": list(rewards.values),
        "cumulative": list(rewards.cumulative),
        "aggregates": dict(aggregates(rewards)),
        **({} if rewards.tokens is None else _tokens(rewards.tokens, texts)),
    }


def _tokens(tokens: TokenRewards, texts: bool) -> dict[str, Any]:
    return {
        "token_rewards": list(tokens.values),
        **({"tokens": list(tokens.texts)} if texts else {}),
        "token_ends": list(tokens.ends),
        "step_of_token": list(tokens.step_of_token),
    }


def _score_window(solutions: Sequence[Solution], scorer: StepScorer, model: str) -> dict[str, StepRewards | Unscored]:
    """Results by id, of all solutions of a window: what shares a batch is then the same in every run."""
    results = scorer.score_all(solutions)
    if len(results) != len(solutions):
        raise ModelError(f"{model}: {len(results)} results for {len(solutions)} solutions; a scorer gives one for each")
    return {solution.id: result for solution, result in zip(solutions, results, strict=True)}


def _result(row: Row, results: Mapping[str, StepRewards | Unscored], model: str, texts: bool) -> dict[str, Any]:
    """A line of the scores, or one of the errors: those have a `reason`."""
    line, item = row
    if isinstance(item, BadRow):
        return {"line": line, "id": item.id, "reason": item.reason}
    result = results[item.id]
    if isinstance(result, Unscored):
        return {"line": line, "id": item.id, "reason": result.reason}
    if len(result.values) != len(item.steps):
        reason = f"{model} gave {len(result.values)} rewards for {len(item.steps)} steps; a PRM gives one for each"
        return {"line": line, "id": item.id, "reason": reason}
    return scored_row(item, result, model=model, texts=texts)


def _is_missing(row: Row, done: Done) -> bool:
    line, item = row
    return not (done.knows_line(line) if isinstance(item, BadRow) else done.knows(line, item.id))


def _windows(rows: Iterable[Row], size: int) -> Iterator[list[Row]]:
    stream = iter(rows)
    while part := list(islice(stream, size)):
        yield part
