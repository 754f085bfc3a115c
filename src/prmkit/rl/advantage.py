"""From rewards to one advantage per token: each source gets its own baseline and discount, then they are added."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from prmkit.ops.advantages import outcome_advantage, position_baseline, process_baseline, redistributed
from prmkit.ops.batch import Batch
from prmkit.ops.groups import group_shares
from prmkit.ops.masked import masked_mean, masked_sum, whiten
from prmkit.ops.policy_loss import kl_estimate
from prmkit.ops.returns import discounted_return, gae, step_return
from prmkit.ops.rewards import at_last_token, by_granularity, last_token_mask, normaliser_scale, step_end_mask
from prmkit.rl.algorithm import Algorithm, Process

ESTIMATOR_BASELINE = {"rloo": "leave_one_out", "grpo": "group_std", "dr_grpo": "group", "remax": "greedy"}
"""Baseline of process rewards that belongs to an estimator; the others have none."""
COST_BASELINE = {"rloo": "leave_one_out", "grpo": "group", "dr_grpo": "group"}
"""Baseline of the KL cost in the reward. Never divided by a spread, which would cancel `kl.coef`."""


@dataclass(frozen=True, kw_only=True)
class Greedy:
    """What ReMax compares with: the greedy response to each row's prompt."""

    reward_B: Tensor
    process_mean_B: Tensor
    """Mean process reward per token of the greedy response, before normalising; 0 without a PRM."""


@dataclass(frozen=True, kw_only=True)
class Advantages:
    """The advantage of each response token, and what it is made of."""

    advantage_BT: Tensor
    return_BT: Tensor | None
    """Targets of the value model (gae only)."""
    metrics: Mapping[str, float]


def advantages(
    algorithm: Algorithm,
    batch: Batch,
    *,
    process_BT: Tensor | None = None,
    process_coef: float = 0.0,
    reference_logp_BT: Tensor | None = None,
    value_BT: Tensor | None = None,
    greedy: Greedy | None = None,
) -> Advantages:
    """Advantages of all response tokens.

    A = outcome.coef * A_outcome + process_coef * A_process + A_kl, each source with its own baseline and discount, then
    whitened if asked. `process_BT`: raw process rewards. With kl.where = reward each token also costs
    kl.coef * (behaviour log-prob - reference log-prob). `value_BT`: for gae, whose sources join as rewards instead.
    """
    mask_BT = batch.response_mask_BT
    shaped_BT, scale_B = torch.zeros_like(batch.behaviour_logp_BT), torch.ones_like(batch.outcome_B)
    if process_BT is not None:
        shaped_BT, scale_B = shaped_process(process_BT, batch, algorithm.process)
    kl_reward_BT = torch.zeros_like(shaped_BT)
    if reference_logp_BT is not None and algorithm.kl.where == "reward":
        kl_BT = kl_estimate(batch.behaviour_logp_BT, reference_logp_BT, "k1")
        kl_reward_BT = torch.where(mask_BT, -algorithm.kl.coef * kl_BT, kl_reward_BT)
    if algorithm.advantage == "gae":
        assert value_BT is not None, "gae needs a value model"
        outcome_BT = algorithm.outcome.coef * at_last_token(batch.outcome_B, mask_BT)
        reward_BT = outcome_BT + process_coef * shaped_BT + kl_reward_BT
        total_BT = gae(reward_BT, value_BT, mask_BT, algorithm.outcome.discount, algorithm.gae_lambda)
        return_BT, parts = total_BT + torch.where(mask_BT, value_BT, 0.0), {}
    else:
        return_BT = None
        greedy_mean_B = None if greedy is None else greedy.process_mean_B / scale_B
        outcome_BT = algorithm.outcome.coef * _outcome(algorithm, batch, greedy)
        credit_BT = process_coef * _dense(algorithm, algorithm.process, shaped_BT, batch, greedy_mean_B)
        if algorithm.process.use == "redistribute":
            credit_BT = redistributed(outcome_BT, credit_BT, mask_BT) - outcome_BT
        parts = {"outcome": outcome_BT, "process": credit_BT}
        if algorithm.kl.where == "reward" and algorithm.kl.coef:
            baseline: Any = COST_BASELINE.get(algorithm.advantage, "none")
            cost = replace(algorithm.process, granularity="token", discount=1.0, baseline=baseline)
            parts["kl"] = _dense(algorithm, cost, kl_reward_BT, batch)
        total_BT = torch.stack(list(parts.values())).sum(0)
    if algorithm.whiten == "tokens":
        total_BT = whiten(total_BT, mask_BT)
    metrics = {f"advantage/{name}_std": _spread(part_BT, mask_BT) for name, part_BT in parts.items()}
    metrics["advantage/std"] = _spread(total_BT, mask_BT)
    if process_BT is not None:
        metrics["prm/scale"] = float(scale_B.mean())
    return Advantages(advantage_BT=total_BT, return_BT=return_BT, metrics=metrics)


def reward_positions(batch: Batch, process: Process) -> Tensor:
    """bool: the tokens that carry process rewards at this granularity; a baseline is taken over them and no others."""
    match process.granularity:
        case "token":
            return batch.response_mask_BT
        case "step":
            return step_end_mask(batch.step_BT)
        case "whole":
            return last_token_mask(batch.response_mask_BT)


def placed_process(process_BT: Tensor, batch: Batch, process: Process) -> Tensor:
    """Raw process rewards where the granularity puts them, without the end token's if it has none."""
    mask_BT = batch.response_mask_BT
    if not process.eos_reward:
        ended_BT = last_token_mask(mask_BT) & ~batch.truncated_B[:, None]
        process_BT = torch.where(ended_BT, torch.zeros_like(process_BT), process_BT)
    return by_granularity(process_BT, batch.step_BT, mask_BT, process.granularity)


def shaped_process(process_BT: Tensor, batch: Batch, process: Process) -> tuple[Tensor, Tensor]:
    """Raw process rewards where the granularity puts them, divided by the normaliser; and each row's normaliser."""
    mask_BT, placed_BT = batch.response_mask_BT, placed_process(process_BT, batch, process)
    scale_B = torch.empty_like(batch.outcome_B)
    for rows in group_shares(batch.group_B, process.normaliser_ranks):
        scale_B[rows] = normaliser_scale(
            placed_BT[rows], mask_BT[rows], process.normaliser, process.floor, eps=1e-6 * process.beta
        )
    return placed_BT / scale_B[:, None], scale_B


def _outcome(algorithm: Algorithm, batch: Batch, greedy: Greedy | None) -> Tensor:
    """Outcome advantage, carried back from the last token."""
    greedy_B = None if greedy is None else greedy.reward_B
    advantage_B = outcome_advantage(batch.outcome_B, batch.group_B, algorithm.advantage, greedy_B)
    terminal_BT = at_last_token(advantage_B, batch.response_mask_BT)
    return discounted_return(terminal_BT, batch.response_mask_BT, algorithm.outcome.discount)


def _dense(
    algorithm: Algorithm, process: Process, reward_BT: Tensor, batch: Batch, greedy_mean_B: Tensor | None = None
) -> Tensor:
    """Advantage from token rewards: baseline, then return-to-go (the position baseline works on returns)."""

    def returns(value_BT: Tensor) -> Tensor:
        if process.granularity == "step":
            return step_return(value_BT, batch.step_BT, process.discount)
        return discounted_return(value_BT, mask_BT, process.discount)

    mask_BT, positions_BT, baseline = batch.response_mask_BT, reward_positions(batch, process), process.baseline
    named = ESTIMATOR_BASELINE.get(algorithm.advantage, "none") if baseline == "estimator" else baseline
    if named == "position":
        return position_baseline(returns(reward_BT), mask_BT, batch.group_B)
    if named == "greedy":
        mean_B = torch.zeros_like(batch.outcome_B) if greedy_mean_B is None else greedy_mean_B
        return returns(torch.where(positions_BT, reward_BT - mean_B[:, None], torch.zeros_like(reward_BT)))
    return returns(process_baseline(reward_BT, positions_BT, batch.group_B, named))


def greedy_baseline(outcome_B: Tensor, process_BT: Tensor | None, greedy_batch: Batch, process: Process) -> Greedy:
    """ReMax's baseline from a batch with one greedy response per group, in group order; `outcome_B` is of those responses."""
    mean_B = torch.zeros_like(outcome_B)
    if process_BT is not None:
        placed_BT = placed_process(process_BT, greedy_batch, process)
        mean_B = masked_mean(placed_BT, reward_positions(greedy_batch, process), dim=1)
    return Greedy(reward_B=outcome_B, process_mean_B=mean_B)


def _spread(value_BT: Tensor, mask_BT: Tensor) -> float:
    """Root mean square over the response tokens."""
    return float(torch.sqrt(masked_sum(value_BT.square(), mask_BT) / mask_BT.sum().clamp(min=1)))
