"""The pipeline: records through the steps, and the folder that comes out."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tomli_w

from prmkit.curate.config import PrepareConfig
from prmkit.curate.programs import READ, leave_out_programs
from prmkit.curate.read import Unread, named_source
from prmkit.curate.record import Dropped, Outcome, Record, Step
from prmkit.data.jsonl import not_finite, write_jsonl
from prmkit.errors import CheckpointError, ConfigError, DataError
from prmkit.evaluate.run import data_hash


@dataclass(frozen=True, kw_only=True)
class StepCount:
    """What one step did."""

    name: str
    records_in: int
    kept: int
    dropped: Counter[str]
    """Reason -> records, the most frequent first."""
    notes: Counter[str] = field(default_factory=Counter)
    warning: str = ""


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """What went in, what came out, and what did not."""

    rows: int
    read_sha256: str
    """Of the questions and answers that came in, as `prmkit eval` hashes its questions."""
    kept: list[Record]
    dropped: list[tuple[str, Dropped]]
    """(step, drop), in the order of the steps."""
    unread: list[Unread]
    counts: list[StepCount]
    samples: list[dict[str, Any]]


def prepare(
    records: Sequence[Record],
    unread: Sequence[Unread],
    steps: Sequence[Step],
    on_step: Callable[[StepCount], None] = lambda count: None,
) -> Prepared:
    """Leave out programs, and run the steps in order.

    Raises DataError when nothing is left, naming the step that dropped the last.
    """
    left, counts = list(records), []
    dropped: list[tuple[str, Dropped]] = []
    samples: list[dict[str, Any]] = []
    for step in (*leave_out_programs(records), *steps):
        outcome = step.run(left)
        _check_complete(step.name, left, outcome)
        reasons = Counter(drop.reason for drop in outcome.dropped)
        count = StepCount(
            name=step.name,
            records_in=len(left),
            kept=len(outcome.kept),
            dropped=Counter(dict(sorted(reasons.items(), key=lambda item: (-item[1], item[0])))),
            notes=Counter({name: number for name, number in outcome.notes.items() if number}),
            warning=outcome.warning,
        )
        on_step(count)
        counts.append(count)
        if not outcome.kept:
            raise DataError(_nothing_left(count, outcome, unread, counts))
        left = outcome.kept
        dropped += [(step.name, drop) for drop in outcome.dropped]
        samples += outcome.samples
    return Prepared(
        rows=len(records) + len(unread),
        read_sha256=data_hash([record.prompt() for record in records]),
        kept=left,
        dropped=dropped,
        unread=list(unread),
        counts=counts,
        samples=samples,
    )


def _check_complete(name: str, records: Sequence[Record], outcome: Outcome) -> None:
    """No step may lose a record, or make one up: by id and place, so that one in two places does not stand for another."""
    before = Counter(map(_identity, records))
    after = Counter(map(_identity, [*outcome.kept, *(drop.record for drop in outcome.dropped)]))
    assert before == after, (
        f"step {name}: {len(records)} records in, {after.total()} out; lost: {list((before - after).elements())[:3]}, "
        f"made up: {list((after - before).elements())[:3]}"
    )


def _identity(record: Record) -> tuple[str, str]:
    return record.id, record.where


def _nothing_left(count: StepCount, outcome: Outcome, unread: Sequence[Unread], counts: Sequence[StepCount]) -> str:
    if not count.records_in:
        why = f" The first: {unread[0].reason}" if unread else ""
        return f"nothing is left: none of {len(unread)} rows could be read.{why}"
    first = outcome.dropped[0]
    if count.name == READ:
        return (
            f"nothing is left: all {count.records_in} questions are programs. The first, {first.record.where}: {first.detail}. "
            "Only questions whose answers are mathematics or words are prepared"
        )
    reasons = ", ".join(f"{reason} {number}" for reason, number in count.dropped.items())
    before = "; ".join(f"{c.name} kept {c.kept} of {c.records_in}" for c in counts[:-1])
    own = ":" in count.name
    return (
        f'nothing is left: step "{count.name}" dropped all {count.records_in} questions that came to it ({reasons}). The first, '
        f"{first.record.where}: {first.detail or first.reason}. "
        f"{f'Before it {before}. ' if before else ''}Leave it out of steps"
        f"{'' if own else f', or change its section [{count.name}]'}"
    )


def check_out(config: PrepareConfig) -> Path:
    """The folder to write. Raises ConfigError where it is not named, or is there with something in it."""
    if not config.out:
        raise ConfigError('out = "" is empty; set --out to a folder to write')
    if not config.source:
        raise ConfigError("source is empty; set --source to one or more files of questions")
    out = Path(config.out).expanduser()
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"{out} exists already, and nothing is overwritten; set out to another folder, or remove it")
    try:  # before hours of sampling, not after
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"out = {config.out!r} cannot be written: {error}; set it to another folder") from error
    return out


def write_folder(out: Path, done: Prepared, config_toml: str, config: PrepareConfig) -> None:
    """Write the folder aside and rename it, so that it is whole or not there.

    Raises CheckpointError when it cannot be written, DataError when a step left a number that JSON has not.
    """
    aside = out.with_name(f".{out.name}.part")
    try:
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(parents=True)
        write_jsonl(aside / "prompts.jsonl", map(_finite, map(prompt_row, done.kept)))
        write_jsonl(aside / "dropped.jsonl", map(_finite, _dropped_rows(done)))
        if done.samples:
            write_jsonl(aside / "samples.jsonl", map(_finite, done.samples))
        counts = json.dumps(counts_json(done, config), indent=1, ensure_ascii=False, allow_nan=False)
        (aside / "counts.json").write_text(counts + "\n", encoding="utf-8")
        (aside / "config.toml").write_text(config_toml, encoding="utf-8")
        if any(record.judge == "qa" for record in done.kept):
            (aside / "task.toml").write_text(tomli_w.dumps(QA_TASK), encoding="utf-8")
        os.replace(aside, out)
    except OSError as error:
        raise CheckpointError(
            f"{out}: the result could not be written: {error}. Free some space or set out to another path; what was sampled "
            "is kept"
        ) from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)


QA_TASK = {"name": "prepared", "judge": "qa", "question": ["question"], "answer": ["answer"]}
"""With answers in words, the task that `prmkit rl` reads the prompts by."""


def prompt_row(record: Record) -> dict[str, Any]:
    """A line of prompts.jsonl, as the task `math` reads it."""
    row: dict[str, Any] = {"id": record.id, "question": record.question, "answer": record.answer}
    if record.solution is not None:
        row["solution"] = record.solution
    if record.messages is not None:
        row["messages"] = [{"role": message.role, "content": message.content} for message in record.messages]
    others = {key: value for key, value in record.kept_fields.items() if key not in row}
    return {**row, **others, "prepare": {"source": record.where, **record.found}}


def _finite(row: dict[str, Any]) -> dict[str, Any]:
    """The same row. Raises DataError for NaN or infinity in it, which can only come from a step of one's own."""
    if (value := not_finite(row)) is not None:
        raise DataError(
            f"{row['id']}: a step left the number {value} in this record, which JSON cannot hold; have the step give None"
        )
    return row


def _dropped_rows(done: Prepared) -> Iterable[dict[str, Any]]:
    for unread in done.unread:
        yield {
            "step": READ,
            "reason": "unreadable",
            "detail": unread.reason,
            "source": unread.where,
            "row": unread.line,
        }
    for step, drop in done.dropped:
        record = drop.record
        yield {
            "step": step,
            "reason": drop.reason,
            "detail": drop.detail,
            "source": record.where,
            "id": record.id,
            **drop.more,
            **({"prepare": dict(record.found)} if record.found else {}),
            "row": dict(record.row),
        }


def counts_json(done: Prepared, config: PrepareConfig) -> dict[str, Any]:
    """Rows in, what each step did to them, prompts out; and the hashes of what was read and written."""
    steps = [
        {
            "name": count.name,
            "in": count.records_in,
            "kept": count.kept,
            "dropped": dict(count.dropped),
            **({"notes": dict(count.notes)} if count.notes else {}),
            **({"warning": count.warning} if count.warning else {}),
        }
        for count in done.counts
    ]
    return {
        "rows": done.rows,
        "unreadable": len(done.unread),
        "steps": steps,
        "prompts": len(done.kept),
        "source_sha256": {text: file_hash(named_source(text, "source").place) for text in config.source},
        "against_sha256": {
            text: file_hash(named_source(text, "contamination.against").place) for text in config.contamination.against
        },
        "read_sha256": done.read_sha256,
        "prompts_sha256": _rows_hash(map(prompt_row, done.kept)),
    }


def file_hash(place: str) -> str:
    """SHA-256 of a file's bytes; empty for what is no file."""
    path = Path(place).expanduser()
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""


def _rows_hash(rows: Iterable[Mapping[str, Any]]) -> str:
    """SHA-256 of rows as they are written."""
    digest = hashlib.sha256()
    for row in rows:
        digest.update(json.dumps(row, ensure_ascii=False).encode("utf-8", "surrogatepass") + b"\n")
    return digest.hexdigest()
