"""The batch: rollouts as tensors, made once by `pack`.

Shapes: B sequences, T tokens (prompt and response, padded on the right). Everything `_BT` is aligned with `token_BT`:
`behaviour_logp_BT[i, t]` is the log-prob of `token_BT[i, t]` given the tokens before it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import TypeVar

import torch
from torch import Tensor

from prmkit.data.align import step_of_tokens
from prmkit.data.steps import Splitter
from prmkit.data.types import Group, Rollout, Verified


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Verified rollouts as tensors. Only decided rollouts get in: every `outcome_B` is a verdict."""

    token_BT: Tensor
    """int64, right-padded with 0."""
    length_B: Tensor
    """int64: number of real tokens (prompt and response) of each row."""
    response_mask_BT: Tensor
    """bool: True on response tokens, the end token included."""
    step_BT: Tensor
    """int64: index of the step that a response token belongs to, -1 elsewhere."""
    behaviour_logp_BT: Tensor
    """float32: log-probs under the policy that sampled, 0 off the response."""
    outcome_B: Tensor
    """float32 in [0, 1]: the verifier's reward."""
    group_B: Tensor
    """int64: which prompt of the batch a row belongs to; siblings share it."""
    truncated_B: Tensor
    """bool: the response has no end token of its own: it was cut at max_tokens, or ended by a stop string."""


BatchT = TypeVar("BatchT", bound=Batch)


@dataclass(frozen=True, kw_only=True)
class TokenOutputs:
    """One number per token from a model: log-probs of a language model, or values of a scalar head."""

    output_BT: Tensor
    """float32, 0 off the response mask."""
    entropy_BT: Tensor | None = None
    """float32: entropy of the next-token distribution at each response token, in nats."""


@dataclass(frozen=True, kw_only=True)
class LossSum:
    """A loss that is already weighted (so parts add up), and metrics that add up in the same way."""

    loss: Tensor
    metrics: Mapping[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class UpdateResult:
    """What an update saw and did: metrics are means over its optimizer steps."""

    metrics: Mapping[str, float]
    output_BT: Sequence[Tensor]
    """Per mini-batch: the outputs of the forward pass that made the gradient, i.e. before that step."""


def take(batch: BatchT, row_B: Tensor) -> BatchT:
    """The given rows, cut to the longest of them."""
    width = int(batch.length_B[row_B].max())
    parts = {}
    for field in fields(batch):
        value = getattr(batch, field.name)
        if isinstance(value, Tensor):
            parts[field.name] = value[row_B, :width] if field.name.endswith("_BT") else value[row_B]
    return replace(batch, **parts)


def pack(groups: Sequence[Group[Verified]], split: Splitter) -> Batch:
    """Tensors from verified rollouts; every verdict must be decided (filter first)."""
    rows = [(p, member) for p, group in enumerate(groups) for member in group.members]
    if not rows:
        raise ValueError("pack needs at least one rollout")
    lengths = [len(m.rollout.prompt_token_ids) + len(m.rollout.token_ids) for _, m in rows]
    B, T = len(rows), max(lengths)
    token_BT = torch.zeros(B, T, dtype=torch.long)
    response_mask_BT = torch.zeros(B, T, dtype=torch.bool)
    step_BT = torch.full((B, T), -1, dtype=torch.long)
    logp_BT = torch.zeros(B, T)
    outcome = []
    for i, (_, member) in enumerate(rows):
        rollout = member.rollout
        if member.verdict.reward is None:
            raise ValueError(f"rollout of prompt {rollout.prompt_id!r} has no reward ({member.verdict.status})")
        outcome.append(member.verdict.reward)
        counts = [len(part) for part in (rollout.token_ids, rollout.logprobs, rollout.token_ends)]
        if len(set(counts)) > 1:
            raise ValueError(
                "rollout of prompt {!r} has {} tokens, {} logprobs and {} token_ends".format(rollout.prompt_id, *counts)
            )
        a, b = len(rollout.prompt_token_ids), lengths[i]
        token_BT[i, :b] = torch.tensor(rollout.prompt_token_ids + rollout.token_ids)
        response_mask_BT[i, a:b] = True
        step_BT[i, a:b] = torch.tensor(step_of_tokens(split(rollout.text), rollout.token_ends))
        logp_BT[i, a:b] = torch.tensor(rollout.logprobs)
    return Batch(
        token_BT=token_BT,
        length_B=torch.tensor(lengths),
        response_mask_BT=response_mask_BT,
        step_BT=step_BT,
        behaviour_logp_BT=logp_BT,
        outcome_B=torch.tensor(outcome, dtype=torch.float32),
        group_B=torch.tensor([p for p, _ in rows]),
        truncated_B=torch.tensor([not _has_end_token(m.rollout) for _, m in rows]),
    )


def _has_end_token(rollout: Rollout) -> bool:
    """An end token adds nothing to the text, while the last token of a stop string does."""
    ends = (0, *rollout.token_ends)
    return rollout.finish != "length" and (len(ends) == 1 or ends[-1] == ends[-2])
