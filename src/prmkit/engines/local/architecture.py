"""What a causal LM is made of, where a faster way through it depends on that."""

from __future__ import annotations

from typing import Any

from transformers import DynamicCache, LlamaForCausalLM, MistralForCausalLM, Qwen2ForCausalLM, Qwen3ForCausalLM
from transformers.cache_utils import DynamicLayer

PLAIN = (LlamaForCausalLM, MistralForCausalLM, Qwen2ForCausalLM, Qwen3ForCausalLM)
"""Families with the same layer: pre-norms, rotary attention, gated MLP. A subclass may differ, so it does not count."""
MOVING_ROPE = ("dynamic", "longrope")
"""Rotary embeddings whose frequencies depend on how long the sequence is."""


def has_plain_layers(causal_lm: Any) -> bool:
    """Whether its layers are those of `PLAIN`, and what they make of a token depends on nothing that comes after it."""
    return type(causal_lm) in PLAIN and causal_lm.config.rope_parameters["rope_type"] not in MOVING_ROPE


def all_positions_kept(causal_lm: Any) -> bool:
    """Whether every layer's cache keeps all positions (no sliding window)."""
    layers: list[Any] = DynamicCache(config=causal_lm.config).layers
    return all(type(layer) is DynamicLayer for layer in layers)
