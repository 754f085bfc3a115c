"""From rewards to returns. `reward_BT` is 0 off the mask; the mask of a row is one run of True."""

from __future__ import annotations

import torch
from torch import Tensor


def discounted_return(reward_BT: Tensor, mask_BT: Tensor, discount: float = 1.0) -> Tensor:
    """Return-to-go G_t = sum_{s >= t} discount^(s-t) r_s within the mask, 0 elsewhere."""
    reward_BT = torch.where(mask_BT, reward_BT, torch.zeros_like(reward_BT))
    if discount == 1.0:
        return_BT = reward_BT.flip(1).cumsum(1).flip(1)
    else:
        return_BT = torch.zeros_like(reward_BT)
        running_B = torch.zeros_like(reward_BT[:, 0])
        for t in range(reward_BT.shape[1] - 1, -1, -1):
            running_B = reward_BT[:, t] + discount * running_B
            return_BT[:, t] = running_B
    return torch.where(mask_BT, return_BT, torch.zeros_like(return_BT))


def step_return(reward_BT: Tensor, step_BT: Tensor, discount: float = 1.0) -> Tensor:
    """Return-to-go counted in steps: a token of step k gets sum_{j >= k} discount^(j-k) R_j, R_j the step's summed reward.

    Inside a step nothing is discounted, so all tokens of a step share one return; `step_BT` is -1 off the response. With
    discount 0 each token answers for its own step alone.
    """
    inside_BT = step_BT >= 0
    num_steps = int(step_BT.max()) + 1 if bool(inside_BT.any()) else 1
    sums_BS = reward_BT.new_zeros(len(reward_BT), num_steps)
    kept_BT = torch.where(inside_BT, reward_BT, torch.zeros_like(reward_BT))
    sums_BS.scatter_add_(1, step_BT.clamp(min=0), kept_BT)
    return_BS = discounted_return(sums_BS, torch.ones_like(sums_BS, dtype=torch.bool), discount)
    return torch.where(inside_BT, return_BS.gather(1, step_BT.clamp(min=0)), torch.zeros_like(reward_BT))


def gae(reward_BT: Tensor, value_BT: Tensor, mask_BT: Tensor, discount: float = 1.0, gae_lambda: float = 1.0) -> Tensor:
    """Generalised advantage estimation (Schulman et al., arXiv:1506.02438, eq. 16).

    delta_t = r_t + discount * V_{t+1} - V_t, A_t = sum_{s >= t} (discount * lambda)^(s-t) delta_s; V after the last
    response token is 0 (the episode ends there). `value_BT[t]` is the value of the state before token t.
    """
    zero_BT = torch.zeros_like(reward_BT)
    value_BT = torch.where(mask_BT, value_BT, zero_BT)
    next_value_BT = torch.cat([value_BT[:, 1:], zero_BT[:, :1]], dim=1)
    delta_BT = torch.where(mask_BT, reward_BT + discount * next_value_BT - value_BT, zero_BT)
    return discounted_return(delta_BT, mask_BT, discount * gae_lambda)
