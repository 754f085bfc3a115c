"""Evaluation sets as data: one table entry each. Nothing here is downloaded unless `task.test = "hub"` asks for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

from prmkit.config_io import nearest, read_toml
from prmkit.errors import ConfigError
from prmkit.tasks.library import answers
from prmkit.tasks.library.facts import FACTS
from prmkit.tasks.library.maths import MATHS
from prmkit.tasks.library.own import OWN
from prmkit.tasks.library.programs import PROGRAMS
from prmkit.tasks.library.read import EvalSet, part_of, read_prompt, read_set
from prmkit.tasks.library.spec import Judge, TaskSpec
from prmkit.tasks.library.templates import TEMPLATES, Template, load_template

LIBRARY: dict[str, TaskSpec] = {spec.name: spec for spec in (*MATHS, *PROGRAMS, *FACTS, *OWN)}
"""Every task that is known by name."""

READERS = {
    "text": answers.plain,
    "hashes": answers.after_hashes,
    "boxed": answers.boxed,
    "list": answers.joined,
    "yes_no": answers.yes_no,
}
"""How the reference is read, as a user's own task names it."""


def find_task(name: str) -> tuple[TaskSpec, str]:
    """The entry of a task and its chosen part: `math500`, `mgsm:de`, or the path of a .toml file that describes one.

    Raises ConfigError for a name that is not known.
    """
    if name.endswith(".toml"):
        return own_task(Path(name).expanduser()), ""
    spec = LIBRARY.get(name.partition(":")[0])
    if spec is None:
        raise ConfigError(f'task.name = "{name}" is no task; {nearest(name, [*LIBRARY, "arithmetic"])}')
    return spec, part_of(name, spec)


def own_task(path: Path) -> TaskSpec:
    """A user's own entry: a TOML file with the keys of OWN_KEYS. Raises ConfigError with the key that is wrong."""
    values: dict[str, Any] = read_toml(path)
    for key, value in values.items():
        if key not in OWN_KEYS:
            raise ConfigError(f'{path}: unknown key "{key}"; {nearest(key, OWN_KEYS)}')
        if not _fits(value, OWN_KEYS[key]):
            raise ConfigError(f"{path}: {key} = {value!r}, but it must be {OWN_KEYS[key]}")
    for key in ("name", "question", "answer"):
        if key not in values:
            raise ConfigError(f'{path}: missing key "{key}"; a task says its name and where question and answer are')
    judge = values.get("judge", "math")
    if judge not in get_args(Judge):
        raise ConfigError(f'{path}: judge = "{judge}", but it must be one of {", ".join(get_args(Judge))}')
    if values.get("read", "text") not in READERS:
        raise ConfigError(f'{path}: read = "{values["read"]}", but it must be one of {", ".join(READERS)}')
    if "read" in values and judge == "code":
        raise ConfigError(f'{path}: read = "{values["read"]}", but tests have forms of their own; remove it')
    return TaskSpec(
        name=values["name"],
        title=values.get("title", values["name"]),
        version=values.get("version", "1"),
        source=values.get("source", str(path)),
        judge=judge,
        question=tuple(values["question"]),
        answer=tuple(values["answer"]),
        read_answer=READERS[values.get("read", "text")],
        id=tuple(values.get("id", ("id",))),
        own_rows=True,
        categories=values.get("categories", {}),
        template=values.get("template", OWN_TEMPLATES[judge]),
        hub=values.get("hub", ""),
        split=values.get("split", "test"),
    )


OWN_TEMPLATES = {"math": "qwen-boxed", "qa": "short-answer", "code": "plain"}
"""How a user's own task asks unless it says otherwise, by its judge."""

OWN_KEYS = {
    "name": "a text",
    "title": "a text",
    "version": "a text",
    "source": "a text",
    "judge": "a text",
    "question": "a list of fields",
    "answer": "a list of fields",
    "read": "a text",
    "id": "a list of fields",
    "categories": "a table of texts",
    "template": "a text",
    "hub": "a text",
    "split": "a text",
}
"""The keys of a user's own task, and what each is."""


def _fits(value: object, wanted: str) -> bool:
    if wanted == "a text":
        return isinstance(value, str) and bool(value)
    parts = list(value.values()) if isinstance(value, dict) else value
    of_kind = isinstance(value, list if wanted == "a list of fields" else dict)
    return of_kind and isinstance(parts, list) and bool(parts) and all(isinstance(part, str) and part for part in parts)


__all__ = [
    "LIBRARY",
    "TEMPLATES",
    "EvalSet",
    "Judge",
    "TaskSpec",
    "Template",
    "find_task",
    "load_template",
    "own_task",
    "read_prompt",
    "read_set",
]
