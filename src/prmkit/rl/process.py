"""The process reward model of an RL run: learns from each batch's verdicts and rewards its tokens, in one of four orders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from prmkit.ops.batch import Batch, LossSum, TokenOutputs, take
from prmkit.ops.groups import group_mean, group_shares
from prmkit.ops.masked import masked_mean, masked_sum
from prmkit.ops.policy_loss import kl_estimate
from prmkit.ops.prm_loss import (
    best_of_n_weight,
    cross_entropy,
    group_log_odds,
    margin_loss,
    opponent_mean,
    pairwise_accuracy,
)
from prmkit.ops.rewards import implicit_reward
from prmkit.protocols import Learner
from prmkit.rl.algorithm import SIBLING_LOSSES, Process

TRUST_MEMORY = 0.8
"""Weight of the past in the running mean of the PRM's trust: about five steps."""


class TokenScorer(Protocol):
    """A frozen model: log-probs only."""

    def outputs(self, batch: Batch, *, entropy: bool = False) -> TokenOutputs:
        """Per-token log-probs without gradient."""
        ...


@dataclass(frozen=True, kw_only=True)
class ProcessRewards:
    """What the PRM says of a batch: r_t at every response token, before any shaping, and what its update saw."""

    reward_BT: Tensor
    metrics: Mapping[str, float]
    trust: float = 1.0
    """In [0, 1]: how far the rewards are to be believed; multiplies the process coefficient."""
    kl: float | None = None
    """k3 estimate of KL(policy || reference) per token, from log-probs that are known anyway; exact at sampling
    temperature 1, which the reference speaks at. None without a frozen reference."""


class ProcessRewardModel(Protocol):
    """Anything that rewards the tokens of a batch; it may learn from the batch's outcomes on the way."""

    def rewards(self, batch: Batch) -> ProcessRewards:
        """Learn from the batch's outcomes, in the configured order, and reward its tokens."""
        ...

    def score(self, batch: Batch) -> Tensor:
        """Rewards r_BT without learning."""
        ...

    def save(self, path: Path) -> None:
        """Write the model in Hugging Face form."""
        ...

    def state_dict(self) -> Mapping[str, Any]:
        """What is needed to go on."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from `state_dict()`."""
        ...


@dataclass(frozen=True, kw_only=True)
class PRMBatch(Batch):
    """What the PRM learns from."""

    reference_logp_BT: Tensor
    offset_B: Tensor
    """Added to Q: the group's log-odds (ce_offset), minus the opponents' mean Q (dpo losses), or 0."""
    weight_B: Tensor
    """Weight of each response in the loss, fixed over the mini-batch."""


class ImplicitPRM:
    """r_t = beta * (log pi_prm - log pi_ref), learned from outcomes alone (arXiv:2412.01981, 2502.01456)."""

    def __init__(
        self, learner: Learner, reference: TokenScorer | None, settings: Process, *, num_minibatches: int = 1
    ) -> None:
        if settings.reference == "freeze" and reference is None:
            raise ValueError("process.reference = freeze needs a reference model")
        self.learner, self.reference, self.settings = learner, reference, settings
        self.num_minibatches = num_minibatches
        self.replay: list[PRMBatch] = []
        self.trust = 0.0

    def rewards(self, batch: Batch) -> ProcessRewards:
        """One PRM step: `after`, `before`, `none` or `reverse` (see `Process.update`)."""
        reference_BT = self._reference_logp(batch)
        metrics: Mapping[str, float] = {}
        if self.settings.update == "none":
            logp_BT = self.learner.outputs(batch).output_BT
        else:
            minibatches = self._minibatches(batch, reference_BT)
            result = self.learner.update([*self.replay, *minibatches], self._loss)
            metrics = result.metrics
            logp_BT = torch.zeros_like(batch.behaviour_logp_BT)
            for rows, seen in zip(self._rows(batch), result.output_BT[-len(minibatches) :], strict=True):
                logp_BT[rows, : seen.shape[1]] = seen
            self._remember(minibatches)
            if self.settings.update == "before":
                logp_BT = self.learner.outputs(batch).output_BT
        reward_BT = implicit_reward(logp_BT, reference_BT, batch.response_mask_BT, self.settings.beta)
        quality = _quality(reward_BT, batch)
        if self.settings.gate == "accuracy":
            if _outcomes_differ(batch):  # else nothing has been measured
                self.trust += (1 - TRUST_MEMORY) * (max(0.0, 2 * quality["accuracy"] - 1) - self.trust)
            quality["trust"] = self.trust
        trust = self.trust if self.settings.gate == "accuracy" else 1.0
        kl = None
        if self.settings.reference == "freeze":
            kl_BT = kl_estimate(batch.behaviour_logp_BT, reference_BT, "k3")
            kl = float(masked_mean(kl_BT, batch.response_mask_BT))
        return ProcessRewards(reward_BT=reward_BT, metrics=dict(metrics) | quality, trust=trust, kl=kl)

    def score(self, batch: Batch) -> Tensor:
        """Rewards without learning."""
        logp_BT = self.learner.outputs(batch).output_BT
        return implicit_reward(logp_BT, self._reference_logp(batch), batch.response_mask_BT, self.settings.beta)

    def save(self, path: Path) -> None:
        """Write the PRM in Hugging Face form: a plain causal LM (or adapter)."""
        self.learner.save(path)

    def state_dict(self) -> Mapping[str, Any]:
        """The learner's state, and the batches to replay."""
        replay = [{f.name: getattr(b, f.name) for f in fields(b)} for b in self.replay]
        return {"learner": self.learner.state_dict(), "replay": replay, "trust": self.trust}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from `state_dict()`."""
        self.learner.load_state_dict(state["learner"])
        self.replay = [PRMBatch(**b) for b in state["replay"]]
        self.trust = state["trust"]

    def _reference_logp(self, batch: Batch) -> Tensor:
        if self.settings.reference == "freeze":
            assert self.reference is not None
            return self.reference.outputs(batch).output_BT
        if self.settings.reference == "policy":
            return batch.behaviour_logp_BT
        return torch.zeros_like(batch.behaviour_logp_BT)

    def _rows(self, batch: Batch) -> Sequence[Tensor]:
        """Contiguous shares, as in the released run; siblings stay together."""
        return group_shares(batch.group_B, self.num_minibatches)

    def _minibatches(self, batch: Batch, reference_BT: Tensor) -> list[PRMBatch]:
        offset_B, emphasis_B = self._group_statistics(batch, reference_BT)
        result = []
        for rows in self._rows(batch):
            part = take(batch, rows)
            share = 1.0 if self.settings.loss.startswith("bon") else 1.0 / len(rows)
            values = {f.name: getattr(part, f.name) for f in fields(part)}
            result.append(
                PRMBatch(
                    **values,
                    reference_logp_BT=reference_BT[rows, : part.token_BT.shape[1]],
                    offset_B=offset_B[rows],
                    weight_B=emphasis_B[rows] * share,
                )
            )
        return result

    def _group_statistics(self, batch: Batch, reference_BT: Tensor) -> tuple[Tensor, Tensor]:
        """What is added to each Q, and each response's emphasis. Only sibling losses need a forward pass for it."""
        ones_B, zeros_B = torch.ones_like(batch.outcome_B), torch.zeros_like(batch.outcome_B)
        if self.settings.loss not in SIBLING_LOSSES:
            offset = self.settings.loss == "ce_offset"
            return group_log_odds(batch.outcome_B, batch.group_B) if offset else zeros_B, ones_B
        logp_BT = self.learner.outputs(batch).output_BT
        reward_BT = implicit_reward(logp_BT, reference_BT, batch.response_mask_BT, self.settings.beta)
        q_B = masked_sum(reward_BT, batch.response_mask_BT, dim=1)
        emphasis_B = ones_B
        if self.settings.loss == "bon_acc":
            emphasis_B = best_of_n_weight(batch.outcome_B, batch.group_B)
        elif self.settings.loss == "bon_rm":
            emphasis_B = best_of_n_weight(q_B, batch.group_B)
        return -opponent_mean(q_B, batch.outcome_B, batch.group_B), emphasis_B

    def _loss(self, outputs: TokenOutputs, part: PRMBatch) -> LossSum:
        """Weighted loss of some responses, from the sum of their token rewards."""
        logp_BT, device = outputs.output_BT, outputs.output_BT.device
        mask_BT, outcome_B = part.response_mask_BT.to(device), part.outcome_B.to(device)
        reward_BT = implicit_reward(logp_BT, part.reference_logp_BT.to(device), mask_BT, self.settings.beta)
        q_B, offset_B = masked_sum(reward_BT, mask_BT, dim=1), part.offset_B.to(device)
        sibling = self.settings.loss in SIBLING_LOSSES
        loss_B = margin_loss(q_B, -offset_B, outcome_B) if sibling else cross_entropy(q_B + offset_B, outcome_B)
        return LossSum(loss=(part.weight_B.to(device) * loss_B).sum(), metrics={})

    def _remember(self, minibatches: Sequence[PRMBatch]) -> None:
        keep = self.settings.replay_batches * len(minibatches)
        self.replay = [*self.replay, *minibatches][-keep:] if keep else []


def _outcomes_differ(batch: Batch) -> bool:
    """Whether any two siblings have different outcomes."""
    return bool((batch.outcome_B != group_mean(batch.outcome_B, batch.group_B)).any())


def _quality(reward_BT: Tensor, batch: Batch) -> dict[str, float]:
    """How the PRM's response scores relate to the verdicts."""
    q_B = masked_sum(reward_BT, batch.response_mask_BT, dim=1)
    return {
        "accuracy": float(pairwise_accuracy(q_B, batch.outcome_B, batch.group_B)),
        "reward_mean": float(q_B.mean()),
        "reward_std": float(q_B.std(correction=0)),
    }
