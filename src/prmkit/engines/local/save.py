"""Writing models in Hugging Face form, so that transformers and vLLM load them."""

from __future__ import annotations

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
    """The role's adapter in PEFT form; its configuration names the base, so AutoModelForCausalLM loads both."""
    path.mkdir(parents=True, exist_ok=True)
    assert model.adapter is not None
    weights = get_peft_model_state_dict(model.model, adapter_name=model.adapter)
    save_file({name: tensor.contiguous().cpu() for name, tensor in weights.items()}, path / "adapter_model.safetensors")
    model.model.peft_config[model.adapter].save_pretrained(path)
    model.causal_lm.config.save_pretrained(path)
    tokenizer.save_pretrained(path)


def save_value_model(value_model: ValueModel, tokenizer: Any, path: Path) -> None:
    """The body as a causal LM or adapter, the head beside it."""
    save = save_full if value_model.body.adapter is None else save_adapter
    save(value_model.body, tokenizer, path)
    head = {name: tensor.contiguous().cpu() for name, tensor in value_model.head.state_dict().items()}
    save_file(head, path / "value_head.safetensors")
