"""Implicit process rewards: from log-ratios to rewards that can join an advantage.

All `_BT`; rewards are 0 off the response mask. Sources: arXiv:2412.01981 (implicit PRM), arXiv:2502.01456 (PRIME).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from prmkit.ops.masked import masked_sum
from prmkit.ops.returns import discounted_return


def implicit_reward(logp_BT: Tensor, reference_logp_BT: Tensor | None, mask_BT: Tensor, beta: float) -> Tensor:
    """r_t = beta * (log pi_prm(y_t | y_<t) - log pi_ref(y_t | y_<t)); without a reference, beta * log pi_prm."""
    ratio_BT = logp_BT if reference_logp_BT is None else logp_BT - reference_logp_BT
    return torch.where(mask_BT, beta * ratio_BT, torch.zeros_like(ratio_BT))


def last_token_mask(mask_BT: Tensor) -> Tensor:
    """bool: True at the last kept token of each row."""
    after_BT = torch.cat([mask_BT[:, 1:], torch.zeros_like(mask_BT[:, :1])], dim=1)
    return mask_BT & ~after_BT


def at_last_token(value_B: Tensor, mask_BT: Tensor) -> Tensor:
    """value_B on the last kept token of each row, 0 elsewhere: the outcome reward as token rewards."""
    return torch.where(last_token_mask(mask_BT), value_B[:, None], torch.zeros_like(value_B[:, None]))


def step_end_mask(step_BT: Tensor) -> Tensor:
    """bool: True at the last token of each step (`step_BT` is -1 off the response)."""
    after_BT = torch.cat([step_BT[:, 1:], torch.full_like(step_BT[:, :1], -1)], dim=1)
    return (step_BT >= 0) & (step_BT != after_BT)


def step_sums(value_BT: Tensor, step_BT: Tensor) -> Tensor:
    """(B, S): the sum of the values of each step, S = the largest number of steps; 0 for steps that are not there."""
    num_steps = int(step_BT.max()) + 1 if step_BT.numel() else 0
    index_BT = torch.where(step_BT >= 0, step_BT, torch.full_like(step_BT, num_steps))
    sums = value_BT.new_zeros(value_BT.shape[0], num_steps + 1)
    return sums.scatter_add(1, index_BT, torch.where(step_BT >= 0, value_BT, torch.zeros_like(value_BT)))[:, :num_steps]


def by_granularity(reward_BT: Tensor, step_BT: Tensor, mask_BT: Tensor, granularity: str) -> Tensor:
    """Where rewards sit: `token` as they are; `step` each step's sum on its last token; `whole` the sum on the last."""
    match granularity:
        case "token":
            return reward_BT
        case "step":
            sums_BS = F.pad(step_sums(reward_BT, step_BT), (0, 1))  # there may be no step at all
            return torch.where(
                step_end_mask(step_BT), sums_BS.gather(1, step_BT.clamp(min=0)), torch.zeros_like(reward_BT)
            )
        case "whole":
            return at_last_token(masked_sum(reward_BT, mask_BT, dim=1), mask_BT)
    raise ValueError(f"granularity must be token, step or whole, got {granularity!r}")


def normaliser_scale(reward_BT: Tensor, mask_BT: Tensor, how: str, floor: float = 0.0, eps: float = 1e-6) -> Tensor:
    """The scalar that rewards are divided by, over the whole batch.

    `max_return`: max |G_t| (PRIME's `batch_norm`, which is no batch norm: one scalar, no centring); `std`: root mean square
    of G_t; `none`: 1. G is the undiscounted return-to-go. Never less than `floor`; eps as in the released code.
    """
    if how == "none":
        return reward_BT.new_ones(())
    return_BT = discounted_return(reward_BT, mask_BT)
    if how == "max_return":
        scale = return_BT.abs().max()
    elif how == "std":
        scale = torch.sqrt(return_BT.square().sum() / mask_BT.sum().clamp(min=1))
    else:
        raise ValueError(f"normaliser must be max_return, std or none, got {how!r}")
    return scale.clamp(min=floor) + eps
