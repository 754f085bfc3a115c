"""Weights and tokenizers of reward models from folders, with every fault named."""

from __future__ import annotations

import json
import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from safetensors import SafetensorError, safe_open
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from prmkit.data.layouts import plain_ids
from prmkit.data.prm_spec import PRMSpec, base_folder
from prmkit.engines.local.language_model import LanguageModel
from prmkit.errors import ModelError
from prmkit.models.load import is_adapter, turn_off_dropout
from prmkit.models.logits import check_logits

READ_ERRORS = (OSError, ValueError, RuntimeError, KeyError, TypeError, SafetensorError)
"""What transformers, PEFT and safetensors raise for a folder that is no good."""


def read_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """The folder's tokenizer. Raises ModelError where there is none."""
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )
    except READ_ERRORS as error:
        raise ModelError(f"{folder}: the tokenizer cannot be loaded: {error}") from error
    return tokenizer


def read_weights(
    folder: Path, auto_class: Any, dtype: torch.dtype, *, may_lack: Sequence[str] = (), **settings: Any
) -> Any:
    """The model of `auto_class` in a folder, in eval mode, dropout off, on the CPU. No random state is touched.

    Raises ModelError where it cannot be loaded or tensors are missing that do not begin with one of `may_lack`: transformers
    would fill them with random numbers.
    """
    try:
        with torch.random.fork_rng(devices=[]):
            model, info = auto_class.from_pretrained(
                folder, local_files_only=True, dtype=dtype, output_loading_info=True, **settings
            )
    except READ_ERRORS as error:
        raise ModelError(f"{folder}: cannot be loaded as {named(auto_class)}: {error}") from error
    missing = sorted(key for key in info["missing_keys"] if not key.startswith(tuple(may_lack)))
    if missing:
        raise ModelError(
            f"{folder}: the weights lack {len(missing)} of the tensors of {named(auto_class)}, such as {missing[0]}; "
            "save the model again, or name another family"
        )
    return frozen(model)


def read_merged(
    folder: Path, auto_class: Any, dtype: torch.dtype, *, may_lack: Sequence[str] = (), **settings: Any
) -> Any:
    """As `read_weights`; of an adapter's folder, its base with the adapter merged in."""
    if not is_adapter(folder):
        return read_weights(folder, auto_class, dtype, may_lack=may_lack, **settings)
    return frozen(read_adapted(folder, auto_class, dtype, **settings).merge_and_unload())


def read_adapted(folder: Path, auto_class: Any, dtype: torch.dtype, **settings: Any) -> Any:
    """The base that an adapter's folder names, wrapped with the adapter. Heads that the adapter brings replace the base's."""
    base = base_folder(folder)
    brought = configuration(folder).get("modules_to_save") or ()
    model = read_weights(base, auto_class, dtype, may_lack=tuple(brought), **settings)
    try:
        adapted: Any = PeftModel.from_pretrained(model, str(folder))
    except READ_ERRORS as error:
        raise ModelError(f"{folder}: the adapter does not fit its base {base}: {error}") from error
    return frozen(adapted)


def frozen(model: Any) -> Any:
    """Eval mode, no dropout, no gradients."""
    turn_off_dropout(model)
    return model.train(False).requires_grad_(False)


def check_vocabulary(tokenizer: PreTrainedTokenizerBase, model: Any, folder: Path) -> None:
    """Raises ModelError where the tokenizer has tokens that the model has no embedding for."""
    known = model.get_input_embeddings().weight.shape[0]
    if len(tokenizer) > known:
        raise ModelError(
            f"{folder}: the tokenizer has {len(tokenizer)} tokens, the model knows {known}; "
            "save the tokenizer that belongs to the model"
        )


def one_token(tokenizer: PreTrainedTokenizerBase, text: str, what: str, folder: Path) -> int:
    """The id of a text that must be one token. Raises ModelError naming `what` where it is none, several, or unknown."""
    ids = plain_ids(tokenizer, text, what)
    if len(ids) != 1:
        raise ModelError(
            f"{folder}: {what} {text!r} is {len(ids)} tokens {list(ids)} in this tokenizer, and must be one; "
            "add it to the tokenizer as it was when the model was trained, or name another in the spec"
        )
    if ids[0] == tokenizer.unk_token_id:
        raise ModelError(f"{folder}: this tokenizer does not know {what} {text!r}; name one that it knows in the spec")
    return ids[0]


def check_speech(model: LanguageModel, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Raises ModelError for a language model whose logits cannot be made from its hidden states here, or that lacks tokens."""
    check_vocabulary(tokenizer, model.causal_lm, folder)
    check_logits(model.causal_lm, folder)


def check_separator(tokenizer: PreTrainedTokenizerBase, separator: str, folder: Path) -> None:
    """Raises ModelError for a separator that is no token at all in this tokenizer, or an unknown one."""
    ids = plain_ids(tokenizer, separator, "the separator")
    if not ids or (ids[-1] == tokenizer.unk_token_id and tokenizer.unk_token != separator):
        raise ModelError(
            f"{folder}: this tokenizer does not know the separator {separator!r}; name the one of training in the spec"
        )


def check_prompt_form(tokenizer: PreTrainedTokenizerBase, spec: PRMSpec, folder: Path) -> None:
    """Raises ModelError where the spec wants a chat template and the tokenizer has none, or where it says something that its
    family does not do."""
    always = spec.family in ("label_turns", "implicit", "log_prob")
    if always and not spec.chat:
        raise ModelError(
            f"{folder}: chat = false, but the family {spec.family} always reads the prompt through the chat template; leave "
            "chat at true, and set the tokenizer's chat_template where the model was trained on another form"
        )
    templated = always or (spec.chat and not spec.one_text)
    if spec.system and not templated:
        form = "one_text = true" if spec.one_text else "chat = false"
        raise ModelError(
            f"{folder}: system = {spec.system!r} is set, but a {spec.family} model with {form} reads the prompt without chat "
            "template, which has no place for it; leave system empty, and put such words into the prompt"
        )
    _check_applies(spec, folder)
    if templated and tokenizer.chat_template is None:
        raise ModelError(
            f"{folder}: the tokenizer has no chat template; add chat_template.jinja to the folder, or give spec with chat=False "
            "where the model was trained on plain prompts"
        )


def _check_applies(spec: PRMSpec, folder: Path) -> None:
    """Raises ModelError for what a spec says and its family, or another of its values, would not heed."""
    family, reason = spec.family, ""
    if spec.one_text and family != "label_tokens":
        reason = (
            "one_text = true, but only label_tokens reads prompt, steps and separators as one text; set it to false"
        )
    elif spec.one_text and spec.chat:
        reason = (
            "chat = true, but one_text = true reads the prompt's text without chat template; set one of them to false"
        )
    elif spec.after_prompt and spec.chat and family != "label_turns":
        reason = f"after_prompt = {spec.after_prompt!r}, but a chat template ends the prompt; leave it empty, or set chat = false"
    elif family == "label_turns" and spec.separator not in ("", PRMSpec.separator):
        reason = (
            f"separator = {spec.separator!r}, but each step is a turn of a chat, with nothing after it; leave it out"
        )
    elif spec.labels and family in ("value_head", "implicit", "log_prob"):
        reason = f"labels = {spec.labels}, but the family has none to read; leave them out"
    if reason:
        raise ModelError(f"{folder}: the spec of this {family} model has {reason}")


def configuration(folder: Path) -> Mapping[str, Any]:
    """config.json, or adapter_config.json of an adapter. Raises ModelError for one that cannot be read."""
    file = folder / ("adapter_config.json" if is_adapter(folder) else "config.json")
    try:
        settings: Mapping[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{file}: cannot be read: {error}; save the model again") from error
    return settings


def tensors_named(folder: Path, prefix: str) -> dict[str, torch.Tensor]:
    """The tensors of a folder's weights whose names begin with `prefix`, from safetensors files, else from pickled ones."""
    found: dict[str, torch.Tensor] = {}
    try:
        for file in sorted(folder.glob("model*.safetensors")):
            with safe_open(file, framework="pt") as weights:
                found |= {name: weights.get_tensor(name) for name in weights.keys() if name.startswith(prefix)}  # noqa: SIM118
        if not found:
            for file in sorted(folder.glob("pytorch_model*.bin")):
                loaded = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
                found |= {name: tensor for name, tensor in loaded.items() if name.startswith(prefix)}
    except (*READ_ERRORS, pickle.UnpicklingError) as error:
        raise ModelError(f"{folder}: its weights cannot be read: {error}; copy or save them again") from error
    return found


def context_of(model: Any) -> int | None:
    """The longest sequence that the model was made for."""
    limit = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    return int(limit) if limit else None


def named(auto_class: Any) -> str:
    """What a user calls it."""
    return str(auto_class.__name__).removeprefix("AutoModelFor")
