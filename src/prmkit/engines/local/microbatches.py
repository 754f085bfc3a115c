"""Which rows go through a model together: as many as a budget of tokens allows, with little padding and few prompts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

PADDING = {"cpu": 128, "cuda": 16384}
"""Tokens of padding that take about as long as one more micro-batch: beyond that, it pays to cut."""


@dataclass(frozen=True, kw_only=True)
class Prompts:
    """The prompts of a batch: what stands before each row's first response token."""

    of_row: Sequence[int]
    """Rows with the same prompt have the same number."""
    lengths: Sequence[int]
    """Tokens of each row's prompt."""

    def saved(self, rows: Sequence[int]) -> int:
        """Tokens that are not read if these rows' prompts are read once each."""
        once = {self.of_row[i]: self.lengths[i] for i in rows}
        return sum(self.lengths[i] for i in rows) - sum(once.values())


def prompts_of(token_BT: Tensor, response_mask_BT: Tensor) -> Prompts:
    """The prompts that the rows begin with; a row without a response has none."""
    lengths = response_mask_BT.int().argmax(1).tolist()
    numbers: dict[tuple[int, ...], int] = {}
    of_row = [
        numbers.setdefault(tuple(tokens[:length]), len(numbers))
        for tokens, length in zip(token_BT.tolist(), lengths, strict=True)
    ]
    return Prompts(of_row=of_row, lengths=lengths)


def sharing_pays(saved: int, padding: int) -> bool:
    """One more forward pass, over prompts alone, costs about as much as two micro-batches may pad."""
    return saved > 2 * padding


def microbatches(
    length_B: Tensor, tokens_per_microbatch: int, padding: int = PADDING["cpu"], prompts: Prompts | None = None
) -> Iterator[Tensor]:
    """Row indices in parts, each with rows x longest row <= the budget (a single row may exceed it).

    Rows go longest first, and about `padding` tokens or less pad in a part. With `prompts`, of a model that reads a shared
    prompt once, siblings stay together instead where fewer tokens are read so, padding and what a pass costs counted.
    """
    lengths: list[int] = length_B.tolist()
    by_length = _cut(sorted(range(len(lengths)), key=lambda i: -lengths[i]), lengths, tokens_per_microbatch, padding)
    parts = by_length
    if prompts is not None and sharing_pays(prompts.saved(range(len(lengths))), padding):
        longest: dict[int, int] = {}
        for prompt, length in zip(prompts.of_row, lengths, strict=True):
            longest[prompt] = max(length, longest.get(prompt, 0))
        together = sorted(
            range(len(lengths)), key=lambda i: (-longest[prompts.of_row[i]], prompts.of_row[i], -lengths[i])
        )
        # To cut between siblings costs a micro-batch, another pass over prompts and the prompt itself.
        by_prompt = _cut(together, lengths, tokens_per_microbatch, 2 * padding + max(prompts.lengths))
        parts = min(by_length, by_prompt, key=lambda parts: _tokens_read(parts, lengths, prompts, padding))
    yield from (torch.tensor(part) for part in parts)


def _cut(order: Sequence[int], lengths: Sequence[int], tokens: int, padding: int) -> list[list[int]]:
    """The rows in this order, in parts within the budget and with no more than about so much padding."""
    parts: list[list[int]] = []
    longest = total = 0
    for row in order:
        longest, total = max(longest, lengths[row]), total + lengths[row]
        num_rows = len(parts[-1]) + 1 if parts else 1
        if not parts or num_rows * longest > tokens or num_rows * longest - total > padding:
            parts.append([])
            longest = total = lengths[row]
        parts[-1].append(row)
    return parts


def _tokens_read(parts: Sequence[Sequence[int]], lengths: Sequence[int], prompts: Prompts, padding: int) -> int:
    """By a model that reads shared prompts once, with each pass counted as the padding that it is worth."""
    read = 0
    for part in parts:
        read += padding + len(part) * max(lengths[i] for i in part)
        saved = prompts.saved(part)
        if sharing_pays(saved, padding):
            read += 2 * padding - saved
    return read
