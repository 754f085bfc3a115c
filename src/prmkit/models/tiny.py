"""A small Llama with a character tokenizer, made from scratch: nothing to download, and it learns on one CPU core."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

PAD = "<pad>"
EOS = "<eos>"
CHARACTERS = "0123456789+-=;#? "
"""All that the tokenizer knows; any other character is an error, never an unknown token."""
CHAT_TEMPLATE = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
"""Contents one after the other: the model is too small to spend tokens on roles."""

Size = Literal["tiny", "micro"]


@dataclass(frozen=True, kw_only=True)
class Shape:
    """Sizes of a Llama. Heads are `hidden / heads` wide."""

    hidden: int
    intermediate: int
    layers: int
    heads: int


SHAPES: dict[Size, Shape] = {
    "tiny": Shape(hidden=128, intermediate=256, layers=3, heads=4),
    "micro": Shape(hidden=32, intermediate=64, layers=2, heads=2),
}
"""tiny: 0.49 million parameters, learns `arithmetic`. micro: 21 thousand, for tests of the machinery."""


def make_tiny(path: str | Path, *, seed: int, context: int = 512, size: Size = "tiny") -> Path:
    """Write a fresh model and tokenizer as a Hugging Face folder; the same seed writes the same bytes.

    The global random state is left as it was.
    """
    path = Path(path)
    tokenizer = tiny_tokenizer(context)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LlamaForCausalLM(_config(SHAPES[size], tokenizer, context))
    model.generation_config = GenerationConfig(eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id)
    model.save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


def tiny_tokenizer(context: int = 512) -> PreTrainedTokenizerFast:
    """One token per character of `CHARACTERS`, with a padding and an end token."""
    vocabulary = {token: index for index, token in enumerate([PAD, EOS, *CHARACTERS])}
    backend = Tokenizer(models.WordLevel(vocabulary))
    backend.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    backend.decoder = decoders.Fuse()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token=PAD,
        eos_token=EOS,
        model_max_length=context,
        clean_up_tokenization_spaces=False,
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def _config(shape: Shape, tokenizer: PreTrainedTokenizerFast, context: int) -> LlamaConfig:
    return LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=shape.hidden,
        intermediate_size=shape.intermediate,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.heads,
        max_position_embeddings=context,
        # Llama's 0.02 suits wide models; at this width 1 / sqrt(hidden) needs half as many SFT steps for the same loss.
        initializer_range=shape.hidden**-0.5,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
