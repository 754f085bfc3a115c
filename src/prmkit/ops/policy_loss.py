"""Per-token policy, KL and value losses. Reduction is elsewhere (`ops.reduce`)."""

from __future__ import annotations

import torch
from torch import Tensor


def clipped_policy_loss(
    logp_BT: Tensor, old_logp_BT: Tensor, advantage_BT: Tensor, clip_low: float, clip_high: float
) -> tuple[Tensor, Tensor]:
    """PPO's clipped surrogate (Schulman et al., arXiv:1707.06347, eq. 7), with separate bounds.

    ratio = exp(logp - old_logp); loss = max(-A * ratio, -A * clip(ratio, 1 - clip_low, 1 + clip_high)).
    Also returns where the clip is active (its gradient is 0 there), as bool.
    """
    ratio_BT = torch.exp(logp_BT - old_logp_BT)
    free_BT = -advantage_BT * ratio_BT
    held_BT = -advantage_BT * ratio_BT.clamp(1 - clip_low, 1 + clip_high)
    return torch.maximum(free_BT, held_BT), held_BT > free_BT


def kl_estimate(logp_BT: Tensor, reference_logp_BT: Tensor, estimator: str) -> Tensor:
    """Estimates of KL(pi || pi_ref) from samples of pi (Schulman, 2020). With d = logp - reference_logp:

    k1 = d (unbiased; as a loss its expected gradient is 0, so it only makes sense inside a reward),
    k2 = d^2 / 2 (biased value, right gradient), k3 = exp(-d) - 1 + d (unbiased, never negative).
    """
    difference_BT = logp_BT - reference_logp_BT
    match estimator:
        case "k1":
            return difference_BT
        case "k2":
            return 0.5 * difference_BT.square()
        case "k3":
            return torch.expm1(-difference_BT) + difference_BT
    raise ValueError(f"KL estimator must be k1, k2 or k3, got {estimator!r}")


def clipped_value_loss(value_BT: Tensor, old_value_BT: Tensor, return_BT: Tensor, clip: float) -> Tensor:
    """0.5 * max((V - R)^2, (V_clipped - R)^2), V_clipped = V_old + clip(V - V_old, -clip, clip)."""
    clipped_BT = old_value_BT + (value_BT - old_value_BT).clamp(-clip, clip)
    return 0.5 * torch.maximum((value_BT - return_BT).square(), (clipped_BT - return_BT).square())
