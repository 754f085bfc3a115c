"""Decoding for plain decoder-only models, straight on their weights.

The Hugging Face forward pass is made for every case; for one more token of each row most of its time goes to the cases that
are not there. Here that token takes a few operations a layer. The prompt is still read by the model itself.

Shapes: B rows, D hidden size, H heads, K key-value heads, G = H / K, E head size, T positions so far.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from peft.tuners.lora import Linear as LoraLinear
from torch import Tensor, nn

from prmkit.engines.local.architecture import has_plain_layers
from prmkit.engines.local.language_model import LanguageModel

ROOM = 64
"""Positions that the buffers of keys and values grow by, at least."""


def is_plain(model: LanguageModel) -> bool:
    """Whether `PlainDecoder` computes what this model computes, given a cache in which every layer keeps all positions."""
    causal_lm = model.causal_lm
    if not has_plain_layers(causal_lm):
        return False
    parts = [causal_lm.lm_head, *(p for layer in causal_lm.model.layers for p in _linears(layer).values())]
    return {type(part) for part in parts} <= {nn.Linear, LoraLinear}


def _linears(layer: Any) -> dict[str, Any]:
    attention, mlp = layer.self_attn, layer.mlp
    names = {"q": attention.q_proj, "k": attention.k_proj, "v": attention.v_proj, "o": attention.o_proj}
    return names | {"gate": mlp.gate_proj, "up": mlp.up_proj, "down": mlp.down_proj}


class _Linear:
    """A linear layer in the compute precision, with its adapter if it has one: W x + b + scale * B (A x)."""

    down: Tensor | None = None
    up: Tensor

    def __init__(self, module: Any, model: LanguageModel, dtype: torch.dtype) -> None:
        base: Any = module.base_layer if isinstance(module, LoraLinear) else module
        self.weight: Tensor = base.weight.to(dtype)
        self.bias: Tensor | None = None if base.bias is None else base.bias.to(dtype)
        if isinstance(module, LoraLinear) and model.adapter is not None:
            down: Any = module.lora_A[model.adapter]
            up: Any = module.lora_B[model.adapter]
            self.down = down.weight.to(dtype)
            self.up = (up.weight * module.scaling[model.adapter]).to(dtype)

    def __call__(self, x_BD: Tensor) -> Tensor:
        y_BD = F.linear(x_BD, self.weight, self.bias)
        return y_BD if self.down is None else y_BD + F.linear(F.linear(x_BD, self.down), self.up)


@dataclass(frozen=True, kw_only=True)
class _Layer:
    module: Any
    q: _Linear
    k: _Linear
    v: _Linear
    o: _Linear
    gate: _Linear
    up: _Linear
    down: _Linear


class PlainDecoder:
    """The model's weights, ready to decode with. Made anew after each update; copies only what must change precision."""

    def __init__(self, model: LanguageModel) -> None:
        causal_lm = model.causal_lm
        weight_dtype = causal_lm.model.embed_tokens.weight.dtype
        self.dtype = weight_dtype if model.compute_dtype == torch.float32 else model.compute_dtype
        self.body = causal_lm.model
        self.head = _Linear(causal_lm.lm_head, model, self.dtype)
        self.layers = [self._layer(module, model) for module in self.body.layers]
        config = causal_lm.config
        self.num_kv_heads = config.num_key_value_heads
        self.head_dim = self.body.layers[0].self_attn.head_dim
        position_T = torch.arange(config.max_position_embeddings, device=model.device)
        like = torch.empty(0, dtype=weight_dtype, device=model.device)
        cos_1TE, sin_1TE = self.body.rotary_emb(like, position_ids=position_T[None])
        self.cos_TE, self.sin_TE = cos_1TE[0], sin_1TE[0]

    def _layer(self, module: Any, model: LanguageModel) -> _Layer:
        return _Layer(module=module, **{n: _Linear(part, model, self.dtype) for n, part in _linears(module).items()})

    def read(self, token_B: Tensor, position_B: Tensor, past: list[LayerKeyValues], unseen_BP: Tensor | None) -> Tensor:
        """Logits after one more token of each row. `unseen_BP`: first columns that are padding."""
        rotation = self.cos_TE[position_B][:, None], self.sin_TE[position_B][:, None]
        x_BD = self.body.embed_tokens(token_B)
        for layer, keys_values in zip(self.layers, past, strict=True):
            h_BD = _norm(layer.module.input_layernorm, x_BD).to(self.dtype)
            x_BD = x_BD + layer.o(self._attend(layer, h_BD, rotation, keys_values, unseen_BP).to(self.dtype))
            h_BD = _norm(layer.module.post_attention_layernorm, x_BD).to(self.dtype)
            x_BD = x_BD + layer.down(layer.module.mlp.act_fn(layer.gate(h_BD)) * layer.up(h_BD))
        return self.head(_norm(self.body.norm, x_BD).to(self.dtype))

    def _attend(
        self,
        layer: _Layer,
        h_BD: Tensor,
        rotation: tuple[Tensor, Tensor],
        past: LayerKeyValues,
        unseen_BP: Tensor | None,
    ) -> Tensor:
        attention = layer.module.self_attn
        shape = (len(h_BD), -1, self.head_dim)
        q_BHE, k_BKE = layer.q(h_BD).view(shape), layer.k(h_BD).view(shape)
        if hasattr(attention, "q_norm"):
            q_BHE, k_BKE = _norm(attention.q_norm, q_BHE), _norm(attention.k_norm, k_BKE)
        keys_BKTE, values_BKTE = past.append(_rotate(k_BKE, rotation), layer.v(h_BD).view(shape))
        q_BKGE = _rotate(q_BHE, rotation).to(keys_BKTE.dtype).unflatten(1, (self.num_kv_heads, -1))
        return attend_one(q_BKGE, keys_BKTE, values_BKTE, unseen_BP, attention.scaling).flatten(1)


def attend_one(
    q_BKGE: Tensor, keys_BKTE: Tensor, values_BKTE: Tensor, unseen_BP: Tensor | None, scaling: float
) -> Tensor:
    """Attention of one position to all, the queries of a group of heads side by side.

    In float32 as plain products: torch's fused kernel, made for many queries, takes 1.4 times as long on a CPU. In a
    narrower precision by that kernel, which keeps the scores in float32.
    """
    if keys_BKTE.dtype != torch.float32:
        seen_B11T = None
        if unseen_BP is not None:
            seen_B11T = F.pad(~unseen_BP, (0, keys_BKTE.shape[2] - unseen_BP.shape[1]), value=True)[:, None, None]
        return F.scaled_dot_product_attention(q_BKGE, keys_BKTE, values_BKTE, attn_mask=seen_B11T, scale=scaling)
    score_BKGT = (q_BKGE * scaling) @ keys_BKTE.transpose(2, 3)
    if unseen_BP is not None:
        score_BKGT[..., : unseen_BP.shape[1]].masked_fill_(unseen_BP[:, None, None], -torch.inf)
    return score_BKGT.softmax(-1) @ values_BKTE


def _norm(module: Any, x_BD: Tensor) -> Tensor:
    return F.rms_norm(x_BD, x_BD.shape[-1:], module.weight, module.variance_epsilon)


def _rotate(x_BHE: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
    cos_B1E, sin_B1E = rotation
    first, second = x_BHE.chunk(2, dim=-1)
    return x_BHE * cos_B1E + torch.cat([-second, first], dim=-1) * sin_B1E


class LayerKeyValues:
    """One layer's keys and values, in buffers with room for what is to come."""

    def __init__(self, keys_BKTE: Tensor, values_BKTE: Tensor) -> None:
        self.keys, self.values, self.length = keys_BKTE, values_BKTE, keys_BKTE.shape[2]

    def append(self, key_BKE: Tensor, value_BKE: Tensor) -> tuple[Tensor, Tensor]:
        """Write one more position; returns all of them."""
        if self.length == self.keys.shape[2]:
            more = max(ROOM, self.length // 2)
            self.keys, self.values = _longer(self.keys, more), _longer(self.values, more)
        self.keys[:, :, self.length] = key_BKE
        self.values[:, :, self.length] = value_BKE
        self.length += 1
        return self.keys[:, :, : self.length], self.values[:, :, : self.length]

    def keep(self, row_B: Tensor) -> None:
        """Keep these rows."""
        self.keys, self.values = self.keys[row_B, :, : self.length], self.values[row_B, :, : self.length]


def _longer(buffer: Tensor, more: int) -> Tensor:
    longer = buffer.new_empty(*buffer.shape[:2], buffer.shape[2] + more, buffer.shape[3])
    longer[:, :, : buffer.shape[2]] = buffer
    return longer
