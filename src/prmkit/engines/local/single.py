"""One model by itself: for fine-tuning and for evaluation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from peft import get_peft_model

from prmkit.config import ModelConfig
from prmkit.engines.local.language_model import LanguageModel
from prmkit.engines.local.learner import LocalLearner
from prmkit.engines.local.roles import lora_config, refuse_adapter
from prmkit.engines.local.sampler import LocalSampler
from prmkit.engines.local.save import save_adapter, save_full
from prmkit.models.load import compute_dtype, load_model
from prmkit.train.config import SFTConfig


def sft_learner(config: SFTConfig, work_dir: Path) -> tuple[LocalLearner, Any]:
    """The model to fine-tune, with its optimizer, and its tokenizer."""
    model, tokenizer = _load(config.model, work_dir, config.seed)
    adapter = None
    if config.model.lora_rank:
        adapter = "policy"
        refuse_adapter(config.model.path)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            model = get_peft_model(model.requires_grad_(False), lora_config(config.model), adapter_name=adapter)
        model.train(False)
    if config.model.gradient_checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        model.train()
    speaker = LanguageModel(model=model, compute_dtype=compute_dtype(config.model), adapter=adapter)
    save = save_adapter if adapter else save_full
    learner = LocalLearner(
        speaker,
        config.optimizer,
        role="policy",
        total_steps=config.steps,
        save=lambda path: save(speaker, tokenizer, path),
    )
    return learner, tokenizer


def eval_sampler(config: ModelConfig, work_dir: Path, seed: int) -> tuple[LocalSampler, Any]:
    """A model that only samples, held in its compute precision, and its tokenizer."""
    model, tokenizer = _load(config, work_dir, seed, compute_dtype(config))
    return LocalSampler(LanguageModel(model=model), tokenizer), tokenizer


def _load(config: ModelConfig, work_dir: Path, seed: int, dtype: torch.dtype = torch.float32) -> tuple[Any, Any]:
    if config.threads:
        torch.set_num_threads(config.threads)
    return load_model(config, work_dir=work_dir, seed=seed, dtype=dtype)
