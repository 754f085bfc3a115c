"""What a written row says when it is read again: proof that nothing promised is lost, and a count of what else is."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from prmkit.data.formats.base import Format, ReadOptions, Row, WriteOptions, with_language
from prmkit.data.formats.catalog import FORMATS
from prmkit.data.types import Solution
from prmkit.errors import DataError

FIELDS = (
    "id",
    "prompt",
    "prompt.id",
    "prompt.answer",
    "prompt.task",
    "prompt.meta",
    "steps",
    "text",
    "separator",
    "labels",
    "outcome",
    "answer",
    "language",
    "meta",
)


def check_kept(members: Sequence[Solution], row: Mapping[str, Any], format: Format, options: WriteOptions) -> list[str]:
    """The fields that the row does not give back, over all members. Raises DataError if one of `format.keeps` is among them."""
    looks = next((name for name, other in FORMATS.items() if other.fits(row)), None)
    if looks != format.name:
        raise DataError(
            f"solution {members[0].id!r}: its further columns ({', '.join(map(repr, row))}) would make the row look like "
            f"{looks}; extras = false leaves them out"
        )
    read = format.reader(
        ReadOptions(
            placeholder=options.placeholder,
            outside="ignore",
            preferred_is_right=True,
            problem_end="blank_line",
            keep_alternatives=True,
        )
    )
    try:
        fields = json.loads(json.dumps(row))
        again = with_language(fields, read(Row(fields, "the row as written", members[0].id)))
    except ValueError as error:
        raise DataError(f"solution {members[0].id!r} does not survive {format.name}: {error}") from error
    if len(again) != len(members):
        raise DataError(
            f"solution {members[0].id!r}: {format.name} holds {len(again)} of the {len(members)} solutions that share its row"
        )
    lost: list[str] = []
    for before, after in zip(members, again, strict=True):
        for name in differences(before, after):
            if name == "text" and name not in format.keeps:
                continue  # the steps decide, and the separator is counted by itself
            if format.strips and stripped(field(before, name)) == stripped(field(after, name)):
                name = f"white space around {name}"
            if name in format.keeps:
                raise DataError(
                    f"solution {before.id!r}: {format.name} would not give back its {name} "
                    f"({_short(before, name)} would become {_short(after, name)})"
                )
            lost.append(name)
    return lost


def differences(before: Solution, after: Solution) -> Iterator[str]:
    """Names of the fields in which two solutions differ; what was empty before cannot be lost."""
    for name in FIELDS:
        if _value(before, name) == _value(after, name):
            continue
        old, new = field(before, name), field(after, name)
        if name.endswith("meta"):
            new = {key: value for key, value in new.items() if key in old}  # what was added is no loss
        if old not in (None, "", {}) and old != new:
            yield name


def field(solution: Solution, name: str) -> Any:
    """A field as plain JSON."""
    if name == "prompt":
        return [[message.role, message.content] for message in solution.prompt.messages]
    value = _value(solution, name)
    if name.endswith("meta"):
        return json.loads(json.dumps(dict(value)))
    return list(value) if isinstance(value, tuple) else value


def _value(solution: Solution, name: str) -> Any:
    owner, _, leaf = name.rpartition(".")
    return getattr(solution.prompt if owner else solution, leaf)


def stripped(value: Any) -> Any:
    """Plain JSON with the white space around its texts removed."""
    if isinstance(value, list):
        return [stripped(item) for item in value]
    return value.strip() if isinstance(value, str) else value


def _short(solution: Solution, name: str) -> str:
    text = json.dumps(field(solution, name), ensure_ascii=False)
    return text if len(text) <= 80 else f"{text[:77]}..."
