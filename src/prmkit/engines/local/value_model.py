"""A value model: a causal LM's body with a scalar head. It answers with V(state before each response token)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from prmkit.engines.local.language_model import LanguageModel
from prmkit.ops.batch import Batch, TokenOutputs


@dataclass(frozen=True, kw_only=True)
class ValueModel:
    """`head` starts at zero, so that the first advantages are the returns themselves."""

    body: LanguageModel
    head: nn.Linear

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.body.device

    @property
    def shares_prompts(self) -> bool:
        """Whether rows that begin with the same prompt can have it read once."""
        return self.body.shares_prompts

    def outputs(self, batch: Batch, *, entropy: bool = False) -> TokenOutputs:
        """The value before every response token, 0 elsewhere; a value has no entropy."""
        device = self.device
        mask_BT = batch.response_mask_BT.to(device)
        with self.body.speaking():
            before_ND = self.body.states_before_responses(batch.token_BT.to(device), mask_BT)
        value_N = self.head(before_ND.float()).squeeze(-1)
        zeros_BT = torch.zeros(mask_BT.shape, dtype=torch.float32, device=device)
        return TokenOutputs(output_BT=zeros_BT.masked_scatter(mask_BT, value_N))

    def trainable(self) -> list[tuple[str, nn.Parameter]]:
        """The body's parameters that train, and the head's."""
        output_layer = self.body.causal_lm.get_output_embeddings().weight
        tied = output_layer is self.body.causal_lm.get_input_embeddings().weight
        body = [(n, p) for n, p in self.body.trainable() if tied or p is not output_layer]
        return [*body, *((f"value_head.{n}", p) for n, p in self.head.named_parameters())]


def zero_head(hidden_size: int, device: torch.device) -> nn.Linear:
    """A scalar head that says 0."""
    head = nn.Linear(hidden_size, 1, device=device)
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    return head
