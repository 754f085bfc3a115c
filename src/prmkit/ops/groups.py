"""Reductions over siblings: `group_B` says which prompt a row belongs to (any integers; a group may have any size)."""

from __future__ import annotations

import torch
from torch import Tensor


def group_sum(value_B: Tensor, group_B: Tensor) -> Tensor:
    """For each row, the sum over its group."""
    _, index_B = torch.unique(group_B, return_inverse=True)
    total_P = value_B.new_zeros(int(index_B.max()) + 1 if len(index_B) else 0)
    return total_P.index_add(0, index_B, value_B)[index_B]


def group_size(group_B: Tensor) -> Tensor:
    """For each row, how many rows its group has (float32)."""
    return group_sum(torch.ones_like(group_B, dtype=torch.float32), group_B)


def group_mean(value_B: Tensor, group_B: Tensor) -> Tensor:
    """For each row, the mean over its group."""
    return group_sum(value_B, group_B) / group_size(group_B)


def others_mean(value_B: Tensor, group_B: Tensor) -> Tensor:
    """For each row, the mean over the *other* rows of its group: the leave-one-out baseline."""
    size_B = group_size(group_B)
    if bool((size_B < 2).any()):
        raise ValueError(
            "a leave-one-out baseline needs at least 2 samples per prompt, found a group of 1; "
            "raise group_size or use the advantage `reinforce`"
        )
    return (group_sum(value_B, group_B) - value_B) / (size_B - 1)


def group_std(value_B: Tensor, group_B: Tensor) -> Tensor:
    """For each row, the unbiased standard deviation of its group (0 for a group of one)."""
    deviation_B = (value_B - group_mean(value_B, group_B)).square()
    return torch.sqrt(group_sum(deviation_B, group_B) / (group_size(group_B) - 1).clamp(min=1))
