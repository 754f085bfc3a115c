"""What prmkit itself has sampled: records of `prmkit eval`, and rollouts that RL runs keep. They are read, never written.

A verdict that was made is the outcome; one that was not (`unparsed`, `timeout`, `error`) leaves it open. A response without a
visible character has no step, so it is left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from typing import Any

from prmkit.data.formats.base import (
    Fields,
    Format,
    Reader,
    ReadOptions,
    Row,
    WriteOptions,
    Writer,
    has,
    list_field,
    optional_unit,
    prompt_field,
    prompt_of,
    shown,
)
from prmkit.data.formats.splitting import parted, split_text
from prmkit.data.jsonl import id_field, text_field
from prmkit.data.types import Prompt, Solution, StepLabel
from prmkit.errors import DataError

STATUSES = ("ok", "unparsed", "timeout", "error", "not_sampled")


def _eval_reader(options: ReadOptions) -> Reader:
    """`{"id", "prompt": {"messages", "answer", "task", "language"}, "sampled": [{"text", "status", "reward", ...}], "greedy"}`.

    The sampled responses of a question, `id/0`, `id/1` and so on. The greedy one was not drawn like them and is no member of
    their pool.
    """

    def read(row: Row) -> list[Solution]:
        fields, where = row.fields, row.where
        name = id_field(fields, where, row.name)
        asked, language = _asked(fields, name, where)
        found = []
        for k, member in enumerate(list_field(fields, "sampled", where)):
            here = f"{where}: sampled[{k}]"
            if not isinstance(member, Mapping):
                raise DataError(f"{here} is {shown(member)}, expected an object")
            text = _text(member, "text", here)
            if _status(member, here) == "not_sampled" or not text.strip():
                continue
            steps, separator = split_text(text, options.split or "auto")
            found.append(
                Solution(
                    id=f"{name}/{k}",
                    prompt=asked,
                    steps=steps,
                    separator=separator,
                    outcome=_outcome(member, "reward", here),
                    answer=_text(member, "extracted", here) if member.get("extracted") is not None else None,
                    language=language,
                    meta={key: member[key] for key in ("status", "detail", "finish") if key in member},
                )
            )
        return found

    return read


def _asked(fields: Fields, name: str, where: str) -> tuple[Prompt, str]:
    """The prompt with the id of its question, and its language."""
    if "prompt" not in fields:
        raise DataError(
            f"{where}: this line of a record is of an earlier prmkit, which kept no questions there; run the same `prmkit eval` "
            "once more, which puts them in and samples nothing that is on record"
        )
    prompt = fields["prompt"]
    if not isinstance(prompt, Mapping):
        raise DataError(f"{where}: field 'prompt' is {shown(prompt)}, expected an object")
    here = f"{where}: prompt"
    made = prompt_of(prompt_field(prompt, "messages", here), id=name, answer=_text(prompt, "answer", here))
    return replace(made, task=text_field(prompt, "task", here)), _text(prompt, "language", here)


def _rollouts_reader(options: ReadOptions) -> Reader:
    """`{"step", "prompt_id", "messages" or "prompt", "answer", "text", "token_ends", "step_of_token", "outcome", "status", ...}`.

    The steps are the run's own, cut at tokens as its rewards were; the white space that ends all of them is the separator.
    Where the task knows the first wrong step, the steps up to it are labelled.
    """

    def read(row: Row) -> list[Solution]:
        fields, where = row.fields, row.where
        text = _text(fields, "text", where)
        if not text.strip():
            return []
        turns = prompt_field(fields, "messages" if "messages" in fields else "prompt", where)
        labels: tuple[StepLabel, ...] | None = None
        if options.split is None:
            pieces, numbers = _own_steps(text, fields, where)
            steps, separator = parted(pieces)
            labels = _labels(numbers, fields, where)
        else:
            steps, separator = split_text(text, options.split)
        return [
            Solution(
                id=row.name,
                prompt=prompt_of(
                    turns, id=text_field(fields, "prompt_id", where), answer=_text(fields, "answer", where)
                ),
                steps=steps,
                separator=separator,
                labels=labels,
                outcome=_outcome(fields, "outcome", where),
                meta={key: fields[key] for key in ("step", "status", "detail", "finish") if key in fields},
            )
        ]

    return read


def _own_steps(text: str, fields: Fields, where: str) -> tuple[list[str], list[int | None]]:
    """The text of each step, and its number in the run; white space that was a step joins the one before, and has none."""
    ends, owners = _whole_numbers(fields, "token_ends", where), _whole_numbers(fields, "step_of_token", where)
    if len(ends) != len(owners) or ends != sorted(ends) or owners != sorted(owners) or not ends or ends[-1] > len(text):
        raise DataError(
            f"{where}: 'token_ends' and 'step_of_token' do not describe one text; take the line as the run wrote it"
        )
    last = {
        owner: max(end for end, _ in group) for owner, group in groupby(zip(ends, owners, strict=True), lambda p: p[1])
    }
    cuts = [0, *list(last.values())[:-1], len(text)]
    pieces: list[str] = []
    numbers: list[int | None] = []
    lead = ""
    for number, start, end in zip(last, cuts, cuts[1:], strict=False):
        piece = text[start:end]
        if piece.strip():
            pieces.append(lead + piece)
            numbers.append(number)
            lead = ""
        elif pieces:
            pieces[-1] += piece
        else:
            lead += piece
    return pieces, numbers


def _labels(numbers: Sequence[int | None], fields: Fields, where: str) -> tuple[StepLabel, ...] | None:
    """Right up to the first wrong step; what follows it, and all where the truth is not known, has no label."""
    first = fields.get("first_error_step")
    if first is None:
        return None
    if isinstance(first, bool) or not isinstance(first, int) or first < -1:
        raise DataError(f"{where}: field 'first_error_step' is {shown(first)}; it must be a step, from 0, -1 or null")
    if first == -1:
        return (1.0,) * len(numbers)
    if first not in numbers:
        return None
    at = numbers.index(first)
    return (*(1.0,) * at, 0.0, *(None,) * (len(numbers) - at - 1))


def _whole_numbers(fields: Fields, key: str, where: str) -> list[int]:
    values = list_field(fields, key, where)
    if not all(isinstance(value, int) and not isinstance(value, bool) and value >= 0 for value in values):
        raise DataError(f"{where}: field {key!r} must be a list of whole numbers, one a token")
    return values


def _outcome(fields: Fields, key: str, where: str) -> float | None:
    """The verdict's reward, where one was made."""
    value = optional_unit(fields, key, where)
    return value if _status(fields, where) == "ok" else None


def _status(fields: Fields, where: str) -> str:
    value = fields.get("status")
    if value not in STATUSES:
        raise DataError(f"{where}: field 'status' is {shown(value)}, not one of {', '.join(STATUSES)}")
    return str(value)


def _text(fields: Fields, key: str, where: str) -> str:
    """A field that is a text, which may be empty; missing is empty."""
    value = fields.get(key, "")
    if not isinstance(value, str):
        raise DataError(f"{where}: field {key!r} is {shown(value)}, expected a text")
    return value


def _no_writer(options: WriteOptions) -> Writer:
    def write(solutions: Sequence[Solution]) -> dict[str, Any]:
        raise DataError(
            f"solution {solutions[0].id!r}: what a command of prmkit sampled is only read, since nobody else has sampled it; "
            "write the format prmkit"
        )

    return write


EVAL = Format(
    name="prmkit_eval",
    fits=has("id", "sampled", "greedy"),
    reader=_eval_reader,
    writer=_no_writer,
    keeps=frozenset(),
    made_by="prmkit eval",
)
ROLLOUTS = Format(
    name="prmkit_rollouts",
    fits=has("prompt_id", "prompt", "text", "token_ends", "step_of_token", "outcome"),
    reader=_rollouts_reader,
    writer=_no_writer,
    keeps=frozenset(),
    made_by="prmkit rl",
)
