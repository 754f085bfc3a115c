from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM

from prmkit.models.tiny import CHARACTERS, make_tiny, tiny_tokenizer
from prmkit.tasks.arithmetic import demonstrations


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_the_same_seed_writes_the_same_bytes_and_leaves_the_random_state(tmp_path: Path) -> None:
    before = torch.get_rng_state()
    a, b, c = (make_tiny(tmp_path / name, seed=seed, size="micro") for name, seed in (("a", 3), ("b", 3), ("c", 4)))
    assert torch.equal(torch.get_rng_state(), before)
    assert contents(a) == contents(b)
    assert contents(a)["model.safetensors"] != contents(c)["model.safetensors"]
    assert contents(a)["tokenizer.json"] == contents(c)["tokenizer.json"]


def test_the_folder_loads_with_transformers(tmp_path: Path) -> None:
    make_tiny(tmp_path / "m", seed=0, context=64)
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "m")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "m")
    assert isinstance(model, LlamaForCausalLM)
    # Embedding 19 * 128 = 2432, tied to the head. A layer: attention 4 * 128 * 128 = 65536, MLP 3 * 128 * 256 = 98304,
    # two norms 256, together 164096. Three layers 492288, final norm 128: 494848.
    assert model.num_parameters() == 494848
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert model.config.max_position_embeddings == tokenizer.model_max_length == 64
    assert (tokenizer.pad_token_id, tokenizer.eos_token_id) == (0, 1)
    assert (model.config.pad_token_id, model.config.eos_token_id) == (0, 1)
    assert (model.generation_config.pad_token_id, model.generation_config.eos_token_id) == (0, 1)
    assert tokenizer.chat_template == tiny_tokenizer().chat_template


def test_one_token_per_character_and_back() -> None:
    tokenizer = tiny_tokenizer()
    ids = tokenizer(CHARACTERS)["input_ids"]
    assert ids == list(range(2, 19))
    assert tokenizer.decode([0, *ids, 1], skip_special_tokens=True) == CHARACTERS
    assert tokenizer.decode([5, 12, 1]) == "3+<eos>"


@pytest.mark.parametrize("text", ["a", "3+\n", "3\u00d78", "\u0663"])
def test_an_unknown_character_is_an_error(text: str) -> None:
    with pytest.raises(Exception, match="WordLevel error"):
        tiny_tokenizer()(text)


def test_every_demonstration_can_be_written() -> None:
    tokenizer = tiny_tokenizer()
    for prompt, text in demonstrations(50, chain=8, misconceptions="pairs", error_rate=0.5, seed=0):
        whole = prompt.messages[0].content + text
        assert tokenizer.decode(tokenizer(whole)["input_ids"]) == whole
