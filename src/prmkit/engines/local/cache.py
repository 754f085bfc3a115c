"""Keys and values of the rows that are being decoded, in buffers that a new token is written into, not copied with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from prmkit.engines.local.language_model import LanguageModel

BLOCK = 64
"""Positions that a buffer grows by."""


class BlockLayer(DynamicLayer):
    """A layer of transformers' cache whose keys and values are views of larger buffers."""

    buffers: list[Any]
    keys: Any
    values: Any
    room = 0
    """Positions to make room for when the buffer is next made."""

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Append the new positions; returns all of them."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            self.buffers = []
        old = self.get_seq_length()
        new = old + key_states.shape[-2]
        if not self.buffers or self.buffers[0].shape[-2] < new:
            capacity = max(self.room, -(-new // BLOCK) * BLOCK)
            self.buffers = [
                self._buffer(key_states, self.keys, capacity),
                self._buffer(value_states, self.values, capacity),
            ]
        for buffer, states in zip(self.buffers, (key_states, value_states), strict=True):
            buffer[..., old:new, :] = states
        self.keys, self.values = (buffer[..., :new, :] for buffer in self.buffers)
        return self.keys, self.values

    @staticmethod
    def _buffer(like: Tensor, kept: Tensor, capacity: int) -> Tensor:
        buffer = like.new_empty(*like.shape[:-2], capacity, like.shape[-1])
        if kept.numel():
            buffer[..., : kept.shape[-2], :] = kept
        return buffer

    def select(self, row_B: Tensor) -> None:
        """Keep (or repeat) these rows."""
        self.keys, self.values = self.keys.index_select(0, row_B), self.values.index_select(0, row_B)
        self.buffers = []


class KeyValues:
    """What the model has read of each row, and its logits for the next token."""

    def __init__(self, model: LanguageModel, prompts: Sequence[tuple[int, ...]]) -> None:
        """Read the prompts, padded on the left so that all end in the same column."""
        self.model, device = model, model.device
        width = max(map(len, prompts))
        token_BT = torch.tensor([(0,) * (width - len(p)) + tuple(p) for p in prompts], device=device)
        pad_B = torch.tensor([width - len(p) for p in prompts], device=device)
        self.real_BT = torch.arange(width, device=device) >= pad_B[:, None]
        self.padded = bool(pad_B.any())
        self.position_B = -pad_B + width
        self.cache = DynamicCache(config=model.causal_lm.config)
        layers: list[Any] = self.cache.layers
        self.blocks = all(type(layer) is DynamicLayer for layer in layers)
        if self.blocks:
            layers[:] = [BlockLayer() for _ in layers]
        position_BT = (torch.arange(width, device=device) - pad_B[:, None]).clamp(min=0)
        self.logits_BV = self._read(token_BT, position_BT)

    def append(self, token_B: Tensor) -> None:
        """Read one more token of each row."""
        self.real_BT = torch.cat([self.real_BT, self.real_BT.new_ones(len(token_B), 1)], dim=1)
        self.logits_BV = self._read(token_B[:, None], self.position_B[:, None])
        self.position_B = self.position_B + 1

    def keep(self, row_B: Tensor, room_for: int = 0) -> None:
        """Keep these rows, in this order; a row may be repeated. `room_for`: how many tokens are to come, at most."""
        row_B = row_B.to(self.model.device)
        self.logits_BV, self.real_BT, self.position_B = (
            self.logits_BV[row_B],
            self.real_BT[row_B],
            self.position_B[row_B],
        )
        if not self.blocks:
            self.cache.batch_select_indices(row_B)
            return
        layers: list[Any] = self.cache.layers
        for layer in layers:
            layer.select(row_B)
            layer.room = max(layer.room, layer.get_seq_length() + room_for)

    def _read(self, token_BT: Tensor, position_BT: Tensor) -> Tensor:
        causal_lm = self.model.causal_lm
        hidden_BTD = causal_lm.get_decoder()(
            input_ids=token_BT,
            position_ids=position_BT,
            attention_mask=self._attention_mask(token_BT.shape[1]),
            past_key_values=self.cache,
            use_cache=True,
        ).last_hidden_state
        logits_BV: Tensor = causal_lm.get_output_embeddings()(hidden_BTD[:, -1])
        return logits_BV * self.model.logits_multiplier

    def _attention_mask(self, num_new: int) -> Tensor | None:
        """None where nothing is padded. Else which columns each new position may see: (B, 1, new, all) for plain caches."""
        if not self.padded:
            return None
        if not self.blocks:
            return self.real_BT.long()
        if num_new == 1:
            return self.real_BT[:, None, None, :]
        # A padded position sees itself, so that its softmax is not empty; nobody sees it.
        eye_TT = torch.eye(num_new, dtype=torch.bool, device=self.real_BT.device)
        causal_TT = torch.ones_like(eye_TT).tril()
        return (causal_TT & self.real_BT[:, None, :] | eye_TT)[:, None]
