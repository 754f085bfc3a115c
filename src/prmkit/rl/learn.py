"""The updates of policy and critic: losses whose weights are fixed before any micro-batch is cut."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from prmkit.ops.batch import Batch, LossSum, TokenOutputs, take
from prmkit.ops.masked import masked_sum
from prmkit.ops.policy_loss import clipped_policy_loss, clipped_value_loss, kl_estimate
from prmkit.ops.reduce import token_weights
from prmkit.protocols import Learner, Loss
from prmkit.rl.advantage import Advantages
from prmkit.rl.algorithm import Algorithm


@dataclass(frozen=True, kw_only=True)
class PolicyBatch(Batch):
    """What the policy learns from."""

    advantage_BT: Tensor
    weight_BT: Tensor
    """Weight of each token in the loss, by `Algorithm.reduce`."""
    share_BT: Tensor
    """1 / number of tokens of the mini-batch: metrics are token means, whatever the loss is."""
    reference_logp_BT: Tensor | None


@dataclass(frozen=True, kw_only=True)
class ValueBatch(Batch):
    """What the value model learns from."""

    old_value_BT: Tensor
    return_BT: Tensor
    share_BT: Tensor


def update_policy(
    policy: Learner,
    algorithm: Algorithm,
    batch: Batch,
    result: Advantages,
    reference_BT: Tensor | None,
    max_tokens: int,
    shuffle: torch.Generator,
) -> dict[str, float]:
    """One optimizer step per mini-batch, rows shuffled; returns metrics."""
    minibatches = []
    for rows in _rows(len(batch.outcome_B), algorithm.num_minibatches, shuffle):
        mask_BT = batch.response_mask_BT[rows]
        extra = {
            "advantage_BT": result.advantage_BT[rows],
            "weight_BT": token_weights(mask_BT, algorithm.reduce, max_tokens),
            "share_BT": token_weights(mask_BT, "token_mean"),
            "reference_logp_BT": None if reference_BT is None else reference_BT[rows],
        }
        minibatches.append(_extended(PolicyBatch, batch, rows, extra))
    update = policy.update(minibatches, policy_loss(algorithm))
    names = {"loss": "policy/loss", "grad_norm": "policy/grad_norm"}
    return {names.get(name, name): value for name, value in update.metrics.items()}


def policy_loss(algorithm: Algorithm) -> Loss[PolicyBatch]:
    """Clipped surrogate, less entropy_coef * entropy, plus kl.coef * KL where the KL belongs in the loss.

    The old log-probs are the behaviour log-probs: the ratio corrects for exactly the policy that sampled.
    """

    def loss(outputs: TokenOutputs, part: PolicyBatch) -> LossSum:
        logp_BT, device = outputs.output_BT, outputs.output_BT.device
        mask_BT, old_BT = part.response_mask_BT.to(device), part.behaviour_logp_BT.to(device)
        loss_BT, clipped_BT = clipped_policy_loss(
            logp_BT, old_BT, part.advantage_BT.to(device), algorithm.clip_low, algorithm.clip_high
        )
        assert outputs.entropy_BT is not None, "a policy's outputs have an entropy"
        observed = {
            "entropy": outputs.entropy_BT,
            "clip_ratio/region_mean": clipped_BT.float(),
            "sampling/logp_difference": (logp_BT - old_BT).abs(),
        }
        if algorithm.entropy_coef:
            loss_BT = loss_BT - algorithm.entropy_coef * outputs.entropy_BT
        if part.reference_logp_BT is not None:
            reference_BT = part.reference_logp_BT.to(device)
            observed["kl"] = kl_estimate(logp_BT, reference_BT, "k3")
            if algorithm.kl.where == "loss":
                loss_BT = loss_BT + algorithm.kl.coef * kl_estimate(logp_BT, reference_BT, algorithm.kl.estimator)
        share_BT = part.share_BT.to(device)
        metrics = {name: masked_sum(value_BT.detach() * share_BT, mask_BT) for name, value_BT in observed.items()}
        return LossSum(loss=masked_sum(loss_BT * part.weight_BT.to(device), mask_BT), metrics=metrics)

    return loss


def update_critic(
    critic: Learner | None,
    algorithm: Algorithm,
    batch: Batch,
    result: Advantages,
    old_value_BT: Tensor | None,
    shuffle: torch.Generator,
) -> dict[str, float]:
    """The value model learns the returns that gae made; nothing for other estimators."""
    if critic is None or result.return_BT is None or old_value_BT is None:
        return {}
    minibatches = []
    for rows in _rows(len(batch.outcome_B), algorithm.num_minibatches, shuffle):
        extra = {
            "old_value_BT": old_value_BT[rows],
            "return_BT": result.return_BT[rows],
            "share_BT": token_weights(batch.response_mask_BT[rows], "token_mean"),
        }
        minibatches.append(_extended(ValueBatch, batch, rows, extra))
    update = critic.update(minibatches, value_loss(algorithm.value_clip))
    return {f"critic/{name}": value for name, value in update.metrics.items()}


def value_loss(clip: float) -> Loss[ValueBatch]:
    """Clipped squared error to the returns, as a mean over tokens."""

    def loss(outputs: TokenOutputs, part: ValueBatch) -> LossSum:
        value_BT, device = outputs.output_BT, outputs.output_BT.device
        mask_BT, share_BT = part.response_mask_BT.to(device), part.share_BT.to(device)
        return_BT = part.return_BT.to(device)
        loss_BT = clipped_value_loss(value_BT, part.old_value_BT.to(device), return_BT, clip)
        metrics = {"value_mean": masked_sum(value_BT.detach() * share_BT, mask_BT)}
        return LossSum(loss=masked_sum(loss_BT * share_BT, mask_BT), metrics=metrics)

    return loss


def _rows(num_rows: int, num_minibatches: int, shuffle: torch.Generator) -> Sequence[Tensor]:
    return torch.randperm(num_rows, generator=shuffle).tensor_split(min(num_minibatches, num_rows))


def _extended(kind: Any, batch: Batch, rows: Tensor, extra: Mapping[str, Tensor | None]) -> Any:
    """The rows of a batch with more columns, cut to their longest."""
    part = take(batch, rows)
    width = part.token_BT.shape[1]
    cut = {name: value if value is None else value[:, :width] for name, value in extra.items()}
    return kind(**{f.name: getattr(part, f.name) for f in fields(part)}, **cut)
