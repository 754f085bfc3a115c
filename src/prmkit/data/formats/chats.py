"""RLHFlow's chats: the user gives a step, the assistant answers + or -."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from prmkit.data.formats.base import (
    Format,
    Reader,
    ReadOptions,
    Row,
    WriteOptions,
    Writer,
    extras,
    hard_labels,
    has,
    one,
    prompt_of,
    rest,
    turns_of,
    user_text,
)
from prmkit.data.formats.tagged import sign_label, split_prompt
from prmkit.data.jsonl import id_field
from prmkit.data.types import Solution
from prmkit.errors import DataError

KEYS = ("id", "conversations")


def _reader(options: ReadOptions) -> Reader:
    """`{"conversations": [user: problem and step 1, assistant: +, user: step 2, assistant: -, ...]}`.

    Problem and first step are parted before the only `Step 1:`. Where there is none, nothing in the row says where the problem
    ends: a blank line may lie inside it. So such a row needs `problem_end = blank_line` (ProcessBench's script writes so).
    """

    def read(row: Row) -> list[Solution]:
        fields, where = row.fields, row.where
        turns = turns_of(fields["conversations"], where, "conversations")
        for i, turn in enumerate(turns):
            wanted = "assistant" if i % 2 else "user"
            if turn.role != wanted:
                raise DataError(
                    f"{where}: conversations[{i}] is from {turn.role}; user and assistant take turns, "
                    "a step from the user and + or - from the assistant"
                )
        users, assistants = turns[::2], turns[1::2]
        if len(users) != len(assistants):
            raise DataError(
                f"{where}: {len(assistants)} labels for {len(users)} steps (fewer than steps); "
                "the assistant must answer the last step with + or -"
            )
        prompt, first = _split_first(users[0].content, options, where)
        return [
            Solution(
                id=id_field(fields, where, row.name),
                prompt=prompt_of(prompt),
                steps=(first, *(turn.content for turn in users[1:])),
                labels=tuple(sign_label(turn.content, where, k) for k, turn in enumerate(assistants)),
                meta=rest(fields, *KEYS),
            )
        ]

    return read


def _split_first(text: str, options: ReadOptions, where: str) -> tuple[str, str]:
    if text.count(options.response_start) == 1:
        return split_prompt(text, options, where)
    if options.problem_end == "blank_line":
        return _split_at_blank_line(text, where)
    raise DataError(
        f"{where}: {options.response_start!r} occurs {text.count(options.response_start)} times in the first turn, so it is "
        "not clear where the problem ends and step 1 begins; set response_start to another mark, or problem_end = blank_line "
        "where the only blank line parts them and lies in no problem (`prmkit data convert` has both options)"
    )


def needs_problem_end(row: Mapping[str, Any]) -> bool:
    """Whether a written row is read with `problem_end = blank_line` only: no single `Step 1:` parts problem and first step."""
    return str(row["conversations"][0]["content"]).count(ReadOptions().response_start) != 1


def _split_at_blank_line(text: str, where: str) -> tuple[str, str]:
    prompt, _, step = text.partition("\n\n")
    if text.count("\n\n") != 1 or not prompt.strip() or not step.strip():
        raise DataError(
            f"{where}: the first turn has {text.count(chr(10) * 2)} blank lines, and problem_end = blank_line needs exactly one, "
            "between problem and step 1; write 'Step 1:' before the step"
        )
    return prompt, step


def _writer(options: WriteOptions) -> Writer:
    def write(solutions: Sequence[Solution]) -> dict[str, Any]:
        solution = one(solutions)
        prompt, labels = user_text(solution, "rlhflow"), hard_labels(solution, "rlhflow")
        gap = " " if solution.steps[0].startswith("Step 1:") else "\n\n"
        turns = []
        for k, (step, label) in enumerate(zip(solution.steps, labels, strict=True)):
            turns.append({"role": "user", "content": f"{prompt}{gap}{step}" if k == 0 else step})
            turns.append({"role": "assistant", "content": "+" if label else "-"})
        return {"conversations": turns, **extras(solution, options, *KEYS)}

    return write


RLHFLOW = Format(name="rlhflow", fits=has("conversations"), reader=_reader, writer=_writer, strips=True)
