"""Small random models of several families, and batches for them. For the tests of the local engine."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor
from transformers import (
    CohereConfig,
    CohereForCausalLM,
    GemmaConfig,
    GemmaForCausalLM,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    GraniteConfig,
    GraniteForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from prmkit.data.types import Message, Prompt, Rollout
from prmkit.models.tiny import tiny_tokenizer
from prmkit.train.sft import Encoded, SFTBatch, sft_batch

COMMON: dict[str, Any] = {
    "vocab_size": 19,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 96,
    "pad_token_id": 0,
    "bos_token_id": None,
    "eos_token_id": 1,
}
LIKE_LLAMA: dict[str, Any] = {**COMMON, "num_key_value_heads": 4}
GROUPED: dict[str, Any] = {**COMMON, "num_key_value_heads": 2}
FAMILIES: dict[str, tuple[Any, Any]] = {
    "llama": (LlamaForCausalLM, LlamaConfig(**LIKE_LLAMA)),
    "llama_grouped_query_tied": (LlamaForCausalLM, LlamaConfig(**GROUPED, tie_word_embeddings=True)),
    "llama_biases": (LlamaForCausalLM, LlamaConfig(**GROUPED, attention_bias=True, mlp_bias=True)),
    "llama_scaled_rope": (
        LlamaForCausalLM,
        LlamaConfig(
            **GROUPED,
            rope_parameters={
                "rope_type": "llama3",
                "rope_theta": 10000.0,
                "factor": 8.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 16,
            },
        ),
    ),
    "qwen2": (Qwen2ForCausalLM, Qwen2Config(**GROUPED)),
    "qwen2_some_sliding": (
        Qwen2ForCausalLM,
        Qwen2Config(**GROUPED, use_sliding_window=True, sliding_window=5, max_window_layers=1),
    ),
    "qwen3": (Qwen3ForCausalLM, Qwen3Config(**GROUPED, head_dim=16)),
    "gemma": (GemmaForCausalLM, GemmaConfig(**GROUPED, head_dim=16)),
    "gpt_neox": (GPTNeoXForCausalLM, GPTNeoXConfig(**COMMON)),
    "mistral": (MistralForCausalLM, MistralConfig(**GROUPED, sliding_window=None)),
    "mistral_sliding": (MistralForCausalLM, MistralConfig(**GROUPED, sliding_window=6)),
    "granite": (
        GraniteForCausalLM,
        GraniteConfig(
            **GROUPED,
            logits_scaling=8.0,
            embedding_multiplier=12.0,
            residual_multiplier=0.22,
            attention_multiplier=0.3,
        ),
    ),
    "cohere": (CohereForCausalLM, CohereConfig(**GROUPED, logit_scale=0.25)),
}
"""Constructor and configuration by name; the vocabulary is that of `tiny_tokenizer`."""


def random_model(family: str = "llama", *, seed: int = 0, spread: float = 3.0) -> Any:
    """A model whose distributions are far from uniform (`spread` widens the output layer), in eval mode."""
    constructor, config = FAMILIES[family]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = constructor(deepcopy(config))
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if name.endswith("bias"):
                    parameter.normal_(std=0.1)
                elif parameter.dim() == 2:
                    parameter.mul_(spread if parameter is model.get_output_embeddings().weight else 4.0)
    return model.eval()


def own_logprobs(model: Any, ids: Sequence[int], temperature: float = 1.0) -> Tensor:
    """log softmax of the model's own logits for one unpadded sequence: entry [t, v] is of token t + 1."""
    with torch.no_grad():
        logits_TV = model(input_ids=torch.tensor([list(ids)]), use_cache=False).logits[0]
    logp_TV: Tensor = (logits_TV.float() / temperature).log_softmax(-1)
    return logp_TV


def logprobs_of_rollout(model: Any, rollout: Rollout, temperature: float = 1.0) -> Tensor:
    """What the model itself says of the rollout's tokens."""
    ids = [*rollout.prompt_token_ids, *rollout.token_ids]
    logp_TV = own_logprobs(model, ids, temperature)[len(rollout.prompt_token_ids) - 1 : -1]
    return logp_TV.gather(1, torch.tensor(rollout.token_ids)[:, None]).squeeze(1)


def question(text: str) -> Prompt:
    """A prompt that is its own text (the tiny chat template adds nothing)."""
    return Prompt(id=f"q/{text}", messages=(Message(role="user", content=text),), answer="")


QUESTIONS = [question(text) for text in ("3+8=?", "1+2+3+4+5=?", "7", "9-4+8+8=?")]
"""5, 11, 1 and 9 tokens: prompts of different lengths are padded on the left."""

TOKENIZER: Any = tiny_tokenizer(96)


def random_batch(lengths: Sequence[tuple[int, int]], *, seed: int = 0, vocab_size: int = 19) -> SFTBatch:
    """Random rows of (prompt, response) lengths."""
    generator = torch.Generator().manual_seed(seed)
    rows = []
    for num_prompt, num_response in lengths:
        ids = torch.randint(2, vocab_size, (num_prompt + num_response,), generator=generator).tolist()
        rows.append(Encoded(prompt_token_ids=tuple(ids[:num_prompt]), token_ids=tuple(ids[num_prompt:])))
    return sft_batch(rows)
