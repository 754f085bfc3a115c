"""Log-probs of chosen tokens, straight from hidden states, in chunks over the vocabulary's rows of logits.

Shapes: N token positions, D hidden size, V vocabulary. Logits exist for `chunk_size` positions at a time, forwards and
backwards, so that memory does not grow with N x V.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

CHUNK_BYTES = 64 * 2**20
"""Largest size of one chunk of float32 logits."""
CACHED_BYTES = 8 * 2**20
"""Size of a chunk that stays in a processor's cache while it is worked on."""
EFFICIENT_POSITIONS = 256
"""Fewer positions than this make the products with a large vocabulary slow, so a chunk is then as large as it may be."""


def chunk_positions(num_tokens: int, vocab_size: int) -> int:
    """How many positions to handle at a time: their float32 logits fit a cache, or take at most CHUNK_BYTES."""
    row = 4 * vocab_size
    return max(1, min(num_tokens, CHUNK_BYTES // row, max(CACHED_BYTES // row, EFFICIENT_POSITIONS)))


class _TokenLogprobs(torch.autograd.Function):
    """Forward keeps one normaliser per position; backward makes the logits again, chunk by chunk."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden_ND: Tensor,
        weight_VD: Tensor,
        bias_V: Tensor | None,
        token_N: Tensor,
        inv_temperature: float,
        entropy: bool,
    ) -> tuple[Tensor, Tensor | None]:
        num_tokens, vocab_size = len(token_N), len(weight_VD)
        dtype = torch.promote_types(hidden_ND.dtype, torch.float32)
        logp_N = torch.empty(num_tokens, dtype=dtype, device=hidden_ND.device)
        entropy_N, logz_N = torch.empty_like(logp_N) if entropy else None, torch.empty_like(logp_N)
        narrow_VD = weight_VD.to(hidden_ND.dtype)
        for part in _chunks(num_tokens, vocab_size):
            logits_NV = _logits(hidden_ND[part], narrow_VD, bias_V, inv_temperature)
            logz = logits_NV.logsumexp(-1)
            logp_N[part] = logits_NV.gather(-1, token_N[part, None]).squeeze(-1) - logz
            if entropy_N is not None:
                entropy_N[part] = logz - (torch.exp(logits_NV - logz[:, None]) * logits_NV).sum(-1)
            logz_N[part] = logz
        ctx.save_for_backward(hidden_ND, weight_VD, bias_V, token_N, logz_N, entropy_N)
        ctx.inv_temperature = inv_temperature
        return logp_N, entropy_N

    @staticmethod
    @once_differentiable  # a second derivative would miss the normaliser's part
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor, Tensor | None, Tensor | None, None, None, None]:
        grad_logp_N, grad_entropy_N = grads
        hidden_ND, weight_VD, bias_V, token_N, logz_N, entropy_N = ctx.saved_tensors
        has_entropy_grad = entropy_N is not None and bool(grad_entropy_N.any())
        grad_hidden_ND = torch.empty_like(hidden_ND)
        sum_dtype = torch.promote_types(weight_VD.dtype, torch.float32)
        grad_weight_VD = torch.zeros_like(weight_VD, dtype=sum_dtype) if ctx.needs_input_grad[1] else None
        grad_bias_V = torch.zeros_like(bias_V) if bias_V is not None and ctx.needs_input_grad[2] else None
        narrow_VD = weight_VD.to(hidden_ND.dtype)
        for part in _chunks(len(token_N), len(weight_VD)):
            logits_NV = _logits(hidden_ND[part], narrow_VD, bias_V, ctx.inv_temperature)
            logp_NV = logits_NV - logz_N[part, None]
            p_NV = torch.exp(logp_NV)
            # d logp / d z = onehot - p;  d entropy / d z = -p * (log p + entropy)
            grad_NV = p_NV * -grad_logp_N[part, None]
            grad_NV.scatter_add_(-1, token_N[part, None], grad_logp_N[part, None].to(grad_NV.dtype))
            if has_entropy_grad:
                grad_NV -= grad_entropy_N[part, None] * p_NV * (logp_NV + entropy_N[part, None])
            if ctx.inv_temperature != 1.0:
                grad_NV *= ctx.inv_temperature
            narrow_NV = grad_NV.to(hidden_ND.dtype)
            grad_hidden_ND[part] = narrow_NV @ narrow_VD
            if grad_weight_VD is not None:
                grad_weight_VD += (narrow_NV.T @ hidden_ND[part]).to(sum_dtype)
            if grad_bias_V is not None:
                grad_bias_V += grad_NV.sum(0).to(grad_bias_V.dtype)
        weight_grad = None if grad_weight_VD is None else grad_weight_VD.to(weight_VD.dtype)
        return grad_hidden_ND, weight_grad, grad_bias_V, None, None, None


def _chunks(num_tokens: int, vocab_size: int) -> list[slice]:
    size = chunk_positions(num_tokens, vocab_size)
    return [slice(start, start + size) for start in range(0, num_tokens, size)]


def _logits(hidden_ND: Tensor, weight_VD: Tensor, bias_V: Tensor | None, inv_temperature: float) -> Tensor:
    logits_NV = hidden_ND @ weight_VD.T
    logits_NV = logits_NV.to(torch.promote_types(logits_NV.dtype, torch.float32))
    if bias_V is not None:
        logits_NV = logits_NV + bias_V
    return logits_NV if inv_temperature == 1.0 else logits_NV * inv_temperature


def token_logprobs(
    hidden_ND: Tensor,
    weight_VD: Tensor,
    token_N: Tensor,
    *,
    bias_V: Tensor | None = None,
    temperature: float = 1.0,
    entropy: bool = True,
) -> tuple[Tensor, Tensor | None]:
    """(logp_N, entropy_N) of softmax((hidden @ weight.T + bias) / temperature), in float32 or wider, in nats.

    hidden_ND[i] is the state *before* token_N[i]. Both outputs can be differentiated, for hidden, weight and bias.
    Without `entropy` the second is None, and its passes over the logits are spared.
    """
    if temperature <= 0:
        raise ValueError(f"temperature must be > 0 to have log-probs, got {temperature}")
    device_type = hidden_ND.device.type
    if torch.is_autocast_enabled(device_type):
        # Backward runs outside autocast; only the narrow dtype makes it rebuild the logits that forward normalised.
        hidden_ND = hidden_ND.to(torch.get_autocast_dtype(device_type))
    apply: Any = _TokenLogprobs.apply  # untyped in torch
    logp_N, entropy_N = apply(hidden_ND, weight_VD, bias_V, token_N, 1.0 / temperature, entropy)
    return logp_N, entropy_N
