"""The model to be trained, as far as the doctor needs it: its tokenizer and its context, no weights."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from transformers import AutoConfig, AutoTokenizer, PreTrainedTokenizerBase

from prmkit.errors import ModelError
from prmkit.models.folders import saved_models
from prmkit.models.load import resolve_model_path

NO_LIMIT = 1_000_000
"""Context of a model that states none."""


@dataclass(frozen=True, kw_only=True)
class Patient:
    """What is examined."""

    folder: Path
    tokenizer: PreTrainedTokenizerBase
    context: int
    """Longest sequence that the model reads."""


def load_patient(path: str, work_dir: Path) -> Patient:
    """Tokenizer and context of a model folder, of a run's last checkpoint, or of `tiny` or `smollm2`.

    Raises ModelError where one is missing.
    """
    run = Path(path).expanduser()
    prms = [] if saved_models(run, "policy") else saved_models(run, "prm")
    folder = resolve_model_path(prms[-1] if prms and not (run / "config.json").is_file() else path, work_dir, seed=0)
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(f"{folder}: the tokenizer cannot be loaded: {error}") from error
    context = NO_LIMIT
    if (folder / "config.json").is_file():
        try:
            config = AutoConfig.from_pretrained(folder, local_files_only=True)
        except (OSError, ValueError, KeyError) as error:
            raise ModelError(f"{folder}: config.json cannot be used: {error}") from error
        context = int(getattr(config.get_text_config(), "max_position_embeddings", None) or NO_LIMIT)
    return Patient(folder=folder, tokenizer=tokenizer, context=context)
