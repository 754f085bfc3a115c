"""What goes through the steps, and what a step is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from prmkit.data.types import Message, Prompt
from prmkit.tasks.columns import row_columns

OPTIONS = ("choices", "options")
"""Fields of a row that may hold the options of multiple choice."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Record:
    """One question on its way."""

    id: str
    where: str
    """`file:line`, or the data set's name and row."""
    question: str
    answer: str
    """Empty where the row has none (yet)."""
    solution: str | None = None
    messages: tuple[Message, ...] | None = None
    """The row's own turns, the question being the last; None: the question is asked as the task says."""
    judge: Literal["math", "qa"] = "math"
    row: Mapping[str, Any] = field(default_factory=dict)
    """As it was read."""
    kept_fields: Mapping[str, Any] = field(default_factory=dict)
    """Fields of the row that are written again: all but question, answer and solution."""
    found: Mapping[str, Any] = field(default_factory=dict)
    """What steps have found out, by their name; written under `prepare`."""

    def prompt(self) -> Prompt:
        """What `prmkit rl` will hand to the verifier."""
        messages = self.messages or (Message(role="user", content=self.question),)
        meta = {} if self.judge == "math" else {"question": self.question, "verifier": self.judge}
        columns = row_columns(self.kept_fields, ("question", "problem"))
        return Prompt(id=self.id, messages=messages, answer=self.answer, task="math", meta=meta | columns)

    def with_found(self, step: str, value: Any) -> Record:
        """The same record, with what this step has found out."""
        return replace(self, found={**self.found, step: value})

    def changed(self, step: str, *, question: str, answer: str, solution: str | None) -> Record:
        """Another question in its place, without options; what it was stays under `prepare.<step>.was`."""
        was: dict[str, Any] = {"question": self.question, "answer": self.answer}
        was |= {name: self.kept_fields[name] for name in OPTIONS if name in self.kept_fields}
        if self.solution is not None:
            was["solution"] = self.solution
        messages = self.messages
        if messages:
            last = messages[-1].content
            content = last.replace(self.question, question) if self.question in last else question
            messages = (*messages[:-1], replace(messages[-1], content=content))
        kept = {name: value for name, value in self.kept_fields.items() if name not in OPTIONS}
        record = replace(self, question=question, answer=answer, solution=solution, messages=messages, kept_fields=kept)
        return record.with_found(step, {"was": was})


@dataclass(frozen=True, kw_only=True, slots=True)
class Dropped:
    """A record that a step took out."""

    record: Record
    reason: str
    """A short name, by which drops are counted."""
    detail: str = ""
    """A sentence about this record."""
    more: Mapping[str, Any] = field(default_factory=dict)
    """Further fields of its line in dropped.jsonl."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a step made of its records: each of them is kept, changed or not, or dropped."""

    kept: list[Record]
    dropped: list[Dropped] = field(default_factory=list)
    notes: Counter[str] = field(default_factory=Counter)
    """What else was counted, such as changed questions."""
    warning: str = ""
    samples: list[dict[str, Any]] = field(default_factory=list)
    """Sampled responses, for samples.jsonl."""


@dataclass(frozen=True, kw_only=True)
class Step:
    """A name, and a function from records to those kept and those dropped."""

    name: str
    run: Callable[[Sequence[Record]], Outcome]


def one_by_one(judge: Callable[[Record], Record | Dropped]) -> Callable[[Sequence[Record]], Outcome]:
    """A step's function out of one that looks at a single record."""

    def run(records: Sequence[Record]) -> Outcome:
        done = [judge(record) for record in records]
        return Outcome(
            kept=[result for result in done if isinstance(result, Record)],
            dropped=[result for result in done if isinstance(result, Dropped)],
        )

    return run
