"""Records from the rows of question files, whatever their fields are called."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from prmkit.config_io import nearest
from prmkit.curate.choices import option_at
from prmkit.curate.config import PrepareConfig
from prmkit.curate.record import Record
from prmkit.data.chat import read_messages
from prmkit.data.jsonl import id_field, not_finite, parse_line, place
from prmkit.data.types import Message
from prmkit.errors import ConfigError, DataError
from prmkit.tasks.library import LIBRARY, TEMPLATES, TaskSpec, find_task, read_prompt
from prmkit.tasks.library.answers import MARK, joined
from prmkit.tasks.library.spec import pick, question_text
from prmkit.tasks.rows import Row, read_rows

QUESTION = ("question", "problem", "prompt")
ANSWER = ("answer", "final_answer", "expected_answer", "reward_model.ground_truth")
SOLUTION = ("solution",)
"""Where rows of no named task keep theirs; the first that is there counts. `a.b` is field b of the object a."""
CALCULATOR = re.compile(r"<<[^<>]*>>")
"""Annotations of GSM8K."""
ANY = TaskSpec(name="", title="any question", version="1", source="", judge="math", question=QUESTION, answer=ANSWER)


@dataclass(frozen=True, kw_only=True)
class Unread:
    """A row that could not be read, and why."""

    where: str
    reason: str
    line: str
    """As it stands in the file; JSON of the row where it comes from no text file."""


@dataclass(frozen=True, kw_only=True)
class NamedSource:
    """Where rows are, and whose fields they have."""

    spec: TaskSpec
    part: str
    place: str
    """A path, or a data set of the hub."""

    @property
    def name(self) -> str:
        """The task's name and part; the file's where there is none."""
        return ":".join(filter(None, (self.spec.name, self.part))) or Path(self.place).name

    def has(self, fields: Mapping[str, Any]) -> bool:
        """Whether a row belongs to the set, and to the part. A row that names no part belongs to any."""
        spec = self.spec
        if spec.keep is not None and not spec.keep(fields):
            return False
        return not self.part or fields.get(spec.part_field, self.part) in (self.part, spec.parts[self.part])


def named_source(text: str, key: str) -> NamedSource:
    """What `FILE`, `TASK=FILE`, `TASK=hub` or `own.toml=FILE` names. Raises ConfigError for a task that is not known."""
    name, equals, place = text.partition("=")
    if not equals or Path(text).exists():
        return NamedSource(spec=ANY, part="", place=text)
    if name.partition(":")[0] not in LIBRARY and not name.endswith(".toml"):
        raise ConfigError(f'{key}: "{name}" in "{text}" is no task; {nearest(name, LIBRARY)}')
    spec, part = find_task(name)
    if place != "hub":
        return NamedSource(spec=spec, part=part, place=place)
    if not spec.hub or ("{part}" in spec.hub and not part):
        raise ConfigError(
            f'{key} = "{text}": {spec.title} has no single data set on the hub; give a file, or TASK:PART'
        )
    return NamedSource(spec=spec, part=part, place=spec.hub.replace("{part}", part))


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A question of an evaluation set."""

    id: str
    where: str
    question: str
    messages: tuple[Message, ...] | None = None
    """The row's own turns where it has any, the question being the last."""


def read_questions(source: NamedSource, key: str) -> list[Asked]:
    """The question of each row of an evaluation set. Raises DataError that begins with `key`."""
    spec = source.spec
    found = []
    try:
        for row in read_rows(source.place, split=spec.split):
            if not source.has(row.fields):
                continue
            messages = None
            if spec.read_row is not None:
                question = str(read_prompt(row, spec, TEMPLATES["plain"]).meta["question"])
            else:
                question, messages, _ = _question(row, spec)
            found.append(Asked(id=_id(row, spec), where=row.where, question=question, messages=messages))
    except DataError as error:
        raise DataError(f"{key}: {error}") from None
    if not found:
        raise DataError(
            f"{key}: {source.place} has no question of {source.name or spec.title}; check that this is its file"
        )
    return found


def read_records(config: PrepareConfig) -> tuple[list[Record], list[Unread]]:
    """All records of all sources, with ids that differ, and the rows that could not be read (`on_bad = skip`).

    Raises DataError with file and line at the first of those unless `on_bad` is skip, ConfigError for sources that cannot
    go together.
    """
    sources = [named_source(text, "source") for text in config.source]
    judges = {source.spec.judge for source in sources}
    if "code" in judges or len(judges) > 1:
        raise ConfigError(
            f"source: the answers are of the kinds {', '.join(sorted(judges))}; one run prepares questions whose answers are "
            "all compared as mathematics, or all as words (not programs)"
        )
    records: list[Record] = []
    unread: list[Unread] = []
    for source in sources:
        results = list(_rows(source, config))
        if not results:
            raise DataError(f"source: {source.place} has no row of {source.name}; check that this is its file")
        for result in results:
            record = _record(result, source.spec) if isinstance(result, Row) else result
            if isinstance(record, Unread):
                if config.on_bad == "stop":
                    raise DataError(f"{record.reason} (on_bad = skip goes on without such rows)")
                unread.append(record)
                continue
            records.append(record)
    return _with_ids_that_differ(records), unread


def _with_ids_that_differ(records: Sequence[Record]) -> list[Record]:
    """The first of each id keeps it. The others get `-2`, `-3`, ...: the next that no row has, of its own or from here."""
    taken = {record.id for record in records}
    seen: Counter[str] = Counter()
    found = []
    for record in records:
        name = record.id
        seen[name] += 1
        if seen[name] > 1:
            while (other := f"{name}-{seen[name]}") in taken:
                seen[name] += 1
            taken.add(other)
            record = replace(record, id=other)
        found.append(record)
    return found


def _rows(source: NamedSource, config: PrepareConfig) -> Iterator[Row | Unread]:
    """The rows of one source, in order; with `on_bad = skip`, lines of a JSONL file that are no object are `Unread`."""
    path = Path(source.place).expanduser()
    if config.on_bad == "skip" and path.is_file() and path.suffix != ".parquet":
        rows: Iterator[Row | Unread] = _lines(path, config.limit)
    else:
        rows = iter(read_rows(source.place, split=config.split, limit=config.limit))
    return (row for row in rows if isinstance(row, Unread) or source.has(row.fields))


def _lines(path: Path, limit: int) -> Iterator[Row | Unread]:
    lines = path.read_bytes().removeprefix(b"\xef\xbb\xbf").rstrip().split(b"\n")
    for index, line in enumerate(lines[: limit or None]):
        where = place(path, index)
        try:
            yield Row(parse_line(line, where), where, place(path.name, index))
        except DataError as error:
            yield Unread(where=where, reason=str(error), line=line.decode(errors="replace"))


def _record(row: Row, spec: TaskSpec) -> Record | Unread:
    try:
        _check_json(row)
        question, messages, asked_by = _question(row, spec)
        answer, solution, answered_by = _answer(row, spec)
        used = {"id", "messages", "solution", "prepare", *asked_by, *answered_by}
        earlier = {"earlier": row.fields["prepare"]} if "prepare" in row.fields else {}
        return Record(
            id=_id(row, spec),
            where=row.where,
            question=question,
            answer=answer,
            solution=solution,
            messages=messages,
            judge="qa" if spec.judge == "qa" else "math",
            row=row.fields,
            kept_fields={key: value for key, value in row.fields.items() if key not in used},
            found=earlier,
        )
    except DataError as error:
        return Unread(where=row.where, reason=str(error), line=json.dumps(dict(row.fields), default=str))


def _check_json(row: Row) -> None:
    """Raises DataError for what could be read and not be written again."""
    try:
        json.dumps(dict(row.fields), ensure_ascii=False, allow_nan=False).encode()
    except UnicodeEncodeError:
        raise DataError(f"{row.where}: half of a surrogate pair, which UTF-8 cannot hold; mend the text") from None
    except ValueError:
        name, value = next(
            (name, found) for name, value in row.fields.items() if (found := not_finite(value)) is not None
        )
        raise DataError(
            f"{row.where}: field {name!r} has the number {value}, which JSON cannot hold; write null, or remove the field"
        ) from None
    except TypeError as error:
        raise DataError(
            f"{row.where}: a value that JSON lines cannot hold ({error}); change or remove its column"
        ) from None


def _id(row: Row, spec: TaskSpec) -> str:
    """From the fields that the task names, else `id`, else the row's place."""
    values = [pick(row.fields, name) for name in spec.id]
    if spec.id != ("id",) and all(isinstance(value, str | int) and str(value).strip() for value in values):
        return "/".join(map(str, values))
    return id_field(row.fields, row.where, row.name)


def _question(row: Row, spec: TaskSpec) -> tuple[str, tuple[Message, ...] | None, set[str]]:
    """The question, the row's own turns where it has any, and the fields that they stand in.

    A field that is there and blank gives an empty question.
    """
    place = "messages" if "messages" in row.fields else "prompt"
    turns = row.fields.get(place)
    messages = (
        read_messages(turns, row.where) if isinstance(turns, list) and (place == "messages" or spec is ANY) else None
    )
    names = [part.removesuffix("?") for joint in spec.question for part in joint.split("+")]
    there = [name for name in names if name in row.fields and not (messages and name == place)]
    if messages and not there:
        return messages[-1].content, messages, {place}
    if there and all(_blank(row.fields[name]) for name in there):
        return "", messages, {place, *there}
    plain = Row({key: value for key, value in row.fields.items() if not (messages and key == place)}, *row[1:])
    used = next((joint for joint in spec.question if _has(plain, joint)), "")
    return question_text(plain, spec), messages, {part.removesuffix("?") for part in used.split("+")}


def _has(row: Row, joint: str) -> bool:
    """Whether `question_text` finds its question in these fields."""
    return all(name.endswith("?") or not _blank(pick(row.fields, name)) for name in joint.split("+"))


def _answer(row: Row, spec: TaskSpec) -> tuple[str, str | None, set[str]]:
    """Answer (empty where there is none), worked solution, and the field of the answer; GSM8K keeps both in one field.

    A whole number beside a list of options is the place of one, counted from 0, as in MMLU; past the list it is a content.
    """
    solution = _solution(row.fields)
    fields = [name for name in spec.answer if name not in SOLUTION]
    name = next((name for name in fields if not _blank(pick(row.fields, name))), "")
    if not name:
        return "", solution, set()
    value = pick(row.fields, name)
    if spec is ANY and isinstance(value, int) and not isinstance(value, bool) and (at := option_at(value, row.fields)):
        return at, solution, {name}
    if isinstance(value, str) and MARK in value:
        worked, _, answer = value.rpartition(MARK)
        if "\n" not in answer.strip():
            own = CALCULATOR.sub("", value).strip() if worked.strip() else None
            return answer.strip(), solution or own, {name}
    return (spec.read_answer or joined)(value, row.where), solution, {name}


def _solution(fields: Mapping[str, Any]) -> str | None:
    """The first where there are several."""
    value = fields.get("solution")
    if isinstance(value, list):
        value = next((item for item in value if isinstance(item, str) and item.strip()), None)
    return value.strip() if isinstance(value, str) and value.strip() else None


def _blank(value: object) -> bool:
    return value is None or value == [] or (isinstance(value, str) and not value.strip())
