"""What a task of the library is: a row of a table. Field names say where a data set keeps its question and its answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from prmkit.data.types import Prompt
from prmkit.errors import DataError
from prmkit.tasks.columns import task_hint
from prmkit.tasks.rows import Row

Judge = Literal["math", "qa", "code"]
"""What compares a response with the reference: mathematics, short answers in words, or programs that are run."""


@dataclass(frozen=True, kw_only=True)
class TaskSpec:
    """One evaluation set: where it is, how its rows are read, how it is asked and what judges it."""

    name: str
    title: str
    version: str
    """Of this entry: it changes whenever prompts or references made from the same rows change."""
    source: str
    """Paper and home of the data."""
    judge: Judge
    question: tuple[str, ...] = ()
    """Fields that may hold the question, the first that is there counts. `A+B` joins two by a space, `A?+B` leaves A out
    where it is blank."""
    answer: tuple[str, ...] = ()
    """Fields that may hold the reference, the first that is there counts."""
    read_answer: Callable[[Any, str], str] | None = None
    """From the field's value and `file:line` to the reference; None: the text itself."""
    id: tuple[str, ...] = ("id",)
    """Fields that together name a question; the row's place where one is missing."""
    categories: Mapping[str, str] = field(default_factory=dict)
    """Category -> field; `a.b` is field b of the object a. A row without the field has no such category."""
    read_row: Callable[[Mapping[str, Any]], Prompt] | None = None
    """Programs: the task as one user turn, the reference solution and the tests, in place of `question` and `answer`."""
    own_rows: bool = False
    """The rows are the user's own: their further columns go to the verifier (`tasks.columns`), turns in the question's field are
    asked as they are, and a row whose reference is tests is judged by running programs."""
    keep: Callable[[Mapping[str, Any]], bool] | None = None
    """Which rows of the source belong to the set; None: all."""
    template: str = "qwen-boxed"
    """How it is asked unless the configuration says otherwise."""
    answer_form: str = ""
    """What the reference looks like."""
    hub: str = ""
    """Data set on the hub, `owner/name` or `owner/name:config`; `{part}` stands for the chosen part."""
    split: str = "test"
    """The split of the hub's data set, of a folder or of a parquet file."""
    parts: Mapping[str, str] = field(default_factory=dict)
    """Parts that can be asked for as `NAME:PART`, each with the value of `part_field` in its rows."""
    part_field: str = ""
    languages: Mapping[str, str] = field(default_factory=dict)
    """Part -> name of the language, where parts are languages."""


def pick(fields: Mapping[str, Any], path: str) -> Any:
    """The value at `a.b`; None where it is missing."""
    value: Any = fields
    for name in path.split("."):
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


def first_field(row: Row, names: tuple[str, ...], what: str) -> Any:
    """The value of the first of these fields that the row has. Raises DataError where it has none."""
    for name in names:
        value = pick(row.fields, name)
        if value is not None:
            return value
    empty = [name for name in names if name in row.fields]
    if empty:
        raise DataError(f"{row.where}: no {what}: the field {empty[0]!r} is null; mend it or remove the row")
    raise DataError(
        f"{row.where}: no {what}: looked for the fields {', '.join(names)}; the row has {', '.join(row.fields) or 'none'}. "
        f"Rename its fields, or check that this is the file of this task{task_hint(row.fields)}"
    )


def question_text(row: Row, spec: TaskSpec) -> str:
    """The question of a row. Raises DataError where none of the fields has one."""
    for names in spec.question:
        parts = []
        for name in names.split("+"):
            value = pick(row.fields, name.removesuffix("?"))
            if isinstance(value, str) and value.strip():
                parts.append(value.strip())
            elif not name.endswith("?"):
                break
        else:
            return " ".join(parts)
    first_field(row, tuple(name for names in spec.question for name in names.split("+")), "question")
    raise DataError(
        f"{row.where}: the question ({' or '.join(spec.question)}) is blank or no text; mend it or remove the row"
    )
