"""Supervised fine-tuning: the loss is on the completion's tokens alone."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
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
from prmkit.train.config import SFTConfig
from prmkit.train.loggers import make_loggers
from prmkit.train.run_folder import RunFolder
from prmkit.train.stop import StopRequest


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


@lru_cache(maxsize=2)
def _order(num_rows: int, seed: int, epoch: int) -> tuple[int, ...]:
    order = list(range(num_rows))
    random.Random(f"sft/{seed}/{epoch}").shuffle(order)
    return tuple(order)


def train_sft(
    learner: Learner,
    encoded: Sequence[Encoded],
    folder: RunFolder,
    config: SFTConfig,
    *,
    on_step: Callable[[int, Mapping[str, float]], None] = lambda step, metrics: None,
    stop: StopRequest | None = None,
) -> bool:
    """Train until `config.steps`; True if it got there, False if it was asked to stop before. `folder` is open."""
    start = _restore(learner, folder)
    folder.prune(config.keep_checkpoints)
    loggers = make_loggers(config.report_to, folder.path)
    try:
        for step in range(start + 1, config.steps + 1):
            rows = [encoded[i] for i in batch_rows(len(encoded), config.batch_size, config.seed, step - 1)]
            metrics = dict(learner.update([sft_batch(rows)], sft_loss).metrics)
            folder.append("metrics.jsonl", {"step": step, **metrics})
            for logger in loggers:
                logger.log(step, metrics)
            on_step(step, metrics)
            stopping = stop is not None and stop.asked
            if step % config.save_every == 0 or step == config.steps or stopping:
                state = {"step": step, "policy": learner.state_dict()}
                folder.save_checkpoint(step, state, {"policy": learner.save}, config.keep_checkpoints)
            if stopping and step < config.steps:
                return False
    finally:
        for logger in loggers:
            logger.close()
    return True


def _restore(learner: Learner, folder: RunFolder) -> int:
    steps = folder.saved_steps()
    folder.rewind(steps[-1] if steps else -1)
    if not steps:
        return 0
    learner.load_state_dict(folder.load_checkpoint(steps[-1])["policy"])
    return steps[-1]
