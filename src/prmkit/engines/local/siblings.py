"""Rows with the same prompt: it is read once, differentiably, and each row's response goes on from what was read.

With n siblings of P prompt tokens and C response tokens a forward and backward pass takes P + n C tokens in place of n (P + C).
Attention is causal, so the states, and by the chain rule the gradients, are those of rows read whole, up to rounding.

Shapes: B rows, M distinct prompts, P tokens of the longest prompt, C of the longest response, D hidden size.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from prmkit.engines.local.architecture import all_positions_kept, has_plain_layers
from prmkit.engines.local.microbatches import PADDING, Prompts, sharing_pays


def can_share_prompts(causal_lm: Any) -> bool:
    """Whether this model can go on from a prompt differentiably.

    Train mode is on for gradient checkpointing alone, which keeps no cache.
    """
    return has_plain_layers(causal_lm) and all_positions_kept(causal_lm) and not causal_lm.training


def is_shared(prompts: Prompts, device: torch.device) -> bool:
    """Whether it pays to read these rows' prompts once."""
    rows = range(len(prompts.of_row))
    return sharing_pays(prompts.saved(rows), PADDING[device.type]) and min(prompts.lengths) > 0


def states_before_responses(causal_lm: Any, token_BT: Tensor, response_mask_BT: Tensor, prompts: Prompts) -> Tensor:
    """(N, D): the hidden state before each response token, row after row. Every row has a prompt and a response."""
    device = token_BT.device
    prompt_B, length_B = torch.tensor(prompts.of_row, device=device), torch.tensor(prompts.lengths, device=device)
    cache, last_MD, real_MP = _read_prompts(causal_lm, token_BT, prompts)
    end_B = response_mask_BT.shape[1] - response_mask_BT.int().flip(1).argmax(1)
    width = int((end_B - length_B).max())
    position_BC = length_B[:, None] + torch.arange(width, device=device)
    response_BC = response_mask_BT.gather(1, position_BC.clamp(max=token_BT.shape[1] - 1)) & (
        position_BC < end_B[:, None]
    )
    state_BCD = last_MD[prompt_B][:, None]
    if width > 1:
        position_BC = position_BC[:, :-1]  # nothing is predicted from the last token
        real_BP = real_MP[prompt_B]
        mask_BX = torch.cat([real_BP, real_BP.new_ones(position_BC.shape)], dim=1)
        after_BCD = causal_lm.get_decoder()(
            input_ids=token_BT.gather(1, position_BC.clamp(max=token_BT.shape[1] - 1)),
            position_ids=position_BC,
            attention_mask=None if bool(real_MP.all()) else mask_BX.long(),
            past_key_values=DynamicCache([(layer.keys[prompt_B], layer.values[prompt_B]) for layer in cache.layers]),
            use_cache=True,
        ).last_hidden_state
        state_BCD = torch.cat([state_BCD, after_BCD], dim=1)
    return state_BCD[response_BC]


def _read_prompts(causal_lm: Any, token_BT: Tensor, prompts: Prompts) -> tuple[Any, Tensor, Tensor]:
    """The cache of the distinct prompts, the state of each one's last token, and which tokens of (M, P) are real.

    They are padded on the right: no real token sees the padding here, and the responses' mask hides it from them.
    """
    row_of = {prompt: row for row, prompt in enumerate(prompts.of_row)}
    rows = [row_of[prompt] for prompt in range(len(row_of))]
    length_M = torch.tensor([prompts.lengths[row] for row in rows], device=token_BT.device)
    width = int(length_M.max())
    cache = DynamicCache(config=causal_lm.config)
    state_MPD = causal_lm.get_decoder()(
        input_ids=token_BT[rows, :width], past_key_values=cache, use_cache=True
    ).last_hidden_state
    real_MP = torch.arange(width, device=token_BT.device) < length_M[:, None]
    return cache, state_MPD[torch.arange(len(rows)), length_M - 1], real_MP
