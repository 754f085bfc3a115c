"""The record of a long evaluation: one line a question, appended as it is judged, and what may not change meanwhile.

For `out = results/a.json` the record is `results/a.items.jsonl`, and `results/a.meta.json` says what made it. Neither holds
a time, so a run that was killed and gone on with ends in the bytes of one that was not. Lines of which the verifier broke are
replaced when they are judged again: the file is then written aside and renamed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prmkit.data.types import Prompt
from prmkit.errors import DataError
from prmkit.evaluate.ledger import (
    append,
    has_lines,
    hold,
    note_writer,
    read_sidecar,
    refuse_other_settings,
    refuse_unexplained,
    rewrite,
    whole_lines,
)
from prmkit.evaluate.responses import Question, read_question, record_json
from prmkit.evaluate.run import write_result
from prmkit.tasks.library.maths import LANGUAGES


@dataclass(frozen=True, kw_only=True)
class Record:
    """The files of one evaluation."""

    out: Path
    """The result, written when all questions are judged."""

    @property
    def items(self) -> Path:
        """One line for each judged question, in the order of the questions."""
        return self.out.with_suffix(".items.jsonl")

    @property
    def meta(self) -> Path:
        """What made the items."""
        return self.out.with_suffix(".meta.json")

    def open(
        self, prompts: Sequence[Prompt], identity: Mapping[str, Any], written_by: Mapping[str, Any]
    ) -> dict[str, Question]:
        """What is judged already, by id; a half-written last line is cut off. New files are begun where nothing is judged.

        `identity` may not change between the runs that write one record; `written_by` (versions, commit) may, and every
        change is noted. The record is this process's from then on. Raises ConfigError when another process has it, and naming the
        keys that differ, DataError for a damaged record.
        """
        hold(self.items)
        meta = read_sidecar(self.meta, self.items)
        if meta is None:
            refuse_unexplained(self.items, self.meta)
        if meta is None or not has_lines(self.items):  # a run that failed before its first answer binds nobody
            self.out.parent.mkdir(parents=True, exist_ok=True)
            if self.items.exists():  # empty, or half of its first line
                self.items.unlink()
            write_result(self.meta, {**identity, "written_by": [{"from_question": 1, **written_by}]})
            return {}
        refuse_other_settings(self.out, self.items, self.meta, meta, identity)
        done, is_old = self._read_items({prompt.id: prompt for prompt in prompts})
        if is_old:
            rewrite(self.items, map(_line, done.values()))
        if len(done) < len(prompts):
            note_writer(self.meta, meta, written_by, from_question=len(done) + 1)
        return done

    def add(self, questions: Iterable[Question]) -> None:
        """Append judged questions, and see them to the disk. Raises CheckpointError when it is full."""
        append(self.items, map(_line, questions))

    def replace(
        self,
        done: Mapping[str, Question],
        judged: Sequence[Question],
        written_by: Mapping[str, Any],
        *,
        judged_again: int,
    ) -> None:
        """Write the record anew, aside and then renamed, with these questions in place of those of `done` with their ids.

        Where other versions than the last noted ones judge them, that is noted first, with `judged_again`, how many they judge
        in all. Raises CheckpointError when it cannot be written; the old record is whole then.
        """
        meta = read_sidecar(self.meta, self.items)
        assert meta is not None, "open comes first"
        note_writer(self.meta, meta, written_by, judged_again=judged_again)
        now = {**done, **{question.prompt.id: question for question in judged}}
        rewrite(self.items, (_line(now[name]) for name in done))

    def written_by(self) -> list[dict[str, Any]]:
        """Which versions wrote from which question on, and which judged so many questions again."""
        meta = read_sidecar(self.meta, self.items)
        assert meta is not None, "open comes first"
        found: list[dict[str, Any]] = meta["written_by"]
        return found

    def _read_items(self, prompts: Mapping[str, Prompt]) -> tuple[dict[str, Question], bool]:
        """The judged questions, and whether a line is of before lines held what was asked."""
        done: dict[str, Question] = {}
        is_old = False
        for where, row in whole_lines(self.items):
            prompt = prompts.get(str(row.get("id")))
            if prompt is None or prompt.id in done:
                raise DataError(f"{where}: no question of this run, or one that stands there already; remove the line")
            done[prompt.id] = read_question(prompt, row, where)
            is_old = is_old or "prompt" not in row
        return done, is_old


def _line(question: Question) -> dict[str, Any]:
    """A line of the record: what was asked, the turns as they were put, and the judged responses.

    With the prompt in it the file is a pool of solutions by itself, the format `prmkit_eval` of `prmkit score` and others.
    """
    prompt = question.prompt
    asked = {
        "messages": [{"role": message.role, "content": message.content} for message in prompt.messages],
        "answer": prompt.answer,
        "task": prompt.task,
        "language": next((code for code, name in LANGUAGES.items() if name == question.categories.get("language")), ""),
    }
    return {"id": prompt.id, "prompt": asked, **record_json(question)}
