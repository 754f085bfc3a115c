"""A loaded process reward model: solutions in, one reward per step out, whatever the family."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from prmkit.data.chat import token_ends
from prmkit.data.layouts import LaidOut, separated
from prmkit.data.prm_spec import PRMSpec
from prmkit.data.types import Message, Prompt, RewardKind, Solution, StepRewards, TokenRewards
from prmkit.engines.local.microbatches import PADDING, microbatches
from prmkit.errors import DataError, PrmkitError
from prmkit.protocols import Unscored


class Head(Protocol):
    """What a family adds: how a solution becomes tokens, and how its model is read."""

    @property
    def kind(self) -> RewardKind:
        """What the numbers are."""
        ...

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The model's."""
        ...

    @property
    def context(self) -> int | None:
        """The longest sequence that the model was made for; None where its configuration names none."""
        ...

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        ...

    def lay_out(self, solution: Solution) -> Sequence[LaidOut]:
        """The sequences to run; read one after the other, they give the steps in order."""
        ...

    def read(self, rows: Sequence[LaidOut], tokens_per_batch: int) -> list[list[float]]:
        """The numbers read in each row, at most so many tokens in one forward pass."""
        ...


@runtime_checkable
class TokenHead(Protocol):
    """A `Head` whose step rewards are sums over tokens."""

    def read_tokens(self, rows: Sequence[LaidOut], tokens_per_batch: int) -> list[tuple[list[float], list[float]]]:
        """What `read` gives for each row, and the number of each of its response tokens."""
        ...


@dataclass(frozen=True, kw_only=True)
class PRM:
    """A `StepScorer`: see `load_prm`."""

    head: Head
    spec: PRMSpec
    name: str
    """Where it was loaded from; errors name it."""
    tokens_per_batch: int = 16384
    """Largest number of tokens, padding included, in one forward pass (a single longer sequence is run alone)."""
    token_rewards: bool = False
    """Fill `StepRewards.tokens`; the head is a `TokenHead` then (`families.check_token_rewards`)."""

    @property
    def kind(self) -> RewardKind:
        """What its numbers are."""
        return self.head.kind

    def score(self, prompt: str | Sequence[Message] | Prompt, steps: Sequence[str]) -> StepRewards:
        """The rewards of one solution's steps. Raises DataError where it cannot be scored, with the reason."""
        try:
            solution = Solution(id="solution", prompt=as_prompt(prompt), steps=tuple(steps))
        except ValueError as error:
            raise DataError(str(error)) from error
        result = self.score_all([solution])[0]
        if isinstance(result, Unscored):
            raise DataError(result.reason)
        return result

    def score_all(self, solutions: Sequence[Solution]) -> list[StepRewards | Unscored]:
        """One result per solution, in order; the numbers do not depend on which solutions come together.

        `Unscored` are solutions that cannot be laid out, that are longer than the context, and those for which the model's
        output is not finite.
        """
        laid_out = [self._lay_out(solution) for solution in solutions]
        rows = [row for item in laid_out if not isinstance(item, Unscored) for row in item]
        read = iter(self._read(rows))
        results: list[StepRewards | Unscored] = []
        for solution, item in zip(solutions, laid_out, strict=True):
            if isinstance(item, Unscored):
                results.append(item)
            else:
                results.append(self._result(solution, item, [next(read) for _ in item]))
        return results

    def _read(self, rows: Sequence[LaidOut]) -> list[tuple[list[float], list[float]]]:
        """Of each row, the numbers of its steps, and those of its tokens where they are asked for."""
        if not self.token_rewards:
            return [(values, []) for values in self.head.read(rows, self.tokens_per_batch)]
        assert isinstance(self.head, TokenHead), "load_prm refuses token rewards of other families"
        return self.head.read_tokens(rows, self.tokens_per_batch)

    def _lay_out(self, solution: Solution) -> Sequence[LaidOut] | Unscored:
        try:
            rows = self.head.lay_out(solution)
        except PrmkitError as error:
            return Unscored(id=solution.id, reason=str(error))
        longest = max(len(row.token_ids) for row in rows)
        if self.head.context is not None and longest > self.head.context:
            return Unscored(
                id=solution.id,
                reason=f"solution {solution.id!r} has {longest} tokens with its prompt, the context of {self.name} is "
                f"{self.head.context}; shorten it, or use a model with a longer context",
            )
        return rows

    def _result(
        self, solution: Solution, rows: Sequence[LaidOut], read: Sequence[tuple[list[float], list[float]]]
    ) -> StepRewards | Unscored:
        try:
            values = tuple(value for steps, _ in read for value in steps)
            tokens = self._tokens(rows[0], read[0][1]) if self.token_rewards else None
            return StepRewards(values=values, kind=self.kind, tokens=tokens)
        except ValueError as error:  # not finite
            return Unscored(
                id=solution.id,
                reason=f"solution {solution.id!r}: {error}; {self.name} gives no number there, so its weights are broken or "
                "overflow in this dtype: check them, or load with dtype float32",
            )

    def _tokens(self, row: LaidOut, values: list[float]) -> TokenRewards:
        """The tokens of a response, which lies in one row for all families that have them."""
        text, ends = token_ends(self.head.tokenizer, row.token_ids[row.prompt_length :])
        return TokenRewards(
            values=tuple(values),
            texts=tuple(text[a:b] for a, b in pairwise((0, *ends))),
            ends=ends,
            step_of_token=row.step_of_token,
        )


def in_batches(
    rewards: Callable[[Tensor, Sequence[LaidOut]], Tensor],
    rows: Sequence[LaidOut],
    tokens_per_batch: int,
    device: torch.device,
    *,
    skip: int = 0,
    count: Callable[[LaidOut], int] = lambda row: len(row.read_at),
) -> list[list[float]]:
    """What `rewards` reads in each row, in batches of similar lengths.

    `rewards(token_BT, rows)` gives the numbers of its rows, row after row, `count` of each; `token_BT` are their tokens without
    the first `skip`, padded on the right. Skipped tokens count for `tokens_per_batch`: their keys and values are held for every
    row.
    """
    values: list[list[float]] = [[] for _ in rows]
    lengths = torch.tensor([len(row.token_ids) for row in rows], dtype=torch.long)
    for part in microbatches(lengths, tokens_per_batch, PADDING[device.type]):
        chosen = [rows[i] for i in part.tolist()]
        with torch.inference_mode():
            flat = rewards(padded([row.token_ids[skip:] for row in chosen], device), chosen).tolist()
        start = 0
        for i, row in zip(part.tolist(), chosen, strict=True):
            values[i] = flat[start : start + count(row)]
            start += count(row)
    return values


def padded(rows: Sequence[Sequence[int]], device: torch.device) -> Tensor:
    """token_BT: the rows, padded on the right with 0."""
    token_BT = torch.zeros(len(rows), max(map(len, rows)), dtype=torch.long)
    for i, ids in enumerate(rows):
        token_BT[i, : len(ids)] = torch.tensor(ids)
    return token_BT.to(device)


def read_positions(rows: Sequence[LaidOut], device: torch.device) -> tuple[Tensor, Tensor]:
    """(row_N, token_N): where each number is read, row after row."""
    row_N = [i for i, row in enumerate(rows) for _ in row.read_at]
    token_N = [at for row in rows for at in row.read_at]
    return torch.tensor(row_N, device=device), torch.tensor(token_N, device=device)


def separated_by(tokenizer: PreTrainedTokenizerBase, solution: Solution, spec: PRMSpec) -> LaidOut:
    """TRL's layout with everything that a spec says about it."""
    return separated(
        tokenizer,
        solution,
        separator=spec.separator,
        chat=spec.chat,
        system=spec.system,
        after_prompt=spec.after_prompt,
    )


def as_prompt(prompt: str | Sequence[Message] | Prompt) -> Prompt:
    """A prompt from what a caller may give: one user turn's text, turns, or a Prompt as it is."""
    if isinstance(prompt, Prompt):
        return prompt
    messages = (Message(role="user", content=prompt),) if isinstance(prompt, str) else tuple(prompt)
    if not messages:
        raise DataError("the prompt has no turn; give its text, or at least one message")
    return Prompt(id="prompt", messages=messages, answer="")
