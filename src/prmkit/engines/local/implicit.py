"""The models of an offline implicit PRM's run: what is trained, and the reference beside it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from peft import get_peft_model

from prmkit.data.prm_spec import PRMSpec, base_folder, read_spec, write_spec
from prmkit.engines.local.attention import attend_in_float32_when_short
from prmkit.engines.local.language_model import LanguageModel
from prmkit.engines.local.learner import LocalLearner
from prmkit.engines.local.roles import FrozenModel, lora_config, narrow_linears, refuse_adapter
from prmkit.engines.local.save import frozen_base, save_adapter, save_full
from prmkit.errors import ConfigError, ModelError
from prmkit.models.folders import saved_models
from prmkit.models.load import compute_dtype, load_model, resolve_model_path
from prmkit.train.implicit_config import ImplicitConfig

ADAPTER = "prm"


@dataclass(frozen=True, kw_only=True)
class ImplicitModels:
    """What is trained and what it is compared with."""

    config: ImplicitConfig
    model: LanguageModel
    reference: FrozenModel | None
    tokenizer: Any
    reference_name: str
    """As prm.json names it."""
    frozen: Mapping[str, Path]
    """For `RunFolder.open`: folders of what never trains, by the key that names them."""

    @property
    def context(self) -> int:
        """The longest sequence that both models take."""
        speakers = [self.model, *([] if self.reference is None else [self.reference.model])]
        return min(int(speaker.causal_lm.config.max_position_embeddings) for speaker in speakers)

    def learner(self, total_steps: int) -> LocalLearner:
        """The model with its optimizer."""
        return LocalLearner(self.model, self.config.optimizer, role="prm", total_steps=total_steps)

    def save(self, path: Path, *, separator: str) -> None:
        """Weights or adapter, tokenizer and prm.json: a folder for `load_prm`."""
        save = save_full if self.model.adapter is None else save_adapter
        save(self.model, self.tokenizer, path)
        reference = "" if self.config.score_without_reference else self.reference_name
        write_spec(path, PRMSpec(family="implicit", separator=separator, beta=self.config.beta, reference=reference))


def implicit_models(config: ImplicitConfig, work_dir: Path) -> ImplicitModels:
    """The model to train (all weights, or a LoRA adapter) and its reference.

    reference = "model": the initial weights in a frozen copy, or with LoRA the base with the adapter off, which needs no
    second model. Raises ModelError for a reference with another vocabulary, ConfigError for a trained PRM that would forget.
    """
    if config.model.threads:
        torch.set_num_threads(config.model.threads)
    config = replace(config, model=replace(config.model, path=_start(config)))
    loaded, tokenizer = load_model(config.model, work_dir=work_dir, seed=config.seed)
    precision, adapter = compute_dtype(config.model), None
    model = _prepared(loaded, config)
    if config.model.lora_rank:
        refuse_adapter(config.model.path)
        adapter = ADAPTER
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            base = narrow_linears(model.requires_grad_(False), precision)
            model = get_peft_model(base, lora_config(config.model), adapter_name=adapter)
        model.train(config.model.gradient_checkpointing)
    speaker = LanguageModel(model=model, compute_dtype=precision, adapter=adapter)
    reference, name = _reference(config, work_dir, speaker, tokenizer)
    frozen = None
    if reference is not None:
        frozen = FrozenModel(model=reference, tokens_per_microbatch=config.optimizer.tokens_per_microbatch)
    folders = frozen_base(speaker)
    if frozen is not None and name != "base":
        folders["model.path" if config.reference == "model" else "reference"] = Path(name)
    return ImplicitModels(
        config=config, model=speaker, reference=frozen, tokenizer=tokenizer, reference_name=name, frozen=folders
    )


def _reference(
    config: ImplicitConfig, work_dir: Path, speaker: LanguageModel, tokenizer: Any
) -> tuple[LanguageModel | None, str]:
    """The reference, and what prm.json calls it."""
    if config.reference == "none":
        return None, ""
    if config.reference == "model" and speaker.adapter is not None:
        return replace(speaker, adapter=None, adapters_off=True), "base"
    path = config.model.path if config.reference == "model" else config.reference
    settings = replace(config.model, path=path)
    model, own_tokenizer = load_model(settings, work_dir=work_dir, seed=config.seed)
    if own_tokenizer.get_vocab() != tokenizer.get_vocab():
        raise ModelError(
            f"reference = {path!r} has another vocabulary than model.path; token rewards need the same tokens"
        )
    frozen = narrow_linears(_attending(model, config).requires_grad_(False), compute_dtype(config.model))
    name = str(resolve_model_path(path, work_dir, config.seed).resolve())
    return LanguageModel(model=frozen, compute_dtype=speaker.compute_dtype), name


def _start(config: ImplicitConfig) -> str:
    """model.path; of a run without a policy, its last checkpoint's PRM.

    Raises ConfigError for an implicit PRM that would be its own reference: all its rewards would start at 0.
    """
    path = Path(config.model.path).expanduser()
    prms = [] if saved_models(path, "policy") else saved_models(path, ADAPTER)
    folder = prms[-1] if prms else path
    spec = read_spec(folder)
    if config.reference == "model" and spec is not None and spec.family == "implicit":
        named = str(base_folder(folder)) if spec.reference == "base" else "none"
        if spec.reference not in ("", "base"):
            named = str((folder / spec.reference).resolve())
        raise ConfigError(
            f'{folder} is an implicit PRM, and with reference = "model" it would be its own reference and lose what it has '
            f'learned; to go on with it, set reference = "{named}"'
        )
    return str(prms[-1]) if prms else config.model.path


def _prepared(model: Any, config: ImplicitConfig) -> Any:
    model = _attending(model, config)
    if config.model.gradient_checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        model.train()  # checkpointing acts in train mode only; dropout is off
    return model


def _attending(model: Any, config: ImplicitConfig) -> Any:
    if config.model.dtype == "bfloat16" and model.device.type == "cpu":
        attend_in_float32_when_short(model)
    return model
