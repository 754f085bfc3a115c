"""Models that are trained as explicit reward models: a classification head, label tokens of a causal LM, a value head."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, cast

import torch
from peft import PeftModel, get_peft_model
from torch import Tensor, nn
from transformers import AutoModelForTokenClassification

from prmkit.config import ModelConfig, OptimizerConfig
from prmkit.data.layouts import plain_ids
from prmkit.data.prm_spec import PRMSpec, read_spec, write_spec
from prmkit.engines.local.attention import attend_in_float32_when_short
from prmkit.engines.local.language_model import LanguageModel
from prmkit.engines.local.learner import LocalLearner, TokenModel
from prmkit.engines.local.prms import values
from prmkit.engines.local.prms.classes import class_senses
from prmkit.engines.local.prms.families import own_head
from prmkit.engines.local.prms.reading import check_vocabulary, one_token, read_weights
from prmkit.engines.local.roles import lora_config, narrow_linears, refuse_adapter
from prmkit.engines.local.save import save_adapter, save_full, save_value_model
from prmkit.engines.local.value_model import ValueModel, zero_head
from prmkit.errors import ConfigError, DataError, ModelError
from prmkit.models.folders import saved_models
from prmkit.models.load import (
    compute_dtype,
    is_adapter,
    load_model,
    load_tokenizer,
    resolve_device,
    resolve_model_path,
)
from prmkit.ops.batch import Batch, TokenOutputs
from prmkit.ops.logprobs import token_logprobs
from prmkit.ops.stepwise_loss import CLASSES, StepBatch, StepOutputs
from prmkit.train.outcome import outcome_spec
from prmkit.train.stepwise import stepwise_spec
from prmkit.train.stepwise_config import OutcomeConfig, StepwiseConfig

ADAPTER = "prm"
SCORING_ONLY = ("neutral_is_right", "reference", "beta", "base")
"""What a spec says that training does not depend on."""


@dataclass(frozen=True, kw_only=True)
class StepClassifier:
    """log P(class) from a token classifier's head, computed where labelled steps end only."""

    body: LanguageModel
    """Around a token classifier of transformers."""
    head_name: str
    """Of the linear layer that ends it."""
    shares_prompts = False

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.body.device

    @property
    def head(self) -> nn.Linear:
        """In float32."""
        return cast(nn.Linear, getattr(self.body.causal_lm, self.head_name))

    def outputs(self, batch: Batch, *, entropy: bool = False) -> TokenOutputs:
        """Log-likelihood of the target where a labelled step ends, 0 elsewhere; there is no entropy."""
        with self.body.speaking():
            at_ND, part = _hidden_at_labels(self.body, batch)
        return _outputs(self.head(at_ND.float()).log_softmax(-1), None, part)

    def trainable(self) -> list[tuple[str, nn.Parameter]]:
        """The body's parameters that train, and the head's."""
        head = [(f"{self.head_name}.{name}", p) for name, p in self.head.named_parameters()]
        own = {id(p) for _, p in head}
        return [*((name, p) for name, p in self.body.trainable() if id(p) not in own), *head]


@dataclass(frozen=True, kw_only=True)
class LabelTokens:
    """log P(label token) of a causal LM at the very token that scoring reads: the separator's last, not the one before."""

    body: LanguageModel
    label_ids: tuple[int, ...]
    """In the order of `CLASSES`."""
    whole_vocabulary: bool
    shares_prompts = False

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.body.device

    def outputs(self, batch: Batch, *, entropy: bool = False) -> TokenOutputs:
        """Log-likelihood of the target where a labelled step ends, 0 elsewhere; there is no entropy."""
        layer = self.body.causal_lm.get_output_embeddings()
        with self.body.speaking():
            at_ND, part = _hidden_at_labels(self.body, batch)
        ids_C = torch.tensor(self.label_ids, device=self.device)
        bias_C = None if layer.bias is None else layer.bias[ids_C].float()
        logits_NC = nn.functional.linear(at_ND.float(), layer.weight[ids_C].float(), bias_C)
        logp_NC = (logits_NC * self.body.logits_multiplier).log_softmax(-1)
        if not self.whole_vocabulary:
            return _outputs(logp_NC, None, part)
        num_classes = len(self.label_ids)
        with self.body.speaking():
            logp_N, _ = token_logprobs(
                at_ND.repeat_interleave(num_classes, dim=0),
                layer.weight,
                ids_C.repeat(len(at_ND)),
                bias_V=layer.bias,
                temperature=1.0 / self.body.logits_multiplier,
                entropy=False,
            )
        return _outputs(logp_N.view(-1, num_classes), logp_NC, part)

    def trainable(self) -> list[tuple[str, nn.Parameter]]:
        """The language model's."""
        return self.body.trainable()


@dataclass(frozen=True, kw_only=True)
class EndValueModel(ValueModel):
    """The value at each response token, that token read; a critic's is the value before it."""

    @property
    def shares_prompts(self) -> bool:
        """Rows are read whole."""
        return False

    def outputs(self, batch: Batch, *, entropy: bool = False) -> TokenOutputs:
        """The logit at every response token, 0 elsewhere; a value has no entropy."""
        mask_BT = batch.response_mask_BT.to(self.device)
        with self.body.speaking():
            at_ND = self.body.hidden_states(batch.token_BT.to(self.device))[mask_BT]
        value_N = self.head(at_ND.float()).squeeze(-1)
        zeros_BT = torch.zeros(mask_BT.shape, dtype=torch.float32, device=self.device)
        return TokenOutputs(output_BT=zeros_BT.masked_scatter(mask_BT, value_N))


StepwiseModel = StepClassifier | LabelTokens | EndValueModel


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """What is to be trained, its tokenizer, and how the result is to be asked."""

    model: StepwiseModel
    tokenizer: Any
    spec: PRMSpec

    @property
    def context(self) -> int:
        """The longest sequence that the model was made for."""
        return int(self.model.body.causal_lm.config.get_text_config().max_position_embeddings)


def load_stepwise(config: StepwiseConfig, work_dir: Path) -> Loaded:
    """The PRM before its training: of a plain model, with a head that says nothing yet; of a PRM's folder, as it was left."""
    spec = stepwise_spec(config)
    folder = _start(config.model, work_dir, config.seed, spec)
    settings = replace(config.model, path=str(folder))
    model: StepwiseModel
    if config.form == "label_tokens":
        causal, tokenizer = load_model(settings, work_dir=work_dir, seed=config.seed, chat=spec.chat)
        ids = tuple(one_token(tokenizer, text, "the label token", folder) for text in config.labels)
        body = _speaker(causal, settings, config.seed, folder)
        right_wrong = (ids[1], ids[0], *ids[2:])
        model = LabelTokens(body=body, label_ids=right_wrong, whole_vocabulary=config.vocabulary == "all")
    else:
        classifier, tokenizer = _classifier(settings, folder, work_dir, config)
        name = head_name(classifier, folder)
        model = StepClassifier(body=_speaker(classifier, settings, config.seed, folder, name), head_name=name)
    return Loaded(model=model, tokenizer=tokenizer, spec=spec)


def load_outcome(config: OutcomeConfig, work_dir: Path) -> Loaded:
    """The outcome model before its training: a plain model and a head that says 1/2, or a trained one as it was left."""
    spec = outcome_spec(config)
    folder = _start(config.model, work_dir, config.seed, spec)
    settings = replace(config.model, path=str(folder))
    causal, tokenizer = load_model(settings, work_dir=work_dir, seed=config.seed, chat=spec.chat)
    body = _speaker(causal, settings, config.seed, folder)
    size = int(causal.config.get_text_config().hidden_size)
    trained = (folder / values.OWN).is_file() or own_head(folder) == "value_head"
    head = values.value_head(folder, size).to(body.device) if trained else zero_head(size, body.device)
    return Loaded(model=EndValueModel(body=body, head=head), tokenizer=tokenizer, spec=spec)


def learner_of(loaded: Loaded, optimizer: OptimizerConfig, total_steps: int) -> LocalLearner:
    """The model with its optimizer; it saves a folder that `load_prm` reads."""
    model: TokenModel = loaded.model
    return LocalLearner(
        model, optimizer, role=ADAPTER, total_steps=total_steps, save=lambda path: save_stepwise(loaded, path)
    )


def save_stepwise(loaded: Loaded, path: Path) -> None:
    """The model in Hugging Face form with prm.json. An adapter on a classifier is written merged, its base untouched."""
    model, tokenizer = loaded.model, loaded.tokenizer
    match model:
        case EndValueModel():
            save_value_model(model, tokenizer, path)
        case StepClassifier() if model.body.adapter is not None:
            # a copy: merging in place and taking it out again would change the base's weights by rounding
            deepcopy(model.body.model).float().merge_and_unload().save_pretrained(path)
            tokenizer.save_pretrained(path)
        case _:
            save = save_full if model.body.adapter is None else save_adapter
            save(model.body, tokenizer, path)
    write_spec(path, loaded.spec)


def check_separator(loaded: Loaded) -> list[str]:
    """Notes on the separator. Raises ModelError if the token that carries the labels has an embedding of zeros only.

    Such a token was never trained (reserved ones are like that), and no position could be told from another by it.
    """
    separator, known = loaded.spec.separator, "set --separator to text that it knows as one token, such as a line break"
    try:
        ids = plain_ids(loaded.tokenizer, separator, "the separator")
    except DataError as error:
        raise DataError(f"separator = {separator!r}: {error}; {known}") from error
    unknown = loaded.tokenizer.unk_token_id
    if not ids or (ids[-1] == unknown and loaded.tokenizer.unk_token != separator):
        raise ModelError(
            f"{loaded.tokenizer.name_or_path}: this tokenizer does not know separator = {separator!r}; {known}"
        )
    embedding_VD = loaded.model.body.causal_lm.get_input_embeddings().weight
    if not embedding_VD[ids[-1]].any():
        raise ModelError(
            f"the separator {loaded.spec.separator!r} ends in token {ids[-1]}, whose embedding is all zeros: the model was never "
            f"trained with it; {known}"
        )
    if len(ids) > 1:
        return [
            f"the separator {loaded.spec.separator!r} is {len(ids)} tokens {list(ids)}; steps are read at the last of them. "
            "One token is more usual"
        ]
    return []


def head_name(classifier: Any, where: object) -> str:
    """The name of a token classifier's last linear layer. Raises ModelError if there is not exactly one."""
    names = [name for name, module in classifier.named_children() if isinstance(module, nn.Linear)]
    if len(names) != 1:
        raise ModelError(
            f'{where}: {type(classifier).__name__} has {len(names)} linear layers at its end; set form = "label_tokens"'
        )
    return str(names[0])


def _start(config: ModelConfig, work_dir: Path, seed: int, spec: PRMSpec) -> Path:
    """The folder to start from; of a run of `train`, its last checkpoint. A PRM goes on as what it was trained as."""
    path = Path(config.path).expanduser()
    checkpoints = [] if saved_models(path, "policy") else saved_models(path, ADAPTER)
    folder = resolve_model_path(checkpoints[-1] if checkpoints else config.path, work_dir, seed)
    before, head = read_spec(folder), own_head(folder)
    implicit = before is not None and before.family in ("implicit", "log_prob")
    if before is not None and not implicit and before.family != spec.family:
        raise ConfigError(
            f"model.path: {folder} holds a reward model of the family {before.family}, not {spec.family}, and its head would be "
            "lost; take a language model, or remove prm.json to start from its body"
        )
    if head is not None and (head != spec.family or is_adapter(folder)):
        what = "of two layers, which is not trained here" if head == "process_reward" else f"of the family {head}"
        fix = (
            "merge it with prmkit export first"
            if head == spec.family
            else "take a language model, or save its body as one"
        )
        raise ConfigError(f"model.path: {folder} holds a head {what}, and it would be lost; {fix}")
    if before is None or implicit:
        return folder
    for name in (field.name for field in fields(PRMSpec)):
        if name not in SCORING_ONLY and getattr(before, name) != getattr(spec, name):
            raise ConfigError(
                f"the reward model in {folder} was trained with {name} = {getattr(before, name)!r} (its prm.json), this "
                f"configuration means {getattr(spec, name)!r}; going on with another would unlearn it. Set separator, labels, "
                "neutral and layout as they were"
            )
    return folder


def _classifier(config: ModelConfig, folder: Path, work_dir: Path, wanted: StepwiseConfig) -> tuple[Any, Any]:
    """A token classifier, and its tokenizer."""
    if own_head(folder) == "token_classification":
        device = resolve_device(config)
        classifier = read_weights(folder, AutoModelForTokenClassification, torch.float32).requires_grad_(True)
        if classifier.config.num_labels != wanted.num_classes:
            raise ConfigError(
                f"neutral = {wanted.neutral!r} means {wanted.num_classes} classes, but the reward model in {folder} has "
                f"{classifier.config.num_labels}; set neutral as it was trained"
            )
        _order_classes(classifier, folder)
        tokenizer = load_tokenizer(folder, chat=wanted.layout == "chat")
        check_vocabulary(tokenizer, classifier, folder)
        return classifier.to(device), tokenizer
    causal, tokenizer = load_model(config, work_dir=work_dir, seed=wanted.seed, chat=wanted.layout == "chat")
    return with_head(causal, wanted.num_classes, folder), tokenizer


def _order_classes(classifier: Any, folder: Path) -> None:
    """Put the head's rows into the order of `CLASSES`. Raises ModelError for classes whose names do not tell their meaning."""
    spec, config = read_spec(folder), classifier.config
    names = spec.labels if spec and spec.labels else [str(config.id2label[i]) for i in range(config.num_labels)]
    meant = class_senses(names, folder)
    rows = [meant.index(name) for name in CLASSES[: len(meant)]]
    for parameter in getattr(classifier, head_name(classifier, folder)).parameters():
        parameter.data = parameter.data[rows]
    name_classes(config, CLASSES[: len(meant)])


def name_classes(config: Any, names: Sequence[str]) -> None:
    """Write the names of a head's outputs into a configuration."""
    config.id2label = dict(enumerate(names))
    config.label2id = {name: i for i, name in enumerate(names)}


def with_head(causal: Any, num_classes: int, where: object) -> Any:
    """A token classifier around the body of a causal LM; its head starts at zero, so every class is as probable.

    Raises ModelError if transformers has no token classifier of this family.
    """
    config = deepcopy(causal.config)
    name_classes(config, CLASSES[:num_classes])
    try:
        with torch.device("meta"):
            classifier = AutoModelForTokenClassification.from_config(config)
    except ValueError as error:
        raise ModelError(
            f"{where}: transformers has no token classification model for {config.model_type}; "
            'set form = "label_tokens", or take another model'
        ) from error
    name = head_name(classifier, where)
    head = getattr(classifier, name)
    fresh = nn.Linear(head.in_features, head.out_features, bias=head.bias is not None, device=causal.device)
    for parameter in fresh.parameters():
        nn.init.zeros_(parameter)
    setattr(classifier, name, fresh)
    setattr(classifier, classifier.base_model_prefix, getattr(causal, causal.base_model_prefix))
    return classifier.train(False)


def _speaker(model: Any, config: ModelConfig, seed: int, folder: Path, head: str = "") -> LanguageModel:
    """The model in its precision, with a fresh adapter where one is asked for; `head` has none."""
    if config.threads:
        torch.set_num_threads(config.threads)
    adapter, precision = None, compute_dtype(config)
    if precision == torch.bfloat16 and model.device.type == "cpu":
        attend_in_float32_when_short(model)
    if config.lora_rank:
        refuse_adapter(str(folder))
        adapter = ADAPTER
        narrow_linears(model.requires_grad_(False), precision)
        settings = lora_config(config)
        if head:
            getattr(model, head).float()
            settings = replace(settings, task_type=None, exclude_modules=[head])
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = cast(PeftModel, get_peft_model(model, settings, adapter_name=adapter))
    if config.gradient_checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        model.train()  # checkpointing acts in train mode only; dropout is off
    return LanguageModel(model=model, compute_dtype=precision, adapter=adapter)


def _hidden_at_labels(body: LanguageModel, batch: Batch) -> tuple[Tensor, StepBatch]:
    assert isinstance(batch, StepBatch)
    hidden_BTD = body.hidden_states(batch.token_BT.to(body.device))
    return hidden_BTD[batch.class_BT.to(body.device) >= 0], batch


def _outputs(logp_NC: Tensor, among_classes_NC: Tensor | None, batch: StepBatch) -> StepOutputs:
    """Of the N labelled steps, row after row; guesses are among the classes."""
    device = logp_NC.device
    labelled_BT = batch.class_BT.to(device) >= 0
    target_BTC = torch.stack([getattr(batch, f"{name}_BT") for name in CLASSES[: logp_NC.shape[1]]], dim=-1)
    likelihood_N = (target_BTC.to(device)[labelled_BT] * logp_NC).sum(-1)
    guess_N = (logp_NC if among_classes_NC is None else among_classes_NC).detach().argmax(-1)
    zeros_BT = torch.zeros(labelled_BT.shape, dtype=logp_NC.dtype, device=device)
    none_BT = torch.full(labelled_BT.shape, -1, device=device)
    return StepOutputs(
        output_BT=zeros_BT.masked_scatter(labelled_BT, likelihood_N),
        guess_BT=none_BT.masked_scatter(labelled_BT, guess_N),
    )
