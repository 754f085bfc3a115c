"""Supervised fine-tuning: the loss is on the completion's tokens alone."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from prmkit.data.chat import encode_demonstration
from prmkit.data.types import Prompt
from prmkit.errors import DataError
from prmkit.ops.batch import Batch, LossSum, TokenOutputs
from prmkit.ops.masked import masked_sum
from prmkit.ops.reduce import token_weights
from prmkit.protocols import Learner


@dataclass(frozen=True, kw_only=True)
class Encoded:
    """One demonstration as tokens."""

    prompt_token_ids: tuple[int, ...]
    token_ids: tuple[int, ...]
    """The completion, its end token included."""


@dataclass(frozen=True, kw_only=True)
class SFTBatch(Batch):
    """Demonstrations as tensors; `weight_BT` is 1 / (completion tokens of the whole batch)."""

    weight_BT: Tensor


def encode_all(tokenizer: Any, demonstrations: Sequence[tuple[Prompt, str]], max_tokens: int) -> list[Encoded]:
    """Tokens of every demonstration. Raises DataError for one that is longer than `max_tokens`, naming it."""
    encoded = []
    for prompt, completion in demonstrations:
        prompt_ids, completion_ids = encode_demonstration(tokenizer, prompt, completion)
        if len(prompt_ids) + len(completion_ids) > max_tokens:
            raise DataError(
                f"demonstration {prompt.id!r} has {len(prompt_ids) + len(completion_ids)} tokens, more than the {max_tokens} "
                "allowed; shorten or drop it, or raise max_tokens"
            )
        encoded.append(Encoded(prompt_token_ids=tuple(prompt_ids), token_ids=tuple(completion_ids)))
    return encoded


def sft_batch(rows: Sequence[Encoded]) -> SFTBatch:
    """Right-padded tensors; the fields that only rollouts have are empty (0)."""
    lengths = [len(r.prompt_token_ids) + len(r.token_ids) for r in rows]
    token_BT = torch.zeros(len(rows), max(lengths), dtype=torch.long)
    mask_BT = torch.zeros(token_BT.shape, dtype=torch.bool)
    for i, row in enumerate(rows):
        token_BT[i, : lengths[i]] = torch.tensor(row.prompt_token_ids + row.token_ids)
        mask_BT[i, len(row.prompt_token_ids) : lengths[i]] = True
    return SFTBatch(
        token_BT=token_BT,
        length_B=torch.tensor(lengths),
        response_mask_BT=mask_BT,
        step_BT=torch.where(mask_BT, 0, -1),
        behaviour_logp_BT=torch.zeros(token_BT.shape),
        outcome_B=torch.zeros(len(rows)),
        group_B=torch.arange(len(rows)),
        truncated_B=torch.zeros(len(rows), dtype=torch.bool),
        weight_BT=token_weights(mask_BT, "token_mean"),
    )


def sft_loss(outputs: TokenOutputs, part: SFTBatch) -> LossSum:
    """Mean negative log-likelihood of the completion tokens, in nats."""
    mask_BT = part.response_mask_BT.to(outputs.output_BT.device)
    loss = masked_sum(-outputs.output_BT * part.weight_BT.to(mask_BT.device), mask_BT)
    return LossSum(loss=loss, metrics={})


def batch_rows(num_rows: int, batch_size: int, seed: int, step: int) -> list[int]:
    """Which demonstrations optimizer step `step` (from 0) learns from: epochs, each in its own order, no state."""
    chosen = []
    for k in range(step * batch_size, (step + 1) * batch_size):
        epoch, offset = divmod(k, num_rows)
        chosen.append(_order(num_rows, seed, epoch)[offset])
    return chosen


_ORDERS: dict[tuple[int, int, int], list[int]] = {}


def _order(num_rows: int, seed: int, epoch: int) -> list[int]:
    key = (num_rows, seed, epoch)
    if key not in _ORDERS:
        _ORDERS.clear()
        order = list(range(num_rows))
        random.Random(f"sft/{seed}/{epoch}").shuffle(order)
        _ORDERS[key] = order
    return _ORDERS[key]


def train_sft(
    learner: Learner,
    encoded: Sequence[Encoded],
    *,
    steps: int,
    batch_size: int,
    seed: int,
    start: int = 0,
    after_step: Callable[[int, dict[str, float]], None] = lambda step, metrics: None,
) -> None:
    """Optimizer steps start+1 .. steps; `after_step(step, metrics)` logs and saves."""
    for step in range(start, steps):
        rows = [encoded[i] for i in batch_rows(len(encoded), batch_size, seed, step)]
        result = learner.update([sft_batch(rows)], sft_loss)
        after_step(step + 1, dict(result.metrics))
