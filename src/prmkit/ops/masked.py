"""Masked reductions. A mask says what is kept (True). An empty mask gives 0, never NaN."""

from __future__ import annotations

import torch
from torch import Tensor


def masked_sum(value_BT: Tensor, mask_BT: Tensor, dim: int | None = None) -> Tensor:
    """Sum of the kept values; values outside the mask are ignored even when they are not finite."""
    kept = torch.where(mask_BT, value_BT, torch.zeros_like(value_BT))
    return kept.sum() if dim is None else kept.sum(dim)


def masked_mean(value_BT: Tensor, mask_BT: Tensor, dim: int | None = None) -> Tensor:
    """Mean of the kept values, 0 where nothing is kept."""
    count = mask_BT.sum() if dim is None else mask_BT.sum(dim)
    return masked_sum(value_BT, mask_BT, dim) / count.clamp(min=1)


def whiten(value_BT: Tensor, mask_BT: Tensor, eps: float = 1e-8) -> Tensor:
    """(x - mean) / sqrt(var + eps) over the kept values, 0 elsewhere; unbiased variance, as in PRIME's released code."""
    centred_BT = torch.where(mask_BT, value_BT - masked_mean(value_BT, mask_BT), torch.zeros_like(value_BT))
    var = centred_BT.square().sum() / (mask_BT.sum() - 1).clamp(min=1)
    return centred_BT / torch.sqrt(var + eps)
