"""Supervised fine-tuning: the loss is on the completion's tokens alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from prmkit.data.chat import encode_demonstration
from prmkit.data.types import Prompt
from prmkit.errors import DataError
from prmkit.ops.batch import Batch, LossSum, TokenOutputs
from prmkit.ops.masked import masked_sum
from prmkit.ops.reduce import token_weights
from prmkit.protocols import Learner
from prmkit.train.config import SFTConfig, TooLong
from prmkit.train.loop import LoopConfig, batch_rows, data_digest, fixed_batch, train_fixed
from prmkit.train.run_folder import RunFolder
from prmkit.train.stop import StopRequest

NUM_NAMED = 3
"""How many demonstrations that are too long an error names."""


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


def encode_all(
    tokenizer: Any, demonstrations: Sequence[tuple[Prompt, str]], max_tokens: int, too_long: TooLong = "error"
) -> list[Encoded]:
    """Tokens of every demonstration; with `leave_out`, of those that fit into `max_tokens`.

    Raises DataError otherwise, with how many do not and the first of them by name, and where none fits.
    """
    encoded, longer = [], []
    for prompt, completion in demonstrations:
        prompt_ids, completion_ids = encode_demonstration(tokenizer, prompt, completion)
        if len(prompt_ids) + len(completion_ids) > max_tokens:
            longer.append(f"{prompt.id!r} has {len(prompt_ids) + len(completion_ids)}")
        else:
            encoded.append(Encoded(prompt_token_ids=tuple(prompt_ids), token_ids=tuple(completion_ids)))
    if longer and (too_long == "error" or not encoded):
        instead = ', or set too_long = "leave_out"' if encoded else ""
        raise DataError(
            f"{len(longer)} of {len(demonstrations)} demonstrations have more than the {max_tokens} tokens that max_tokens and "
            f"the model's context allow: {', '.join(longer[:NUM_NAMED])}{', ...' if len(longer) > NUM_NAMED else ''}; "
            f"shorten them, raise max_tokens up to the model's context{instead}"
        )
    return encoded


def sft_batch(rows: Sequence[Encoded]) -> SFTBatch:
    """The demonstrations as tensors."""
    plain = fixed_batch([(row.prompt_token_ids + row.token_ids, len(row.prompt_token_ids)) for row in rows])
    return SFTBatch(**vars(plain), weight_BT=token_weights(plain.response_mask_BT, "token_mean"))


def sft_loss(outputs: TokenOutputs, part: SFTBatch) -> LossSum:
    """Mean negative log-likelihood of the completion tokens, in nats."""
    mask_BT = part.response_mask_BT.to(outputs.output_BT.device)
    loss = masked_sum(-outputs.output_BT * part.weight_BT.to(mask_BT.device), mask_BT)
    return LossSum(loss=loss, metrics={})


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

    def minibatch(step: int) -> SFTBatch:
        return sft_batch([encoded[i] for i in batch_rows(len(encoded), config.batch_size, config.seed, step)])

    loop = LoopConfig(
        steps=config.steps,
        save_every=config.save_every,
        keep_checkpoints=config.keep_checkpoints,
        report_to=config.report_to,
    )
    digest = data_digest((row.prompt_token_ids, row.token_ids) for row in encoded)
    return train_fixed(
        learner, minibatch, sft_loss, folder, loop, role="policy", digest=digest, on_step=on_step, stop=stop
    )
