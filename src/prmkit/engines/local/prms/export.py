"""A loaded PRM in the form that transformers and vLLM load. Each form gives the same numbers, or is refused."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from prmkit.data.layouts import plain_ids
from prmkit.data.prm_spec import PRMSpec, base_folder, write_spec
from prmkit.engines.local.prms.classes import ClassHead
from prmkit.engines.local.prms.labels import LabelHead
from prmkit.engines.local.prms.load import load_prm, model_folder
from prmkit.engines.local.prms.log_ratio import LogRatioHead, reference_folder
from prmkit.engines.local.prms.process_reward import Qwen2ForProcessRewardModel
from prmkit.engines.local.prms.reading import configuration, read_merged
from prmkit.engines.local.prms.values import ValueHead
from prmkit.engines.local.stepwise import head_name, name_classes, with_head
from prmkit.errors import ConfigError, ModelError
from prmkit.models.export_config import Form
from prmkit.models.folders import write_folder_once
from prmkit.models.load import is_adapter

REFERENCE = "reference"
"""Sub-folder of an exported implicit PRM."""
POOLER = "pooler_config.json"
CLASS_NAMES = ("wrong", "right", "neutral")


@dataclass(frozen=True, kw_only=True)
class Export:
    """What is written: `spec` goes into prm.json, `pooler` into pooler_config.json (None: vLLM has no use for one)."""

    form: Form
    model: Any
    spec: PRMSpec
    pooler: dict[str, Any] | None
    reference: Any = None
    """Of an implicit PRM."""


def export_prm(path: str | Path, out: str | Path, form: Form = "auto") -> Export:
    """Write the PRM in `path` to the new folder `out`, weights in the precision that they have there, and in float32 where that
    would round them: a merged adapter is finer than its base, and a head may be.

    Raises ConfigError where `out` is there already, ModelError where the form cannot hold the model, with the reason.
    """
    out = Path(out).expanduser()
    if out.exists():
        raise ConfigError(f"out = {str(out)!r} is there already; give a new folder, or remove that one")
    folder = model_folder(Path(path).expanduser())
    prm = load_prm(folder, device="cpu")
    export = _export(prm.head, prm.spec, folder, form)
    dtype = _stored_dtype(folder)

    def write(aside: Path) -> None:
        export.model.to(_exact(export.model, dtype)).save_pretrained(aside)
        prm.head.tokenizer.save_pretrained(aside)
        if export.reference is not None:
            export.reference.to(_exact(export.reference, dtype)).save_pretrained(aside / REFERENCE)
            prm.head.tokenizer.save_pretrained(aside / REFERENCE)
        write_spec(aside, export.spec)
        if export.pooler is not None:
            (aside / POOLER).write_text(json.dumps(export.pooler) + "\n", encoding="utf-8")
        (aside / "README.md").write_text(readme(export, out), encoding="utf-8")

    write_folder_once(out, write)
    return export


def _export(head: Any, spec: PRMSpec, folder: Path, form: Form) -> Export:
    if form == "auto":
        by_head = {LogRatioHead: "causal_lm", LabelHead: "causal_lm"}
        process = isinstance(head, ClassHead) and isinstance(head.model, Qwen2ForProcessRewardModel)
        form = by_head.get(type(head), "process_reward" if process else "token_classification")  # type: ignore[assignment]
    match form:
        case "causal_lm":
            return _causal_lm(head, spec, folder)
        case "process_reward":
            return _process_reward(head, spec, folder)
        case _:
            return _token_classification(head, spec, folder)


def _causal_lm(head: Any, spec: PRMSpec, folder: Path) -> Export:
    match head:
        case LabelHead():
            pooler = _step_pooler(head, spec) if spec.family == "label_tokens" else None
            return Export(form="causal_lm", model=head.model.causal_lm, spec=spec, pooler=pooler)
        case LogRatioHead():
            where = reference_folder(folder, spec.reference if spec.family == "implicit" else "")
            reference = None if where is None else read_merged(where, AutoModelForCausalLM, torch.float32)
            model = read_merged(folder, AutoModelForCausalLM, torch.float32)
            told = replace(spec, reference=REFERENCE if reference is not None else "")
            return Export(form="causal_lm", model=model, spec=told, pooler=None, reference=reference)
    raise ModelError(
        f"{folder}: a {spec.family} model reads its numbers from a head of its own, which a causal LM has no place for; "
        'use form = "token_classification"'
    )


def _token_classification(head: Any, spec: PRMSpec, folder: Path) -> Export:
    if isinstance(head, ClassHead) and not isinstance(head.model, Qwen2ForProcessRewardModel):
        model = head.model
        names = spec.labels or (CLASS_NAMES[:2] if head.right == (1,) and model.config.num_labels == 2 else ())
        if names:
            name_classes(model.config, names)
        return Export(form="token_classification", model=model, spec=spec, pooler=_step_pooler(head, spec))
    weight_CD, bias_C, body = _linear_head(head, spec, folder, "token_classification")
    model = with_head(body, len(weight_CD), folder)
    names = CLASS_NAMES[: len(weight_CD)]
    name_classes(model.config, names)
    layer = getattr(model, head_name(model, folder))
    if layer.bias is None and bias_C.any():
        raise ModelError(f"{folder}: the token classifier of this model family has no bias, which this head needs")
    with torch.no_grad():
        layer.weight.copy_(weight_CD)
        if layer.bias is not None:
            layer.bias.copy_(bias_C)
    told = replace(spec, family="token_classification", labels=names)
    return Export(form="token_classification", model=model, spec=told, pooler=_step_pooler(head, told))


def _process_reward(head: Any, spec: PRMSpec, folder: Path) -> Export:
    if isinstance(head, ClassHead) and isinstance(head.model, Qwen2ForProcessRewardModel):
        return Export(form="process_reward", model=head.model, spec=spec, pooler=_step_pooler(head, spec))
    weight_CD, bias_C, model = _linear_head(head, spec, folder, "process_reward")
    body = model.base_model
    if body.config.model_type != "qwen2":
        raise ModelError(
            f"{folder}: Qwen2ForProcessRewardModel has a Qwen2 body, this model is a {body.config.model_type}; use another form"
        )
    if len(weight_CD) != 2:
        raise ModelError(
            f"{folder}: Qwen2ForProcessRewardModel has two classes, this head {len(weight_CD)}: P(right) + P(neutral) is no "
            'softmax of two linear numbers; use form = "token_classification"'
        )
    with torch.device("meta"):
        made = Qwen2ForProcessRewardModel(body.config)
    made.to_empty(device="cpu")
    made.model = body
    as_two_layers(made.score, weight_CD, bias_C)
    told = replace(spec, family="token_classification", labels=CLASS_NAMES[:2])
    return Export(form="process_reward", model=made.train(False), spec=told, pooler=_step_pooler(head, told))


def as_two_layers(score: Any, weight_CD: Tensor, bias_C: Tensor) -> None:
    """Write a linear head with two outputs as Linear, ReLU, Linear: x = relu(x) - relu(-x), so four inner units are enough."""
    inner, outer = score[0], score[2]
    with torch.no_grad():
        for parameter in score.parameters():
            parameter.zero_()
        for c, row_D in enumerate(weight_CD):
            inner.weight[2 * c], inner.weight[2 * c + 1] = row_D, -row_D
            outer.weight[c, 2 * c], outer.weight[c, 2 * c + 1] = 1.0, -1.0
        outer.bias.copy_(bias_C)


def _linear_head(head: Any, spec: PRMSpec, folder: Path, form: Form) -> tuple[Tensor, Tensor, Any]:
    """The head as weights and biases of wrong, right and, where there is one, neutral; and the model whose body it reads."""
    match head:
        case ClassHead() if not isinstance(head.model, Qwen2ForProcessRewardModel):
            layer = getattr(head.model, head_name(head.model, folder))
            order = [0, 1] if head.right == (1,) else [1, 0]
            bias_C = torch.zeros(len(layer.weight)) if layer.bias is None else layer.bias
            if len(layer.weight) == 2:
                return layer.weight[order], bias_C[order], head.model
            return layer.weight, bias_C, head.model
        case ValueHead():  # sigmoid(v) is the second of softmax(0, v)
            row_1D = head.head.weight
            return (
                torch.cat([torch.zeros_like(row_1D), row_1D]),
                torch.cat([torch.zeros(1), head.head.bias]),
                _body(head),
            )
        case LabelHead() if spec.family == "label_tokens" and not spec.one_text:
            layer = head.model.causal_lm.get_output_embeddings()
            right, wrong, *neutral = head.label_ids
            ids = [wrong, right, *neutral]
            bias_C = torch.zeros(len(ids)) if layer.bias is None else layer.bias[ids]
            scale = head.model.logits_multiplier
            return layer.weight[ids] * scale, bias_C * scale, _body(head)
    reasons = {
        LogRatioHead: "an implicit PRM's reward is a log-ratio of two language models, which no head can give",
        LabelHead: "it is read in a chat's turns or in one text, not at a separator of its own tokens",
        ClassHead: "its head has two layers with a ReLU between, which one linear layer cannot be",
    }
    raise ModelError(f'{folder}: cannot be written as {form}: {reasons[type(head)]}; use form = "auto"')


def _body(head: ValueHead | LabelHead) -> Any:
    return head.model.causal_lm


def _step_pooler(head: Any, spec: PRMSpec) -> dict[str, Any]:
    """vLLM's PoolerConfig: STEP returns the classes at the tag alone, which must be one token; else ALL returns every token's."""
    ids = plain_ids(head.tokenizer, spec.separator.strip() if spec.one_text else spec.separator, "the separator")
    pooler: dict[str, Any] = (
        {"pooling_type": "STEP", "step_tag_id": ids[-1]} if len(ids) == 1 else {"pooling_type": "ALL"}
    )
    if isinstance(head, LabelHead) and spec.family == "label_tokens":
        pooler["returned_token_ids"] = list(head.label_ids)
    return pooler


def _stored_dtype(folder: Path) -> torch.dtype:
    """The precision of the weights in the folder, of an adapter its base's."""
    settings = configuration(base_folder(folder) if is_adapter(folder) else folder)
    name = settings.get("dtype") or settings.get("torch_dtype") or "float32"
    return getattr(torch, str(name)) if name in ("float32", "bfloat16", "float16") else torch.float32


def _exact(model: Any, dtype: torch.dtype) -> torch.dtype:
    """`dtype` where it holds every weight as it is, else float32."""
    kept = all(torch.equal(tensor.to(dtype).to(tensor.dtype), tensor) for tensor in model.parameters())
    return dtype if kept else torch.float32


def readme(export: Export, out: Path) -> str:
    """What the folder holds and how to load and serve it."""
    spec = export.spec
    classes = {"token_classification": "AutoModelForTokenClassification", "causal_lm": "AutoModelForCausalLM"}
    lines = [f"# {out.name}", "", f"A process reward model of the family `{spec.family}`, written by prmkit.", ""]
    lines += ["    import prmkit", f'    prmkit.load_prm("{out}").score(prompt, steps)', ""]
    if export.form in classes:
        lines += [f"transformers: `{classes[export.form]}.from_pretrained`.", ""]
    else:
        lines += [
            "Architecture `Qwen2ForProcessRewardModel`, as Qwen2.5-Math-PRM is published; vLLM knows it by this name.",
            "",
        ]
    lines += ["Input: " + input_form(spec), ""]
    if export.pooler is not None:
        convert = " --convert classify" if export.form == "token_classification" else ""
        lines += [
            "vLLM (not run by prmkit):",
            "",
            f'    vllm serve {out} --runner pooling{convert} --pooler-config "$(cat {out / POOLER})"',
            "",
            'and ask its `/pooling` with `"task": "token_classify"`. '
            + (
                "STEP returns one row for every token that equals the step tag, so neither prompt nor steps may hold it."
                if export.pooler["pooling_type"] == "STEP"
                else "The separator is several tokens, so all tokens' rows come back: take those at each separator's last token."
            ),
            "",
        ]
    elif export.reference is not None:
        lines += [
            f"The reference is in `{REFERENCE}/`. Serve both as language models and subtract their prompt log-probs.",
            "",
        ]
    return "\n".join(lines)


def input_form(spec: PRMSpec) -> str:
    """In words, what the model reads."""
    match spec.family:
        case "implicit" | "log_prob":
            return (
                f"the prompt through the chat template, then the steps joined by {spec.separator!r} and the end token."
            )
        case "label_turns":
            first = f"the prompt, {spec.after_prompt!r} and step 1"
            return f"a chat; {first}, then one step a user turn, each answered {spec.labels[0]!r}."
    prompt = (
        "the prompt through the chat template"
        if spec.chat
        else "the prompt's text, after the begin token if there is one"
    )
    system = f" with the system turn {spec.system!r}" if spec.system else ""
    how = "as one text" if spec.one_text else "tokenised apart"
    after = f", {spec.after_prompt!r}" if spec.after_prompt else ""
    steps = f"then each step followed by {spec.separator!r}, {how}"
    return f"{prompt}{system}{after}, {steps}; read at the last token of each separator."
