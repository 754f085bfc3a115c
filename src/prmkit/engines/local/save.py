"""Writing models in Hugging Face form, so that transformers and vLLM load them."""

from __future__ import annotations

from copy import copy
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peft import get_peft_model_state_dict
from safetensors.torch import save_file

from prmkit.engines.local.language_model import LanguageModel

if TYPE_CHECKING:
    from prmkit.engines.local.value_model import ValueModel


def save_full(model: LanguageModel, tokenizer: Any, path: Path) -> None:
    """All weights, configuration and tokenizer."""
    model.causal_lm.save_pretrained(path)
    tokenizer.save_pretrained(path)


def save_adapter(model: LanguageModel, tokenizer: Any, path: Path) -> None:
    """The role's adapter in PEFT form; its configuration names the base, so AutoModelForCausalLM loads both.

    There is no config.json beside it, which would claim that the folder holds the base's weights too.
    """
    path.mkdir(parents=True, exist_ok=True)
    assert model.adapter is not None
    weights = get_peft_model_state_dict(model.model, adapter_name=model.adapter)
    save_file({name: tensor.contiguous().cpu() for name, tensor in weights.items()}, path / "adapter_model.safetensors")
    settings = copy(model.model.peft_config[model.adapter])
    settings.base_model_name_or_path = str(Path(settings.base_model_name_or_path).resolve())
    settings.inference_mode = True
    for name, value in vars(settings).items():
        if isinstance(value, set):  # its order differs between processes
            setattr(settings, name, sorted(value))
    settings.save_pretrained(path)
    tokenizer.save_pretrained(path)


def frozen_base(model: LanguageModel) -> dict[str, Path]:
    """For `RunFolder.open`: the folder of the base that an adapter trains on, which no checkpoint holds; else nothing."""
    if model.adapter is None:
        return {}
    return {"model.path": Path(model.model.peft_config[model.adapter].base_model_name_or_path).resolve()}


def save_value_model(value_model: ValueModel, tokenizer: Any, path: Path) -> None:
    """The body as a causal LM or adapter, the head beside it."""
    save = save_full if value_model.body.adapter is None else save_adapter
    save(value_model.body, tokenizer, path)
    head = {name: tensor.contiguous().cpu() for name, tensor in value_model.head.state_dict().items()}
    save_file(head, path / "value_head.safetensors")
