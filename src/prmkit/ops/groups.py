"""Reductions over siblings: `group_B` says which prompt a row belongs to (any integers; a group may have any size).

Values are floating, and so are the results, in the same dtype.
"""

from __future__ import annotations

import torch
from torch import Tensor


def _total(value_B: Tensor, group_B: Tensor) -> Tensor:
    """Sums in float64: the mean of equal float32 values is then that value to the last bit, and less it exactly 0.

    In float32 sixteen rewards of 0.9 would differ from their mean by rounding, which a division by their tiny standard
    deviation turns into an advantage of 0.1.
    """
    _, index_B = torch.unique(group_B, return_inverse=True)
    num_groups = int(index_B.max()) + 1 if len(index_B) else 0
    total_P = torch.zeros(num_groups, dtype=torch.float64, device=value_B.device)
    return total_P.index_add(0, index_B, value_B.double())[index_B]


def group_sum(value_B: Tensor, group_B: Tensor) -> Tensor:
    """For each row, the sum over its group."""
    return _total(value_B, group_B).to(value_B.dtype)


def group_size(group_B: Tensor) -> Tensor:
    """For each row, how many rows its group has (float32)."""
    return group_sum(torch.ones_like(group_B, dtype=torch.float32), group_B)


def group_mean(value_B: Tensor, group_B: Tensor) -> Tensor:
    """For each row, the mean over its group."""
    return (_total(value_B, group_B) / group_size(group_B)).to(value_B.dtype)


def others_mean(value_B: Tensor, group_B: Tensor) -> Tensor:
    """For each row, the mean over the *other* rows of its group: the leave-one-out baseline."""
    size_B = group_size(group_B)
    if bool((size_B < 2).any()):
        raise ValueError(
            "a leave-one-out baseline needs at least 2 samples per prompt, found a group of 1; "
            "raise group_size or use the advantage `reinforce`"
        )
    return ((_total(value_B, group_B) - value_B) / (size_B - 1)).to(value_B.dtype)


def group_shares(group_B: Tensor, num: int) -> list[Tensor]:
    """The rows of at most `num` shares of the groups, in order: siblings stay together, whatever the sizes of groups."""
    _, index_B = torch.unique(group_B, return_inverse=True)
    num_groups = int(index_B.max()) + 1
    shares = torch.arange(num_groups, device=group_B.device).tensor_split(min(num, num_groups))
    return [torch.isin(index_B, share).nonzero().squeeze(1) for share in shares]


def group_std(value_B: Tensor, group_B: Tensor) -> Tensor:
    """For each row, the unbiased standard deviation of its group (0 for a group of one)."""
    deviation_B = (value_B - group_mean(value_B, group_B)).square()
    return torch.sqrt(group_sum(deviation_B, group_B) / (group_size(group_B) - 1).clamp(min=1))
