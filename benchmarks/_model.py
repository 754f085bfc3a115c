"""The model that the speed benchmarks time: a random Llama whose responses have the lengths that one asks for."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

PAD, EOS = 0, 1


@dataclass(frozen=True, kw_only=True)
class Shape:
    """Sizes of the model and of one RL step."""

    vocab: int = 2048
    hidden: int = 256
    intermediate: int = 688
    layers: int = 4
    heads: int = 8
    kv_heads: int = 8
    prompts: int = 8
    samples: int = 8
    prompt_tokens: int = 16
    max_tokens: int = 64


def make_model(folder: Path, shape: Shape, p_end: float, seed: int = 0) -> Path:
    """Write model and tokenizer. Each token ends the response with probability `p_end` (0: never).

    Feature 0 of the residual stream is the same for all tokens and no layer writes to it, so after the last norm it is
    positive; the output layer reads the end token's logit from it alone.
    """
    config = LlamaConfig(
        vocab_size=shape.vocab,
        hidden_size=shape.hidden,
        intermediate_size=shape.intermediate,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        max_position_embeddings=2048,
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=EOS,
        pad_token_id=PAD,
    )
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        model = LlamaForCausalLM(config)
        embedding, head = model.get_input_embeddings().weight, model.get_output_embeddings().weight
        embedding[:, 0] = embedding.std() * math.sqrt(shape.hidden)
        for layer in model.model.layers:
            layer.self_attn.o_proj.weight[0] = 0
            layer.mlp.down_proj.weight[0] = 0
        head[:, 0] = 0
        head[EOS] = 0
        head[EOS, 0] = _end_weight(model, shape, p_end)
    model.generation_config = GenerationConfig(eos_token_id=EOS, pad_token_id=PAD)
    model.save_pretrained(folder)
    tokenizer(shape).save_pretrained(folder)
    return folder


def _end_weight(model: LlamaForCausalLM, shape: Shape, p_end: float) -> float:
    """The end token's logit per unit of feature 0."""
    token_BT = torch.randint(2, shape.vocab, (8, 32))
    hidden_BTD = model.model(token_BT).last_hidden_state
    feature = float(hidden_BTD[..., 0].mean())
    if p_end == 0:
        return -30 / feature
    others = float(model.lm_head(hidden_BTD)[..., 2:].logsumexp(-1).mean())
    return (others + math.log(p_end / (1 - p_end))) / feature


def tokenizer(shape: Shape) -> PreTrainedTokenizerFast:
    """One token per word `w<number>`."""
    vocabulary = {"<pad>": PAD, "<eos>": EOS} | {f"w{i}": i for i in range(2, shape.vocab)}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="w2"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made = PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="<pad>", eos_token="<eos>", model_max_length=2048
    )
    made.chat_template = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
    return made


def questions(shape: Shape, num: int, seed: int = 0) -> list[str]:
    """Prompts of `prompt_tokens` random words."""
    draw = random.Random(seed)
    return [" ".join(f"w{draw.randrange(2, shape.vocab)}" for _ in range(shape.prompt_tokens)) for _ in range(num)]


def judge(text: str) -> float:
    """A cheap verdict that differs between siblings: whether the text has an even number of characters."""
    return float(len(text) % 2 == 0)
