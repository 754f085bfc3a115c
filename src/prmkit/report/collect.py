"""Reading run folders: what a run wrote, checked line by line, as plain values.

A run that was killed may leave a cut last line; that line alone is passed over. Anything else that cannot be read is a
`DataError` with its file and line: a report never guesses.
"""

from __future__ import annotations

import json
import math
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from prmkit.errors import DataError

Row = Mapping[str, float | None]
"""One line of numbers; it always has `step`."""
Verdict = Literal["right", "wrong", "undecided"]

RIGHT_FROM = 0.5
"""An outcome of at least this counts as right."""
STATUSES = ("ok", "unparsed", "timeout", "error")
FINISHES = ("stop", "length", "error")


@dataclass(frozen=True, kw_only=True, slots=True)
class Response:
    """One recorded rollout with what was thought of it. Lists that are there have one entry per token."""

    prompt_id: str
    prompt: str
    answer: str
    text: str
    token_ends: tuple[int, ...]
    step_of_token: tuple[int, ...]
    outcome: float | None
    status: str
    detail: str
    finish: str
    process_rewards: tuple[float, ...] | None
    advantages: tuple[float, ...] | None
    first_error_step: int | None
    """The truth where the task knows it; -1 says that no step is wrong."""

    @property
    def verdict(self) -> Verdict:
        """`undecided` when the verifier gave no outcome, which is not the same as wrong."""
        if self.outcome is None:
            return "undecided"
        return "right" if self.outcome >= RIGHT_FROM else "wrong"


@dataclass(frozen=True, kw_only=True, slots=True)
class Recorded:
    """The rollouts that a run recorded at one step."""

    step: int
    responses: tuple[Response, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """A run folder, read."""

    name: str
    config: Mapping[str, Any]
    config_text: str
    metrics: tuple[Row, ...]
    """By step, each step once; never empty."""
    timings: tuple[Row, ...]
    evals: tuple[Row, ...]
    recorded: tuple[Recorded, ...]
    """First, middle and last recorded step."""


def read_runs(folders: Sequence[Path]) -> tuple[Run, ...]:
    """Read run folders, each under a name of its own.

    Raises DataError when no folder is given, one is given twice, or one cannot be read.
    """
    if not folders:
        raise DataError("no run folder was given: name at least one, such as runs/demo")
    resolved = [Path(folder).resolve() for folder in folders]
    for index, folder in enumerate(resolved):
        if folder in resolved[:index]:
            raise DataError(f"{folders[index]}: this run folder was given twice; name each run once")
    names = run_names(resolved)
    return tuple(read_run(Path(f), name=n) for f, n in zip(folders, names, strict=True))


def run_names(folders: Sequence[Path]) -> list[str]:
    """The last part of each path, with as many parents before it as it takes to tell the runs apart."""
    depth = 1
    names = [f.name for f in folders]
    while len(set(names)) < len(names):
        depth += 1
        names = ["/".join(f.parts[-depth:]) for f in folders]
    return names


def read_run(folder: Path, *, name: str) -> Run:
    """Read one run folder: config.toml and metrics.jsonl must be there, the rest may be.

    Raises DataError for a missing folder or file, and for a line that cannot be read.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: there is no such run folder")
    for required in ("config.toml", "metrics.jsonl"):
        if not (folder / required).is_file():
            raise DataError(f"{folder}: {required} is missing, so this is not a run folder; give the folder of a run")
    config, config_text = _read_config(folder / "config.toml")
    metrics = read_rows(folder / "metrics.jsonl")
    if not metrics:
        raise DataError(f"{folder / 'metrics.jsonl'}: no complete line yet; wait for the run's first step to end")
    return Run(
        name=name,
        config=config,
        config_text=config_text,
        metrics=metrics,
        timings=read_rows(folder / "timings.jsonl"),
        evals=read_rows(folder / "eval.jsonl"),
        recorded=_read_recorded(folder / "rollouts"),
    )


def read_rows(path: Path) -> tuple[Row, ...]:
    """The lines of a file of numbers, by step; of a step that appears twice the later line counts. No file, no rows."""
    if not path.exists():
        return ()
    by_step: dict[int, Row] = {}
    for place, row in _read_jsonl(path):
        for key, value in row.items():
            if value is not None and not _is_number(value):
                raise DataError(f'{place}: "{key}" is {value!r}; a metric is a finite number or null')
        by_step[_step(row, place)] = row
    return tuple(by_step[step] for step in sorted(by_step))


def _read_config(path: Path) -> tuple[dict[str, Any], str]:
    try:
        text = path.read_bytes().decode()
        return tomllib.loads(text), text
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise DataError(f"{path}: not valid TOML: {error}") from error


def _read_jsonl(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (file:line, object). Only a last line without its newline may be cut."""
    lines = path.read_bytes().split(b"\n")
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        place = f"{path}:{number}"
        try:
            value = json.loads(line)
        except ValueError as error:  # covers text that is not UTF-8
            if number == len(lines):
                return
            raise DataError(f"{place}: not valid JSON: {error}. Remove the line or restore the file.") from error
        if not isinstance(value, dict):
            raise DataError(f"{place}: expected one JSON object a line, found {type(value).__name__}")
        yield place, value


def _read_recorded(folder: Path) -> tuple[Recorded, ...]:
    files = {int(m[1]): f for f in folder.glob("step_*.jsonl") if (m := re.fullmatch(r"step_(\d+)\.jsonl", f.name))}
    steps = sorted(step for step, file in files.items() if file.stat().st_size)
    if not steps:
        return ()
    chosen = sorted({steps[0], steps[len(steps) // 2], steps[-1]})
    read = (Recorded(step=s, responses=tuple(_response(*line) for line in _read_jsonl(files[s]))) for s in chosen)
    return tuple(recorded for recorded in read if recorded.responses)


def _response(place: str, row: dict[str, Any]) -> Response:
    _step(row, place)
    ends = _list(row, "token_ends", place, integers=True)
    text = _text(row, "text", place)
    if list(ends) != sorted(ends) or any(not 0 <= end <= len(text) for end in ends):
        raise DataError(f'{place}: "token_ends" must rise from 0 to the {len(text)} characters of "text"')
    outcome = row.get("outcome")
    if outcome is not None and not _is_number(outcome):
        raise DataError(f'{place}: "outcome" is {outcome!r}; expected a finite number or null')
    error_step = row.get("first_error_step")
    if error_step is not None and not (_is_integer(error_step) and error_step >= -1):
        raise DataError(f'{place}: "first_error_step" is {error_step!r}; expected a step number, -1 or null')
    return Response(
        prompt_id=_text(row, "prompt_id", place),
        prompt=_text(row, "prompt", place),
        answer=_text(row, "answer", place),
        text=text,
        token_ends=tuple(int(end) for end in ends),
        step_of_token=tuple(int(s) for s in _list(row, "step_of_token", place, size=len(ends), integers=True)),
        outcome=outcome,
        status=_choice(row, "status", STATUSES, place),
        detail="" if row.get("detail") is None else _text(row, "detail", place),
        finish=_choice(row, "finish", FINISHES, place),
        process_rewards=_optional_list(row, "process_rewards", place, size=len(ends)),
        advantages=_optional_list(row, "advantages", place, size=len(ends)),
        first_error_step=error_step,
    )


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _step(row: Mapping[str, Any], place: str) -> int:
    step = row.get("step")
    if not isinstance(step, int) or isinstance(step, bool) or step < 0:
        raise DataError(f'{place}: "step" is {step!r}; expected a whole number of 0 or more')
    return step


def _text(row: Mapping[str, Any], key: str, place: str) -> str:
    value = row.get(key)
    if not isinstance(value, str):
        raise DataError(f'{place}: "{key}" is {value!r}; expected text')
    return value


def _choice(row: Mapping[str, Any], key: str, choices: Sequence[str], place: str) -> str:
    value = _text(row, key, place)
    if value not in choices:
        raise DataError(f'{place}: "{key}" is {value!r}; expected one of {", ".join(choices)}')
    return value


def _list(
    row: Mapping[str, Any], key: str, place: str, *, size: int | None = None, integers: bool = False
) -> tuple[float, ...]:
    value = row.get(key)
    kind, accept = ("whole numbers", _is_integer) if integers else ("finite numbers", _is_number)
    if not isinstance(value, list) or not all(map(accept, value)):
        raise DataError(f'{place}: "{key}" must be a list of {kind}, one per token')
    if size is not None and len(value) != size:
        raise DataError(f'{place}: {len(value)} values in "{key}" for {size} tokens')
    return tuple(value)


def _optional_list(row: Mapping[str, Any], key: str, place: str, *, size: int) -> tuple[float, ...] | None:
    return None if row.get(key) is None else _list(row, key, place, size=size)
