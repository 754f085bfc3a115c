"""Advantage estimators: baselines for the outcome (one number a response) and for process rewards (one a token).

n = size of a group of siblings, T_i = response tokens. docs/prime.md has the table of sources.
"""

from __future__ import annotations

import torch
from torch import Tensor

from prmkit.ops.groups import group_mean, group_size, group_std, group_sum, others_mean
from prmkit.ops.masked import masked_mean, masked_sum

STD_EPS = 1e-6
"""Added to a group's standard deviation in `grpo`; a group whose rewards are all equal gets advantage 0."""


def outcome_advantage(
    reward_B: Tensor, group_B: Tensor, estimator: str, greedy_reward_B: Tensor | None = None
) -> Tensor:
    """Advantage of each response from its outcome reward.

    rloo: R_i - mean_{j != i} R_j (Kool et al., 2019; Ahmadian et al., arXiv:2402.14740)
    grpo: (R_i - mean_j R_j) / (std_j R_j + eps) (DeepSeekMath, arXiv:2402.03300, section 4.1.2)
    dr_grpo: R_i - mean_j R_j (arXiv:2503.20783)
    reinforce, reinforce_pp: R_i (the latter is whitened over the batch, arXiv:2501.03262)
    remax: R_i - R(greedy response to the same prompt) (arXiv:2310.10505)
    """
    match estimator:
        case "rloo":
            return reward_B - others_mean(reward_B, group_B)
        case "grpo":
            return (reward_B - group_mean(reward_B, group_B)) / (group_std(reward_B, group_B) + STD_EPS)
        case "dr_grpo":
            return reward_B - group_mean(reward_B, group_B)
        case "reinforce" | "reinforce_pp":
            return reward_B
        case "remax":
            if greedy_reward_B is None:
                raise ValueError("remax needs the reward of a greedy response for each row")
            return reward_B - greedy_reward_B
    raise ValueError(f"no outcome advantage named {estimator!r}")


def process_baseline(reward_BT: Tensor, mask_BT: Tensor, group_B: Tensor, baseline: str) -> Tensor:
    """Token rewards less a baseline from the siblings, 0 off the mask. With m_j = mean_t r_jt over response j:

    prime: n/(n-1) r_it - 1/(n-1) sum_j m_j, as in PRIME's released code: leave-one-out only in the mean, for it equals
        `leave_one_out` plus (r_it - m_i)/(n-1)
    leave_one_out: r_it - mean_{j != i} m_j, as in the paper's formula
    group: r_it - mean over all tokens of the group
    group_std: the same, divided by the standard deviation over all tokens of the group (process supervision in
        DeepSeekMath, arXiv:2402.03300, section 4.1.3)
    none: r_it
    """
    mean_B = masked_mean(reward_BT, mask_BT, dim=1)
    match baseline:
        case "prime":
            size_B = group_size(group_B).to(reward_BT.dtype)
            others_mean(mean_B, group_B)  # refuses a group of one
            centred_BT = (size_B / (size_B - 1))[:, None] * (reward_BT - group_mean(mean_B, group_B)[:, None])
        case "leave_one_out":
            centred_BT = reward_BT - others_mean(mean_B, group_B)[:, None]
        case "group" | "group_std":
            count_B = group_sum(mask_BT.sum(1).float(), group_B).clamp(min=1)
            centre_B = group_sum(masked_sum(reward_BT, mask_BT, dim=1), group_B) / count_B
            centred_BT = reward_BT - centre_B[:, None]
            if baseline == "group_std":
                square_B = group_sum(masked_sum(centred_BT.square(), mask_BT, dim=1), group_B)
                centred_BT = centred_BT / (torch.sqrt(square_B / (count_B - 1).clamp(min=1)) + STD_EPS)[:, None]
        case "none":
            centred_BT = reward_BT
        case _:
            raise ValueError(f"no process baseline named {baseline!r}")
    return torch.where(mask_BT, centred_BT, torch.zeros_like(centred_BT))


def redistributed(advantage_BT: Tensor, credit_BT: Tensor, mask_BT: Tensor) -> Tensor:
    """The same advantage per response, carried by other tokens: A_it = a_it * T_i softmax_t(sign(a_it) c_it).

    A token with high credit c carries more of a positive advantage, one with low credit more of a negative one. Weights
    average 1 over the response's T_i tokens, so signs and (for a constant a_i) sums stay; equal credit changes nothing.
    """
    logits_BT = torch.where(mask_BT, torch.sign(advantage_BT) * credit_BT, torch.full_like(credit_BT, -torch.inf))
    weight_BT = mask_BT.sum(1, keepdim=True) * torch.softmax(logits_BT, dim=1)
    return torch.where(mask_BT, advantage_BT * weight_BT, torch.zeros_like(advantage_BT))


def position_baseline(return_BT: Tensor, mask_BT: Tensor, group_B: Tensor) -> Tensor:
    """G_it less the mean return-to-go of the siblings that are still running at the same response position.

    Unlike the token-mean baselines it does not grow with length; a position that no sibling reaches has baseline 0.
    Note that comparing by position lets the baseline depend on when the policy stops (a known bias of per-turn baselines).
    """
    # Responses of one group start at the same column (same prompt), so columns are response positions.
    same_BB = (group_B[:, None] == group_B[None, :]) & ~torch.eye(len(group_B), dtype=torch.bool, device=group_B.device)
    count_BT = same_BB.float() @ mask_BT.float()
    total_BT = same_BB.to(return_BT.dtype) @ torch.where(mask_BT, return_BT, torch.zeros_like(return_BT))
    return torch.where(mask_BT, return_BT - total_BT / count_BT.clamp(min=1), torch.zeros_like(return_BT))
