"""A role's model: a Hugging Face causal LM, or one LoRA adapter on a base that several roles share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor, nn

from prmkit.engines.local.microbatches import prompts_of
from prmkit.engines.local.siblings import can_share_prompts, is_shared, states_before_responses
from prmkit.models.logits import logits_multiplier
from prmkit.ops.batch import Batch, TokenOutputs
from prmkit.ops.logprobs import token_logprobs


@dataclass(frozen=True, kw_only=True)
class LanguageModel:
    """Turns tokens into log-probs. With `adapter` None and `adapters_off` the shared base itself speaks: the reference."""

    model: Any
    """A Hugging Face causal LM, or a PeftModel around one."""
    compute_dtype: torch.dtype = torch.float32
    """Of the forward pass; weights that are trained stay in float32 (autocast)."""
    temperature: float = 1.0
    """Log-probs are of softmax(logits / temperature): the sampling temperature for a policy, 1 for a PRM."""
    adapter: str | None = None
    adapters_off: bool = False

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        device: torch.device = next(self.model.parameters()).device
        return device

    @property
    def causal_lm(self) -> Any:
        """The Hugging Face model, without the adapters' wrapper."""
        return self.model.get_base_model() if isinstance(self.model, PeftModel) else self.model

    @property
    def shares_prompts(self) -> bool:
        """Whether rows that begin with the same prompt can have it read once."""
        return can_share_prompts(self.causal_lm)

    def trainable(self) -> list[tuple[str, nn.Parameter]]:
        """The parameters of this role: the adapter's, or all of them."""
        named = list(self.model.named_parameters())
        if self.adapter is not None:
            return [(name, p) for name, p in named if f".{self.adapter}." in name]
        return [] if self.adapters_off else named

    @contextmanager
    def speaking(self) -> Iterator[None]:
        """Inside, the shared model speaks for this role, in this role's precision."""
        autocast: Any = nullcontext()
        if self.compute_dtype != torch.float32:
            autocast = torch.autocast(self.device.type, dtype=self.compute_dtype)
        speaker: Any = nullcontext()
        if self.adapters_off:
            speaker = _adapters_off(self.model)
        elif self.adapter is not None:
            _activate(self.model, self.adapter)
        with speaker, autocast:
            yield

    def hidden_states(self, token_BT: Tensor) -> Tensor:
        """(B, T, D). Padding is on the right, so the causal mask alone keeps it out of every real position."""
        decoder = self.causal_lm.get_decoder()
        hidden_BTD: Tensor = decoder(input_ids=token_BT, use_cache=False).last_hidden_state
        return hidden_BTD

    def states_before_responses(self, token_BT: Tensor, response_mask_BT: Tensor) -> Tensor:
        """(N, D): the hidden state before each response token, row after row. A prompt that rows share is read once."""
        if self.shares_prompts:
            prompts = prompts_of(token_BT, response_mask_BT)
            if is_shared(prompts, self.device):
                return states_before_responses(self.causal_lm, token_BT, response_mask_BT, prompts)
        return self.hidden_states(token_BT)[:, :-1][response_mask_BT[:, 1:]]

    def outputs(self, batch: Batch, *, entropy: bool = False) -> TokenOutputs:
        """Log-prob, and entropy if asked, at every response token (0 elsewhere), differentiable. Hidden states of the
        prompt's tokens never meet the vocabulary."""
        token_BT = batch.token_BT.to(self.device)
        mask_BT = batch.response_mask_BT.to(self.device)
        with self.speaking():
            before_ND = self.states_before_responses(token_BT, mask_BT)
            head = self.causal_lm.get_output_embeddings()
            logp_N, entropy_N = token_logprobs(
                before_ND,
                head.weight,
                token_BT[mask_BT],
                bias_V=head.bias,
                temperature=self.temperature / self.logits_multiplier,
                entropy=entropy,
            )
        zeros_BT = torch.zeros(mask_BT.shape, dtype=logp_N.dtype, device=self.device)
        return TokenOutputs(
            output_BT=zeros_BT.masked_scatter(mask_BT, logp_N),
            entropy_BT=None if entropy_N is None else zeros_BT.masked_scatter(mask_BT, entropy_N),
        )

    @property
    def logits_multiplier(self) -> float:
        """The constant that the family multiplies its logits by."""
        return logits_multiplier(self.causal_lm)


@contextmanager
def _adapters_off(model: Any) -> Iterator[None]:
    with _requires_grad_kept(model), model.disable_adapter():
        yield


def _activate(model: Any, adapter: str) -> None:
    if model.active_adapter != adapter:
        with _requires_grad_kept(model):
            model.set_adapter(adapter)


@contextmanager
def _requires_grad_kept(model: Any) -> Iterator[None]:
    """PEFT freezes every adapter but the one it switches to; here each stays as its learner wants it."""
    wanted = [(p, p.requires_grad) for p in model.parameters()]
    try:
        yield
    finally:
        for parameter, requires_grad in wanted:
            parameter.requires_grad_(requires_grad)
