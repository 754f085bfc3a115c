"""Formats of whole responses: UltraInteract rollouts, preference and unpaired data."""

from __future__ import annotations

import json
from collections.abc import Hashable, Sequence
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
    extras,
    has,
    list_field,
    one,
    prompt_field,
    prompt_of,
    rest,
    shown,
    texts_field,
    truth_field,
    turns_of,
    user_text,
)
from prmkit.data.formats.first_error import hard_outcome
from prmkit.data.formats.splitting import split_text
from prmkit.data.jsonl import id_field, text_field
from prmkit.data.types import Message, Prompt, Solution
from prmkit.errors import DataError

WHOLE = frozenset({"prompt", "text"})
ULTRA_KEYS = ("prompt", "completions", "correctness")
UNPAIRED_KEYS = ("id", "prompt", "completion", "response", "label")
PREFERENCE_KEYS = ("id", "prompt", "chosen", "rejected", "preferred")


def needs_outcome(solution: Solution, name: str) -> bool:
    """The outcome as true or false; refused where it is soft or not known."""
    found = hard_outcome(solution, "outcome", name)
    if not found:
        raise DataError(
            f"solution {solution.id!r} has no outcome, which {name} needs; verify its answer, "
            "or outcome_from_labels = true counts a solution as right when all its steps are"
        )
    return found["outcome"]


def _ultra_reader(options: ReadOptions) -> Reader:
    """`{"dataset", "prompt", "completions": [response, ...], "correctness": [bool, ...]}`: a solution for each response.

    `correctness` may be longer than `completions`; what is too much is ignored, as in ImplicitPRM's own scripts.
    """

    def read(row: Row) -> list[Solution]:
        fields, where = row.fields, row.where
        texts = texts_field(fields, "completions", where)
        verdicts = list_field(fields, "correctness", where)[: len(texts)]
        check_counts(verdicts, texts, where, "values of 'correctness'")
        prompt = prompt_of(text_field(fields, "prompt", where), meta=rest(fields, *ULTRA_KEYS))
        found = []
        for k, (text, verdict) in enumerate(zip(texts, verdicts, strict=True)):
            if not isinstance(verdict, bool):
                raise DataError(f"{where}: correctness[{k}] is {shown(verdict)}, expected true or false")
            steps, separator = split_text(text, options.split or "auto")
            found.append(
                Solution(id=f"{row.name}/{k}", prompt=prompt, steps=steps, separator=separator, outcome=float(verdict))
            )
        return found

    return read


def _ultra_writer(options: WriteOptions) -> Writer:
    def write(solutions: Sequence[Solution]) -> dict[str, Any]:
        return {
            "prompt": user_text(solutions[0], "ultrainteract"),
            "completions": [solution.text for solution in solutions],
            "correctness": [needs_outcome(solution, "ultrainteract") for solution in solutions],
            **(rest(solutions[0].prompt.meta, *ULTRA_KEYS) if options.extras else {}),
        }

    return write


def same_prompt(solution: Solution) -> Hashable:
    """Neighbours that answer one prompt share a row, which has one place for what is said of the prompt."""
    prompt = solution.prompt
    return prompt.id, prompt.answer, json.dumps(dict(prompt.meta), sort_keys=True, default=str)


def _unpaired_reader(options: ReadOptions) -> Reader:
    """`{"prompt", "completion", "label": bool}` (KTO), or ImplicitPRM's `{"response": [user, assistant], "label": bool}`."""

    def read(row: Row) -> list[Solution]:
        fields, where = row.fields, row.where
        if "response" in fields and "completion" not in fields:
            turns = turns_of(fields["response"], where, "response")
        else:
            turns = [*prompt_field(fields, "prompt", where), _completion(fields, "completion", where)]
        return [
            _solution(
                turns, id_field(fields, where, row.name), truth_field(fields, "label", where), options, where,
                rest(fields, *UNPAIRED_KEYS),
            )
        ]  # fmt: skip

    return read


def _solution(
    turns: Sequence[Message], id: str, right: bool | None, options: ReadOptions, where: str, meta: dict[str, Any]
) -> Solution:
    *before, last = turns
    if not before or last.role != "assistant":
        raise DataError(f"{where}: a response is one turn of the assistant after the prompt's turns; mend the turns")
    steps, separator = split_text(last.content, options.split or "auto")
    outcome = None if right is None else float(right)
    return Solution(id=id, prompt=prompt_of(before), steps=steps, separator=separator, outcome=outcome, meta=meta)


def _completion(fields: Fields, key: str, where: str) -> Message:
    value = fields.get(key)
    if isinstance(value, list):
        turns = turns_of(value, where, key)
        if len(turns) != 1 or turns[0].role != "assistant":
            raise DataError(
                f"{where}: {key!r} must be a text or one turn of the assistant; put the others into 'prompt'"
            )
        return turns[0]
    return Message(role="assistant", content=text_field(fields, key, where))


def _unpaired_writer(options: WriteOptions) -> Writer:
    def write(solutions: Sequence[Solution]) -> dict[str, Any]:
        solution = one(solutions)
        return {
            **_as_given(solution.prompt, completion=solution.text),
            "label": needs_outcome(solution, "unpaired"),
            **extras(solution, options, *UNPAIRED_KEYS),
        }

    return write


def _as_given(prompt: Prompt, **texts: str) -> dict[str, Any]:
    """Texts where the prompt is one question, else turns."""
    if len(prompt.messages) == 1 and prompt.messages[0].role == "user":
        return {"prompt": prompt.messages[0].content, **texts}
    turns = [{"role": message.role, "content": message.content} for message in prompt.messages]
    return {"prompt": turns, **{key: [{"role": "assistant", "content": text}] for key, text in texts.items()}}


def _preference_reader(options: ReadOptions) -> Reader:
    """`{"prompt", "chosen", "rejected"}`, as texts or turns; without `prompt`, it is what both conversations begin with.

    Two solutions, the chosen one first; `meta["preferred"]` says which is which.
    """

    def read(row: Row) -> list[Solution]:
        fields, where = row.fields, row.where
        chosen, rejected = _conversations(fields, where)
        name, meta = id_field(fields, where, row.name), rest(fields, *PREFERENCE_KEYS)
        return [
            _solution(
                turns, f"{name}/{part}", preferred if options.preferred_is_right else None, options, where,
                meta | {"preferred": preferred},
            )
            for turns, part, preferred in ((chosen, "chosen", True), (rejected, "rejected", False))
        ]  # fmt: skip

    return read


def _conversations(fields: Fields, where: str) -> tuple[list[Message], list[Message]]:
    if "prompt" in fields:
        prompt = prompt_field(fields, "prompt", where)
        both = []
        for key in ("chosen", "rejected"):
            value = fields.get(key)
            turns = turns_of(value, where, key) if isinstance(value, list) else [_completion(fields, key, where)]
            both.append(turns if turns[:-1] == prompt else [*prompt, *turns])
    else:
        both = [turns_of(fields.get(key), where, key) for key in ("chosen", "rejected")]
    chosen, rejected = both
    if chosen[:-1] != rejected[:-1]:
        raise DataError(f"{where}: chosen and rejected differ before their last turn; both must answer one prompt")
    return chosen, rejected


def _preference_writer(options: WriteOptions) -> Writer:
    def write(solutions: Sequence[Solution]) -> dict[str, Any]:
        parts = [solution.meta.get("preferred") for solution in solutions]
        if parts != [True, False]:
            raise DataError(
                f"solution {solutions[0].id!r}: preference rows hold a chosen and a rejected solution; "
                "make pairs of right and wrong ones first (prmkit data convert does)"
            )
        chosen, rejected = solutions
        return {
            **_as_given(chosen.prompt, chosen=chosen.text, rejected=rejected.text),
            **{
                key: value
                for key, value in extras(chosen, options, *PREFERENCE_KEYS).items()
                if _same(rejected, key, value)
            },
        }

    return write


def _same(solution: Solution, key: str, value: object) -> bool:
    return key in solution.meta and solution.meta[key] == value


def row_of_id(solution: Solution) -> Hashable:
    """Neighbours whose ids agree before the last slash share a row."""
    return solution.id.rpartition("/")[0] or solution.id


def _is_unpaired(fields: Fields) -> bool:
    return "label" in fields and ("response" in fields or ("prompt" in fields and "completion" in fields))


ULTRAINTERACT = Format(
    name="ultrainteract",
    fits=has("prompt", "completions", "correctness"),
    reader=_ultra_reader,
    writer=_ultra_writer,
    keeps=WHOLE | {"outcome"},
    group=same_prompt,
)
UNPAIRED = Format(
    name="unpaired", fits=_is_unpaired, reader=_unpaired_reader, writer=_unpaired_writer, keeps=WHOLE | {"outcome"}
)
PREFERENCE = Format(
    name="preference",
    fits=has("chosen", "rejected"),
    reader=_preference_reader,
    writer=_preference_writer,
    keeps=WHOLE,
    group=row_of_id,
)
