"""Columns of one's own rows: what a row says beside its question and its answer goes to the verifier, in `Prompt.meta`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

RESERVED = ("id", "messages", "question", "answer", "solution", "solutions", "categories", "verifier", "prepare")
"""Names of prmkit's own, or of what a task reads itself: a column of such a name is not handed on."""


def row_columns(fields: Mapping[str, Any], used: Iterable[str] = ()) -> dict[str, Any]:
    """What goes into `Prompt.meta` as it stands: all but the reserved names, those that the task has `used`, and values that
    JSON cannot hold (pictures of a parquet file), of which no verdict could be kept."""
    left_out = {*RESERVED, *(name.partition(".")[0] for name in used)}
    return {name: value for name, value in fields.items() if name not in left_out and _is_json(value)}


def task_hint(fields: Mapping[str, Any]) -> str:
    """For the end of a message, where a row looks like those of another task; empty where it does not."""
    if isinstance(fields.get("reward_model"), Mapping):
        return '; rows of verl and PRIME, with prompt and reward_model, are read by task.name = "verl"'
    if any(fields.get(name) for name in ("tests", "input_output", "public_tests")):
        return '; programming problems with tests are read by task.name = "code"'
    return ""


def _is_json(value: object) -> bool:
    if value is None or isinstance(value, str | bool | int | float):
        return True
    try:
        json.dumps(value)
    except (TypeError, ValueError):
        return False
    return True
