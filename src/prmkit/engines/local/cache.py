"""What the model has read of the rows that are being decoded, and its logits for their next tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from prmkit.engines.local.language_model import LanguageModel
from prmkit.engines.local.plain_decoder import LayerKeyValues, PlainDecoder


class KeyValues:
    """Rows in the model's own cache: right for any family."""

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
        position_BT = (torch.arange(width, device=device) - pad_B[:, None]).clamp(min=0)
        self.logits_BV = self._read(token_BT, position_BT)

    def append(self, token_B: Tensor) -> None:
        """Read one more token of each row."""
        self.real_BT = torch.cat([self.real_BT, self.real_BT.new_ones(len(token_B), 1)], dim=1)
        self.logits_BV = self._read(token_B[:, None], self.position_B[:, None])
        self.position_B = self.position_B + 1

    def keep(self, row_B: Tensor) -> None:
        """Keep these rows, in this order; a row may be repeated."""
        row_B = row_B.to(self.model.device)
        self.logits_BV, self.real_BT = self.logits_BV[row_B], self.real_BT[row_B]
        self.position_B = self.position_B[row_B]
        self.cache.batch_select_indices(row_B)

    def _read(self, token_BT: Tensor, position_BT: Tensor) -> Tensor:
        causal_lm = self.model.causal_lm
        hidden_BTD = causal_lm.get_decoder()(
            input_ids=token_BT,
            position_ids=position_BT,
            attention_mask=self.real_BT.long() if self.padded else None,
            past_key_values=self.cache,
            use_cache=True,
        ).last_hidden_state
        logits_BV: Tensor = causal_lm.get_output_embeddings()(hidden_BTD[:, -1])
        return logits_BV * self.model.logits_multiplier


class PlainKeyValues:
    """Rows that a `PlainDecoder` goes on with, after the model itself has read the prompts."""

    def __init__(self, decoder: PlainDecoder, prompts: KeyValues) -> None:
        self.decoder, self.position_B, self.logits_BV = decoder, prompts.position_B, prompts.logits_BV
        self.unseen_BP = ~prompts.real_BT if prompts.padded else None
        layers: list[Any] = prompts.cache.layers
        # CPUs attend several times faster in float32: their bfloat16 kernels are made for large products.
        dtype = torch.float32 if self.position_B.device.type == "cpu" else decoder.dtype
        self.layers = [LayerKeyValues(layer.keys.to(dtype), layer.values.to(dtype)) for layer in layers]

    def append(self, token_B: Tensor) -> None:
        """Read one more token of each row."""
        self.logits_BV = self.decoder.read(token_B, self.position_B, self.layers, self.unseen_BP)
        self.position_B = self.position_B + 1

    def keep(self, row_B: Tensor) -> None:
        """Keep these rows, in this order; a row may be repeated."""
        row_B = row_B.to(self.position_B.device)
        self.logits_BV, self.position_B = self.logits_BV[row_B], self.position_B[row_B]
        self.unseen_BP = None if self.unseen_BP is None else self.unseen_BP[row_B]
        for layer in self.layers:
            layer.keep(row_B)
