"""What the tests of `prmkit data prepare` share: records out of plain words, and the command in a folder."""

from __future__ import annotations

import atexit
import json
import time
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from prmkit.cli.main import main
from prmkit.config import VerifierConfig
from prmkit.curate.record import Outcome, Record
from prmkit.data.types import Group, Prompt, Rollout, SamplingParams
from prmkit.verify import make_verifier


@cache
def verifier() -> Any:
    """The default verifier; its workers start only where mathematics has to be compared."""
    made = make_verifier(VerifierConfig())
    atexit.register(made.close)
    return made


def record(question: str, answer: str = "5", name: str = "", **more: Any) -> Record:
    return Record(id=name or question, where=f"q.jsonl:{name or question}", question=question, answer=answer, **more)


def reasons(outcome: Outcome) -> dict[str, str]:
    """Id of each dropped record -> reason."""
    return {drop.record.id: drop.reason for drop in outcome.dropped}


def kept(outcome: Outcome) -> list[str]:
    return [record.id for record in outcome.kept]


def is_linear(run: Callable[[int], object], count: int) -> bool:
    """Whether four times the count takes far less than 16 times the time; the best of three, as other programs run too."""

    def seconds(size: int) -> float:
        taken = []
        for _ in range(3):
            started = time.process_time()
            run(size)
            taken.append(time.process_time() - started)
        return min(taken)

    return seconds(4 * count) < 10 * max(seconds(count), 0.05)


def write(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def prepare(folder: Path, *args: str) -> int:
    """The command, into `folder/out`."""
    return main(["data", "prepare", f"--out={folder / 'out'}", *args])


class Speaker:
    """A sampler that says what `answers` has for a question, and counts what it is asked."""

    def __init__(self, answers: Mapping[str, Sequence[str | None]], *, cut_after: int = 10**9) -> None:
        self.answers, self.asked, self.cut_after = answers, list[str](), cut_after

    def sample(self, prompts: Sequence[Prompt], *, n: int, params: SamplingParams, seed: int) -> list[Group[Rollout]]:
        groups = []
        for prompt in prompts:
            if len(self.asked) == self.cut_after:
                raise KeyboardInterrupt
            text = prompt.messages[-1].content
            self.asked.append(text)
            said = next(found for question, found in self.answers.items() if question in text)
            members = [_rollout(prompt, said[k % len(said)]) for k in range(n)]
            groups.append(Group(prompt=prompt, members=members))
        return groups


def _rollout(prompt: Prompt, text: str | None) -> Rollout:
    return Rollout(
        prompt_id=prompt.id,
        prompt_token_ids=(),
        token_ids=(),
        logprobs=(),
        token_ends=(),
        text=text or "",
        finish="stop" if text is not None else "error",
        failure="" if text is not None else "the server is away",
    )
