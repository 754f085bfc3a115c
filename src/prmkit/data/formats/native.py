"""prmkit's own format: every field of `Solution`, nothing lost.

Row: `{"id", "prompt": {"id", "messages", "answer", "task", "meta"}, "steps", "separator", "labels", "outcome", "answer",
"language", "meta"}`. All but `prompt` and `steps` may be left out, and `prompt` may be a plain text.

A field that is not known is refused, with one exception: in a row that `prmkit score` wrote, what the model said of the solution
is put aside (`SCORED_KEYS`), so that a scored file can be converted, trained on or scored by another model.
A `separator` of null, or none, is one that is not known.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from prmkit.data.formats.base import (
    Fields,
    Format,
    Reader,
    ReadOptions,
    Row,
    WriteOptions,
    Writer,
    check_counts,
    list_field,
    number_label,
    one,
    optional_unit,
    prompt_field,
    prompt_of,
    shown,
    texts_field,
)
from prmkit.data.jsonl import id_field, text_field
from prmkit.data.types import Prompt, Solution, StepLabel
from prmkit.errors import DataError

KEYS = ("id", "prompt", "steps", "separator", "labels", "outcome", "answer", "language", "meta")
SCORED_KEYS = (
    *("solution_sha256", "model", "kind", "rewards", "cumulative", "aggregates"),
    *("token_rewards", "tokens", "token_ends", "step_of_token"),
)
"""What a scored row has beside its solution. They belong to a model, not to the solution, so a reader leaves them out."""
PROMPT_KEYS = ("id", "messages", "answer", "task", "meta")


def _fits(fields: Fields) -> bool:
    return "steps" in fields and "prompt" in fields


def _is_scored(fields: Fields) -> bool:
    return all(key in fields for key in ("model", "kind", "rewards"))


def _reader(options: ReadOptions) -> Reader:
    def read(row: Row) -> list[Solution]:
        fields, where = row.fields, row.where
        _check_known(fields, (*KEYS, *SCORED_KEYS) if _is_scored(fields) else KEYS, where)
        steps = texts_field(fields, "steps", where)
        return [
            Solution(
                id=id_field(fields, where, row.name),
                prompt=_prompt(fields, where),
                steps=steps,
                separator=None if fields.get("separator") is None else _text(fields, "separator", where, ""),
                labels=_labels(fields, steps, where),
                outcome=optional_unit(fields, "outcome", where),
                answer=None if fields.get("answer") is None else _text(fields, "answer", where, ""),
                language=_text(fields, "language", where, ""),
                meta=_mapping(fields, where),
            )
        ]

    return read


def _writer(options: WriteOptions) -> Writer:
    def write(solutions: Sequence[Solution]) -> dict[str, Any]:
        solution = one(solutions)
        prompt = solution.prompt
        return {
            "id": solution.id,
            "prompt": {
                "id": prompt.id,
                "messages": [{"role": message.role, "content": message.content} for message in prompt.messages],
                "answer": prompt.answer,
                "task": prompt.task,
                "meta": dict(prompt.meta),
            },
            "steps": list(solution.steps),
            "separator": solution.separator,
            "labels": None if solution.labels is None else list(solution.labels),
            "outcome": solution.outcome,
            "answer": solution.answer,
            "language": solution.language,
            "meta": dict(solution.meta),
        }

    return write


FORMAT = Format(
    name="prmkit",
    fits=_fits,
    reader=_reader,
    writer=_writer,
    keeps=frozenset({"id", "prompt", "steps", "separator", "labels", "outcome", "answer", "language", "meta"}),
)


def _prompt(fields: Fields, where: str) -> Prompt:
    value = fields.get("prompt")
    if not isinstance(value, Mapping):
        return prompt_of(prompt_field(fields, "prompt", where))
    here = f"{where}: prompt"
    _check_known(value, PROMPT_KEYS, here)
    plain = prompt_of(
        prompt_field(value, "messages", here),
        id=id_field(value, here, ""),
        answer=_text(value, "answer", here, ""),
        meta=_mapping(value, here),
    )
    return Prompt(
        id=plain.id,
        messages=plain.messages,
        answer=plain.answer,
        task=text_field(value, "task", here) if "task" in value else plain.task,
        meta=plain.meta,
    )


def _labels(fields: Fields, steps: Sequence[str], where: str) -> tuple[StepLabel, ...] | None:
    if fields.get("labels") is None:
        return None
    values = list_field(fields, "labels", where)
    check_counts(values, steps, where)
    return tuple(
        value if value is None or value == "neutral" else number_label(value, where, k)
        for k, value in enumerate(values)
    )


def _text(fields: Fields, key: str, where: str, default: str) -> str:
    value = fields.get(key, default)
    if not isinstance(value, str):
        raise DataError(f"{where}: field {key!r} is {shown(value)}, expected a text")
    return value


def _mapping(fields: Fields, where: str) -> Mapping[str, Any]:
    value = fields.get("meta", {})
    if not isinstance(value, Mapping):
        raise DataError(f"{where}: field 'meta' is {shown(value)}, expected an object")
    return dict(value)


def _check_known(fields: Fields, known: Sequence[str], where: str) -> None:
    unknown = [key for key in fields if key not in known]
    if unknown:
        raise DataError(f"{where}: unknown field {unknown[0]!r}; put what is your own into 'meta'")
