"""From rows to the prompts of an evaluation set."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from prmkit.config_io import nearest
from prmkit.data.chat import read_messages
from prmkit.data.types import Message, Prompt
from prmkit.errors import ConfigError, DataError
from prmkit.tasks.columns import row_columns
from prmkit.tasks.library.answers import plain
from prmkit.tasks.library.own import own_program, own_turns
from prmkit.tasks.library.spec import TaskSpec, first_field, pick, question_text
from prmkit.tasks.library.templates import Template
from prmkit.tasks.rows import Row, read_rows

PUBLISHED = "hub"
"""As a source: the data set that the task's entry names."""


@dataclass(frozen=True, kw_only=True)
class EvalSet:
    """What is asked in an evaluation, and what made it."""

    spec: TaskSpec
    part: str
    """The chosen part, such as a language; empty: all of it."""
    source: str
    """Path or hub name that the rows came from."""
    template: Template
    prompts: list[Prompt]
    left_out: dict[str, list[str]] = field(default_factory=dict)
    """Category -> its values that are in the source and in no prompt, because of the limit."""


def read_set(
    spec: TaskSpec, source: str, template: Template, *, part: str = "", split: str = "", limit: int = 0
) -> EvalSet:
    """The questions of a task, from a local path or from a data set on the hub.

    `source` = "hub" is the published data set. A file without a column for the part is taken to hold that part alone.
    Raises ConfigError where nothing says which rows, DataError with the row's place for a row that cannot be read and
    where no row is left.
    """
    place = _source(spec, source, part)
    rows = [row for row in read_rows(place, split=split or spec.split) if spec.keep is None or spec.keep(row.fields)]
    rows = _of_part(rows, spec, part, place)
    prompts = _prompts(rows[:limit] if limit else rows, spec, template, part)
    if not prompts:
        raise DataError(f'{place}: no row belongs to the task "{spec.name}"; check that this is its file')
    left_out = _left_out(rows, prompts, spec, part) if len(prompts) < len(rows) else {}
    return EvalSet(spec=spec, part=part, source=place, template=template, prompts=prompts, left_out=left_out)


def _left_out(rows: Sequence[Row], prompts: Sequence[Prompt], spec: TaskSpec, part: str) -> dict[str, list[str]]:
    """Values of categories that rows have and prompts have not."""
    there = {pair for prompt in prompts for pair in prompt.meta["categories"].items()}
    every = dict.fromkeys(pair for row in rows for pair in _categories(row, spec, part).items())
    found: dict[str, list[str]] = {}
    for name, value in every:
        if (name, value) not in there:
            found.setdefault(name, []).append(value)
    return found


def read_prompt(row: Row, spec: TaskSpec, template: Template, part: str = "") -> Prompt:
    """The prompt of one row. Raises DataError.

    Its `meta` has `question`, `categories`, `verifier` (which kind judges it), `data_source` and what that judge needs; for
    one's own rows also their further columns.
    """
    messages = _turns(row, spec)
    made = _made(row, spec)
    question = messages[-1].content if messages else made.messages[-1].content if made else question_text(row, spec)
    return Prompt(
        id=_id(row, spec, question, part),
        messages=messages or template.messages(question),
        answer=made.answer if made else _answer(row, spec),
        task=spec.name,
        meta={
            "question": question,
            "categories": _categories(row, spec, part),
            "verifier": "code" if made else spec.judge,
            "data_source": spec.name,
            **(_columns(row, spec) if spec.own_rows else {}),
            **(made.meta if made else {}),
        },
    )


def _turns(row: Row, spec: TaskSpec) -> tuple[Message, ...] | None:
    """Turns that are asked as they are."""
    if spec.own_rows:
        return own_turns(row, spec)
    own = row.fields.get("messages") if spec.read_row is None else None
    return None if own is None else read_messages(own, row.where)


def _columns(row: Row, spec: TaskSpec) -> dict[str, Any]:
    used = (name.removesuffix("?") for names in (*spec.question, *spec.answer) for name in names.split("+"))
    return row_columns(row.fields, used)


def _made(row: Row, spec: TaskSpec) -> Prompt | None:
    """The prompt of a programming task as `prmkit.verify.code` makes it."""
    if spec.own_rows:
        return own_program(row, spec)
    if spec.read_row is None:
        return None
    try:
        return spec.read_row(row.fields)
    except (DataError, KeyError, TypeError, ValueError) as error:
        raise DataError(f"{row.where}: no row of {spec.title}: {error}; check that this is its file") from None


def _answer(row: Row, spec: TaskSpec) -> str:
    found = first_field(row, spec.answer, "reference")
    name = next(name for name in spec.answer if pick(row.fields, name) is not None)
    return (spec.read_answer or plain)(found, f"{row.where}: field {name!r}")


def part_of(name: str, spec: TaskSpec) -> str:
    """The part that `task:part` asks for; empty where the name has none. Raises ConfigError for one that is not there."""
    part = name.partition(":")[2]
    if ":" in name and part not in spec.parts:
        known = f"{nearest(part, spec.parts)}; all: {', '.join(spec.parts)}" if spec.parts else "it has no parts"
        raise ConfigError(f'task.name = "{name}": {spec.title} has no part "{part}"; {known}')
    return part


def _source(spec: TaskSpec, source: str, part: str) -> str:
    if source and source != PUBLISHED:
        return source
    hint = f', or "{PUBLISHED}" for {spec.hub} (needs the extra hub)' if spec.hub else ""
    if not source:
        raise ConfigError(
            f"task.test is empty: set it to a file with the rows of {spec.title} (fields {_fields(spec)}){hint}"
        )
    if not spec.hub:
        raise ConfigError(f'task.test = "{PUBLISHED}", but {spec.title} has no data set there; set task.test to a file')
    if "{part}" in spec.hub and not part:
        raise ConfigError(
            f'task.name = "{spec.name}": the hub has one data set for each of {", ".join(spec.parts)}; choose one, such as '
            f'"{spec.name}:{next(iter(spec.parts))}"'
        )
    return spec.hub.replace("{part}", part)


def _fields(spec: TaskSpec) -> str:
    return f"{' or '.join(spec.question) or spec.answer_form}{'; ' if spec.answer else ''}{' or '.join(spec.answer)}"


def _of_part(rows: list[Row], spec: TaskSpec, part: str, place: str) -> list[Row]:
    if not part or not any(spec.part_field in row.fields for row in rows):
        return rows
    wanted = (part, spec.parts[part])
    kept = [row for row in rows if row.fields.get(spec.part_field) in wanted]
    if not kept:
        there = ", ".join(sorted({str(row.fields.get(spec.part_field)) for row in rows}))
        raise DataError(f'{place}: no row is of the part "{part}"; its rows are of {there}')
    return kept


def _prompts(rows: Sequence[Row], spec: TaskSpec, template: Template, part: str) -> list[Prompt]:
    """Ids that come from the text are numbered where a question is asked twice; other ids must differ."""
    prompts, seen = [], Counter[str]()
    for row in rows:
        prompt = read_prompt(row, spec, template, part)
        seen[prompt.id] += 1
        if seen[prompt.id] > 1:
            if _has_id(row, spec):
                raise DataError(
                    f"{row.where}: a second row with the id {prompt.id!r}; make ids unique or remove the row"
                )
            prompt = replace(prompt, id=f"{prompt.id}-{seen[prompt.id]}")
        prompts.append(prompt)
    return prompts


def _has_id(row: Row, spec: TaskSpec) -> bool:
    values = [pick(row.fields, name) for name in spec.id]
    own = [name for name in spec.id if name != spec.part_field]
    return bool(spec.id) and all(isinstance(v, (str, int)) for n, v in zip(spec.id, values, strict=True) if n in own)


def _id(row: Row, spec: TaskSpec, question: str, part: str) -> str:
    """From the row's own fields, else from its question: never from its place, so that it survives a shuffle."""
    if _has_id(row, spec):
        codes = {value: code for code, value in spec.parts.items()}
        values = ((pick(row.fields, name), name == spec.part_field) for name in spec.id)
        named: Iterable[Any] = ((codes.get(value, value) or part) if is_part else value for value, is_part in values)
        return "/".join([spec.name, *filter(None, map(str, named))])
    return f"{spec.name}/{hashlib.sha256(question.encode()).hexdigest()[:12]}"


def _categories(row: Row, spec: TaskSpec, part: str) -> dict[str, str]:
    found = {name: pick(row.fields, path) for name, path in spec.categories.items()}
    if spec.languages:
        names = {value: spec.languages[code] for code, value in spec.parts.items()} | dict(spec.languages)
        language = found.get("language") or part
        found["language"] = names.get(language, language)
    return {name: str(value).strip() for name, value in found.items() if value not in (None, "")}
