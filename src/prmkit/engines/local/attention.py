"""Attention for short sequences on CPUs: in float32, also where the model computes in bfloat16."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

NAME = "sdpa_short_float32"
SHORT = 256
"""Up to this many tokens torch's bfloat16 kernel on CPUs, whose blocks are made for long ones, takes several times as long."""


def attend(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **options: Any
) -> tuple[Tensor, None]:
    """Scaled dot-product attention as transformers does it, in float32 for short sequences."""
    if query.shape[2] > SHORT:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **options)
    with torch.autocast("cpu", enabled=False):
        output, _ = sdpa_attention_forward(module, query.float(), key.float(), value.float(), attention_mask, **options)
    return output.to(value.dtype), None


def attend_in_float32_when_short(model: Any) -> None:
    """Let a model that computes in bfloat16 on a CPU use `attend`."""
    AttentionInterface.register(NAME, attend)
    AttentionMaskInterface.register(NAME, sdpa_mask)
    model.set_attn_implementation(NAME)
