"""Models and tokenizers from local folders."""

from __future__ import annotations

import re
from difflib import get_close_matches
from pathlib import Path
from typing import Any, cast

import torch
from peft import PeftModel
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging

from prmkit.config import ModelConfig
from prmkit.data.chat import check_tokenizer
from prmkit.data.prm_spec import base_folder
from prmkit.errors import ConfigError, ModelError
from prmkit.models.folders import saved_models, write_folder_once
from prmkit.models.logits import check_logits
from prmkit.models.smollm2 import smollm2_folder
from prmkit.models.tiny import make_tiny

logging.disable_progress_bar()  # a bar per load says nothing that the commands do not

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
BUILT_IN = ("tiny", "smollm2")
NOISE = re.compile("dropout|pdrop|layerdrop|jitter")
"""In the names of rates of noise. `router_jitter_noise` is none: where PhiMoE's router reads it, in either mode, it is the
width of a tie; other families read it into `jitter_noise`."""


def resolve_model_path(path: str | Path, work_dir: Path, seed: int) -> Path:
    """The folder that `model.path` stands for; of a run folder, the last checkpoint's policy.

    `tiny` and `smollm2` are made under `work_dir` when not yet there; `tiny` has the weights that `seed` draws. Raises
    ModelError for a folder that is missing or holds no model.
    """
    match str(path):
        case "tiny":
            return write_folder_once(Path(work_dir) / f"tiny-{seed}", lambda folder: make_tiny(folder, seed=seed))
        case "smollm2":
            return smollm2_folder(Path(work_dir))
        case _:
            return _checked(newest_policy(Path(path).expanduser()))


def load_model(
    config: ModelConfig, *, work_dir: Path, seed: int, dtype: torch.dtype = torch.float32, chat: bool = True
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The causal LM, on its device and in eval mode, and its tokenizer. No random state is touched.

    `dtype` is that of the weights: float32 where they are trained; `compute_dtype(config)` suits frozen ones. Raises
    ModelError for a folder without model, weights, chat template or end token, or whose parts do not fit; without `chat`
    template and end token may be missing.
    """
    device = resolve_device(config)
    folder = resolve_model_path(config.path, work_dir, seed)
    tokenizer = load_tokenizer(folder, chat=chat)
    model = _read_adapter(folder, dtype) if is_adapter(folder) else _read_weights(folder, dtype)
    turn_off_dropout(model)
    known = model.get_input_embeddings().weight.shape[0]
    if len(tokenizer) > known:
        raise ModelError(
            f"{folder}: the tokenizer has {len(tokenizer)} tokens, the model knows {known}; "
            "save the tokenizer that belongs to the model"
        )
    model = model.train(False).to(device)
    check_logits(model, folder)
    return cast(PreTrainedModel, model), tokenizer


def turn_off_dropout(model: torch.nn.Module) -> None:
    """Log-probs are rewards and ratios here, so a forward pass must not be noisy, whatever mode the model is in.

    Families keep their rates under many names, in modules and, read at each forward pass, in configurations.
    """
    for module in model.modules():
        if isinstance(module, torch.nn.modules.dropout._DropoutNd):
            module.p = 0.0
        for holder in (module, getattr(module, "config", None)):
            for name, value in list(getattr(holder, "__dict__", {}).items()):
                if isinstance(value, float) and NOISE.search(name) and name != "router_jitter_noise":
                    setattr(holder, name, 0.0)


def is_adapter(folder: Path) -> bool:
    """Whether a folder holds a LoRA adapter, which names its base, and no whole model."""
    return (folder / "adapter_config.json").is_file() and not (folder / "config.json").is_file()


def load_tokenizer(folder: Path, *, chat: bool = True) -> PreTrainedTokenizerBase:
    """The folder's tokenizer, which has a chat template and an end token. Raises ModelError otherwise.

    `chat=False` is for layouts that use neither: base models often have no template.
    """
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(f"{folder}: the tokenizer cannot be loaded: {error}") from error
    if chat:
        check_tokenizer(tokenizer, folder)
    return tokenizer


def resolve_device(config: ModelConfig) -> torch.device:
    """`auto` takes a CUDA GPU where there is one. Raises ConfigError for `cuda` without one."""
    if config.device == "cuda" and not torch.cuda.is_available():
        raise ConfigError('model.device = "cuda", but torch sees no CUDA GPU; set model.device = "auto" or "cpu"')
    if config.device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(config.device)


def compute_dtype(config: ModelConfig) -> torch.dtype:
    """The precision of forward and backward passes."""
    return DTYPES[config.dtype]


def _read_weights(folder: Path, dtype: torch.dtype) -> Any:
    try:
        with torch.random.fork_rng(devices=[]):  # loading may draw weights before it replaces them
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                folder, local_files_only=True, dtype=dtype, attn_implementation="sdpa", output_loading_info=True
            )
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
        raise ModelError(f"{folder}: cannot be loaded as a causal language model: {error}") from error
    model, info = loaded
    if info["missing_keys"]:  # transformers would fill them with random numbers
        missing = sorted(info["missing_keys"])
        raise ModelError(
            f"{folder}: the weights lack {len(missing)} of the model's tensors, such as {missing[0]}; save the model again"
        )
    return model


def _read_adapter(folder: Path, dtype: torch.dtype) -> Any:
    """The base that the adapter names, with the adapter merged into its weights."""
    base = base_folder(folder)
    try:
        adapted: Any = PeftModel.from_pretrained(_read_weights(base, dtype), str(folder))
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise ModelError(f"{folder}: the adapter does not fit its base {base}: {error}") from error
    return adapted.merge_and_unload()


def newest_policy(folder: Path) -> Path:
    """The policy of the last checkpoint where the folder is a run's; otherwise the folder itself."""
    policies = saved_models(folder, "policy")
    return policies[-1] if policies and not (folder / "config.json").is_file() else folder


def _checked(folder: Path) -> Path:
    if not folder.exists():
        names = sorted(p.name for p in folder.parent.iterdir() if p.is_dir()) if folder.parent.is_dir() else []
        near = get_close_matches(folder.name, [*names, *BUILT_IN], n=1)
        advice = (
            f"did you mean {near[0]!r}?"
            if near
            else f"give a local folder (models are not downloaded), or one of: {', '.join(BUILT_IN)}"
        )
        raise ModelError(f"{folder}: no such model folder; {advice}")
    if not folder.is_dir():
        raise ModelError(f"{folder}: is a file; give the Hugging Face folder that holds it")
    if not (folder / "config.json").is_file() and not is_adapter(folder):
        inner = sorted(p.parent.name for p in folder.glob("*/config.json"))
        advice = f"its sub-folder {inner[0]!r} does" if inner else "it should be written by save_pretrained"
        raise ModelError(f"{folder}: holds no config.json; {advice}")
    return folder
