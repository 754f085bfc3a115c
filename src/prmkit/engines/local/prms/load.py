"""One loader for every family of PRM: the folder says what it holds, or the caller does."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Literal

import torch
from torch import nn

from prmkit.config import ModelConfig
from prmkit.data.prm_spec import PRMSpec, read_spec
from prmkit.engines.local.attention import attend_in_float32_when_short
from prmkit.engines.local.language_model import LanguageModel
from prmkit.engines.local.prms.classes import load_classes
from prmkit.engines.local.prms.families import LOG_PROBS, check_token_rewards, family_of, named_spec
from prmkit.engines.local.prms.labels import load_labels
from prmkit.engines.local.prms.log_ratio import load_log_ratio
from prmkit.engines.local.prms.prm import PRM, Head
from prmkit.engines.local.prms.values import load_values
from prmkit.errors import ModelError
from prmkit.models.folders import saved_models, work_dir
from prmkit.models.load import DTYPES, is_adapter, newest_policy, resolve_device
from prmkit.models.smollm2 import smollm2_folder


def load_prm(
    path: str | Path,
    *,
    spec: PRMSpec | str | None = None,
    reference: str = "",
    device: Literal["auto", "cpu", "cuda"] = "auto",
    dtype: Literal["float32", "bfloat16"] = "float32",
    tokens_per_batch: int = 16384,
    token_rewards: bool = False,
) -> PRM:
    """The PRM in a local folder: of a run folder, the model of its last checkpoint.

    What it is, is read from `spec` (or one of the names in `families.SPECS`), else from the folder's prm.json, else from its
    config.json. `reference`: of an implicit PRM, the folder of the reference or `base` (this adapter's base); it wins over the
    spec's. `token_rewards`: of an implicit PRM or log_prob, also the rewards of single tokens, as `StepRewards.tokens`. Weights
    are frozen and held in `dtype`. No code from the folder is run. Raises ModelError where the folder holds no PRM that is known,
    its parts do not fit, or its family has no token rewards.
    """
    folder = model_folder(Path(path).expanduser())
    known = named_spec(spec) if isinstance(spec, str) else spec or read_spec(folder) or family_of(folder)
    if reference:
        if known.family not in LOG_PROBS:
            raise ModelError(f"{folder}: a reference is for implicit PRMs; this one is of the family {known.family}")
        known = replace(known, family="implicit", reference=reference)
    if token_rewards:
        check_token_rewards(known, folder)
    head = _head(folder, known, DTYPES[dtype])
    _move(head, device)
    return PRM(head=head, spec=known, name=str(path), tokens_per_batch=tokens_per_batch, token_rewards=token_rewards)


def model_folder(folder: Path) -> Path:
    """The folder with the weights: of a run, its last checkpoint's PRM, else its policy.

    `smollm2` (the extra of that name) is made under `work_dir()` when not yet there. Raises ModelError where there is
    no model.
    """
    if str(folder) == "smollm2" and not folder.exists():
        return smollm2_folder(work_dir())
    prms = [] if (folder / "config.json").is_file() else saved_models(folder, "prm")
    found = prms[-1] if prms else newest_policy(folder)
    if not (found / "config.json").is_file() and not is_adapter(found):
        advice = "it has no config.json or adapter_config.json" if found.is_dir() else "there is no such folder"
        raise ModelError(f"{folder}: holds no model, {advice}; give a local Hugging Face folder or a run folder")
    return found


def _head(folder: Path, spec: PRMSpec, dtype: torch.dtype) -> Head:
    match spec.family:
        case "token_classification" | "process_reward":
            return load_classes(folder, spec, dtype)
        case "label_tokens" | "label_turns":
            return load_labels(folder, spec, dtype)
        case "value_head":
            return load_values(folder, spec, dtype)
        case "implicit":
            return load_log_ratio(folder, spec, spec.reference, dtype)
        case "log_prob":
            return load_log_ratio(folder, spec, "", dtype)


def _move(head: Head, device: Literal["auto", "cpu", "cuda"]) -> None:
    where = resolve_device(ModelConfig(device=device))
    for part in vars(head).values():
        module = part.model if isinstance(part, LanguageModel) else part
        if isinstance(module, nn.Module):
            if (
                where.type == "cpu"
                and next(module.parameters()).dtype == torch.bfloat16
                and isinstance(part, LanguageModel)
            ):
                attend_in_float32_when_short(part.causal_lm)
            module.to(where)
