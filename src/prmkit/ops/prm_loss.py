"""Losses of the implicit PRM, on response level: from Q_i = beta * sum_t log-ratio and the outcome, one loss a response.

Sources: cross-entropy in arXiv:2412.01981 and PRIME's released code; the others in the later recipe of PRIME. A response's
losses are reduced by `weight_B` (mean or sum over the mini-batch), fixed before micro-batches are cut.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from prmkit.ops.groups import group_size, group_sum


def cross_entropy(q_B: Tensor, outcome_B: Tensor) -> Tensor:
    """BCE(sigmoid(Q_i), outcome_i), in logits; outcomes may be soft, in [0, 1] (a pass fraction of tests)."""
    return F.binary_cross_entropy_with_logits(q_B, outcome_B, reduction="none")


def margin_loss(q_B: Tensor, opponent_q_B: Tensor, outcome_B: Tensor) -> Tensor:
    """DPO-like: -log sigmoid(s_i (Q_i - Qbar_i)), s_i = +1 if outcome_i > 0 else -1; Qbar from `opponent_mean`."""
    sign_B = torch.where(outcome_B > 0, torch.ones_like(q_B), -torch.ones_like(q_B))
    return -F.logsigmoid(sign_B * (q_B - opponent_q_B))


def group_log_odds(outcome_B: Tensor, group_B: Tensor) -> Tensor:
    """log(p / (1 - p)) of each row's group, p = (sum of outcomes + 1/2) / (n + 1), so that it is always finite.

    The reward that a log-ratio stands for is r = beta log(pi/pi_ref) + beta log Z(x); the implicit PRM drops log Z, which
    depends on the prompt alone. This estimates it: how likely the prompt is to be solved at all.
    """
    p_B = (group_sum(outcome_B, group_B) + 0.5) / (group_size(group_B) + 1)
    return torch.log(p_B) - torch.log1p(-p_B)


def opponent_mean(q_B: Tensor, outcome_B: Tensor, group_B: Tensor) -> Tensor:
    """Qbar_i: mean Q of the siblings with a lower outcome if outcome_i > 0, else with a higher one; 0 if there are none."""
    same_BB = group_B[:, None] == group_B[None, :]
    lower_BB = outcome_B[None, :] < outcome_B[:, None]
    higher_BB = outcome_B[None, :] > outcome_B[:, None]
    chosen_BB = (same_BB & torch.where((outcome_B > 0)[:, None], lower_BB, higher_BB)).to(q_B.dtype)
    return (chosen_BB @ q_B) / chosen_BB.sum(1).clamp(min=1)


def best_of_n_weight(rank_by_B: Tensor, group_B: Tensor) -> Tensor:
    """w_i = n * (fraction of the group, itself included, with rank_by_j <= rank_by_i)^(n-1)."""
    same_BB = group_B[:, None] == group_B[None, :]
    at_most_BB = same_BB & (rank_by_B[None, :] <= rank_by_B[:, None])
    size_B = group_size(group_B)
    return size_B * (at_most_BB.sum(1) / size_B) ** (size_B - 1)


def pairwise_accuracy(score_B: Tensor, outcome_B: Tensor, group_B: Tensor) -> Tensor:
    """How often the score orders two siblings as their outcomes do, pairs weighted by |outcome difference|.

    Equal scores count half. 0.5 where no pair differs in outcome. PRIME logs the same as `dpo_acc`, there as the mean over
    groups with 0.5 for tied groups; here over pairs, so that tied groups do not pull the figure to 0.5.
    """
    same_BB = group_B[:, None] == group_B[None, :]
    gap_BB = torch.where(same_BB, outcome_B[:, None] - outcome_B[None, :], torch.zeros_like(outcome_B)).clamp(min=0)
    order_BB = 0.5 * (torch.sign(score_B[:, None] - score_B[None, :]) + 1)
    total = gap_BB.sum()
    return (gap_BB * order_BB).sum() / total if total > 0 else total.new_tensor(0.5)
