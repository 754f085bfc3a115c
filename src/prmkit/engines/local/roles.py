"""Puts an RL run's roles on one device: separate models, or LoRA adapters on one shared base."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from prmkit.config import ModelConfig, OptimizerConfig
from prmkit.data.prm_spec import PRMSpec, write_spec
from prmkit.data.steps import Splitter
from prmkit.engines.local.attention import attend_in_float32_when_short
from prmkit.engines.local.language_model import LanguageModel
from prmkit.engines.local.learner import LocalLearner, forward_only
from prmkit.engines.local.prm_start import prm_start, shares_base
from prmkit.engines.local.prms.reading import READ_ERRORS
from prmkit.engines.local.sampler import LocalSampler
from prmkit.engines.local.save import frozen_base, save_adapter, save_full, save_value_model
from prmkit.engines.local.value_model import ValueModel, zero_head
from prmkit.errors import ConfigError, ModelError
from prmkit.models.load import (
    compute_dtype,
    is_adapter,
    load_model,
    load_tokenizer,
    newest_policy,
    resolve_model_path,
    turn_off_dropout,
)
from prmkit.models.logits import check_logits
from prmkit.ops.batch import Batch, TokenOutputs
from prmkit.protocols import Verifier
from prmkit.rl.config import RLConfig
from prmkit.rl.process import ImplicitPRM
from prmkit.rl.step import Roles


@dataclass(kw_only=True)
class FrozenModel:
    """A model that only answers: the reference. The same batch, asked for twice (PRM and KL), is computed once."""

    model: LanguageModel
    tokens_per_microbatch: int
    last: tuple[Batch, TokenOutputs] | None = None

    def outputs(self, batch: Batch, *, entropy: bool = False) -> TokenOutputs:
        """Per-token log-probs without gradient."""
        if self.last is None or self.last[0] is not batch:
            self.last = batch, forward_only(self.model, batch, self.tokens_per_microbatch)
        return self.last[1]


@dataclass(frozen=True, kw_only=True)
class LocalRoles:
    """The roles of a run, and the tokenizer that they share."""

    roles: Roles
    tokenizer: Any
    sampler: LocalSampler
    frozen: Mapping[str, Path]
    """For `RunFolder.open`: folders of what never trains, by the key that names them."""


def local_roles(config: RLConfig, verifier: Verifier, split: Splitter, work_dir: Path) -> LocalRoles:
    """Everything that `rl_step` needs, on one CPU or GPU. Raises ConfigError or ModelError for what cannot be put together."""
    if config.model.threads:
        torch.set_num_threads(config.model.threads)
    temperature, algorithm = config.sampling.temperature, config.algorithm
    prm_needs = algorithm.uses_prm and algorithm.process.reference == "freeze"
    if config.prm_path and not algorithm.uses_prm:
        raise ConfigError(
            "prm_path is set, but algorithm.process.coef = 0 leaves no PRM; raise it, or leave prm_path empty"
        )
    if prm_needs and algorithm.process.update == "none" and not (config.prm_path or config.reference_path):
        raise ConfigError(
            'algorithm.process.update = "none" freezes a PRM that is still its own reference, so every process reward would be '
            "exactly 0; set prm_path to a trained PRM"
        )
    if config.reference_path and not (prm_needs or algorithm.kl.coef > 0):
        raise ConfigError(
            "reference_path is set, but nothing asks a reference: algorithm.kl.coef is 0, and no PRM has "
            'process.reference = "freeze"; leave reference_path empty'
        )
    models = _Shared(config, work_dir) if config.model.lora_rank else _Separate(config, work_dir)
    policy = replace(models.policy(), temperature=temperature)
    reference = _frozen(models.reference(), config.prm) if prm_needs or algorithm.kl.coef > 0 else None
    kl_reference = None
    if reference is not None and algorithm.kl.coef > 0:  # compared with the policy, hence at its temperature
        same = temperature == reference.model.temperature
        kl_reference = reference if same else _frozen(replace(reference.model, temperature=temperature), config.policy)
    learner = _learner(policy, config.policy, "policy", models.save, config.steps * algorithm.num_minibatches)
    sampler = LocalSampler(policy, models.tokenizer, version=lambda: learner.step)
    roles = Roles(
        sampler=sampler,
        verifier=verifier,
        policy=learner,
        split=split,
        prm=_implicit_prm(config, models, reference, work_dir) if algorithm.uses_prm else None,
        reference=kl_reference,
        critic=_critic(config, models) if algorithm.advantage == "gae" else None,
    )
    frozen = frozen_base(policy)
    if reference is not None and not frozen:
        key = "reference_path" if config.reference_path else "model.path"
        path = config.reference_path or config.model.path
        frozen = {key: resolve_model_path(path, work_dir, config.seed).resolve()}
    return LocalRoles(roles=roles, tokenizer=models.tokenizer, sampler=sampler, frozen=frozen)


def _implicit_prm(config: RLConfig, models: _Separate, reference: FrozenModel | None, work_dir: Path) -> ImplicitPRM:
    minibatches, replay = config.algorithm.prm_minibatches, config.algorithm.process.replay_batches
    batches = config.steps + sum(min(step, replay) for step in range(config.steps))  # replay fills up at first
    prm = models.prm()
    spec = prm_spec(config, work_dir, adapter=prm.adapter is not None)

    def save(model: LanguageModel, path: Path) -> None:
        models.save(model, path)
        write_spec(path, spec)

    return ImplicitPRM(
        _learner(prm, config.prm, "prm", save, minibatches * batches),
        reference,
        config.algorithm.process,
        num_minibatches=minibatches,
    )


def prm_spec(config: RLConfig, work_dir: Path, *, adapter: bool) -> PRMSpec:
    """What a run's saved PRM means, so that `load_prm` reads its folder. `adapter`: whether it is one, on the reference.

    A moving reference (`process.reference = "policy"`) is the policy of the same checkpoint. The text between steps is the
    task's own business: a solution brings its separator.
    """
    process = config.algorithm.process
    if process.reference == "freeze" and adapter:
        reference = "base"
    elif process.reference == "freeze":
        path = config.reference_path or config.model.path
        reference = str(resolve_model_path(path, work_dir, config.seed).resolve())
    else:
        reference = {"policy": "../policy", "none": ""}[process.reference]
    return PRMSpec(family="implicit", beta=process.beta, reference=reference)


def _critic(config: RLConfig, models: _Separate) -> LocalLearner:
    body = models.critic()
    value_model = ValueModel(body=body, head=zero_head(body.causal_lm.config.hidden_size, body.device))
    return LocalLearner(
        value_model,
        config.critic,
        role="critic",
        total_steps=config.steps * config.algorithm.num_minibatches,
        save=lambda path: save_value_model(value_model, models.tokenizer, path),
    )


def _frozen(model: LanguageModel, optimizer: OptimizerConfig) -> FrozenModel:
    return FrozenModel(model=model, tokens_per_microbatch=optimizer.tokens_per_microbatch)


def _learner(
    model: LanguageModel,
    optimizer: OptimizerConfig,
    role: str,
    save: Callable[[LanguageModel, Path], None],
    total_steps: int,
) -> LocalLearner:
    return LocalLearner(
        model,
        optimizer,
        role=role,
        entropy=role == "policy",  # its loss observes the entropy
        total_steps=total_steps,
        save=lambda path: save(model, path),
    )


class _Separate:
    """Each role has weights of its own; those that train are float32, the reference is in the compute precision."""

    def __init__(self, config: RLConfig, work_dir: Path) -> None:
        self.config, self.work_dir = config, work_dir
        self.policy_model, self.tokenizer = self._load(config.model.path)

    def policy(self) -> LanguageModel:
        return self._language_model(self.policy_model)

    def prm(self) -> LanguageModel:
        return self._language_model(self._other(str(self._prm_folder()), "prm_path"))

    def reference(self) -> LanguageModel:
        model = self._other(self.config.reference_path, "reference_path").requires_grad_(False)
        return self._language_model(narrow_linears(model, compute_dtype(self.config.model)))

    def critic(self) -> LanguageModel:
        return self._language_model(self._other("", ""))

    def save(self, model: LanguageModel, path: Path) -> None:
        save_full(model, self.tokenizer, path)

    def _prm_folder(self) -> Path:
        return prm_start(self.config, self.work_dir)

    def _other(self, path: str, key: str) -> Any:
        model, tokenizer = self._load(path or self.config.model.path)
        self._check_vocabulary(tokenizer, path, key)
        return model

    def _check_vocabulary(self, tokenizer: Any, path: object, key: str) -> None:
        if tokenizer.get_vocab() != self.tokenizer.get_vocab():
            raise ModelError(
                f"{key} = {str(path)!r} has another vocabulary than model.path; token rewards need the same tokens"
            )

    def _load(self, path: str) -> tuple[Any, Any]:
        settings = replace(self.config.model, path=path)
        model, tokenizer = load_model(settings, work_dir=self.work_dir, seed=self.config.seed)
        return self._prepared(model), tokenizer

    def _prepared(self, model: Any) -> Any:
        if self.config.model.dtype == "bfloat16" and model.device.type == "cpu":
            attend_in_float32_when_short(model)
        if self.config.model.gradient_checkpointing:
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
            model.train()  # checkpointing acts in train mode only; dropout is off
        return model

    def _language_model(self, model: Any, **adapter: Any) -> LanguageModel:
        return LanguageModel(model=model, compute_dtype=compute_dtype(self.config.model), **adapter)


class _Shared(_Separate):
    """Policy and PRM are LoRA adapters on one base; with the adapters off, the base is the reference.

    A PRM that begins at other weights than the base, or at an adapter on another one, keeps weights of its own.
    """

    def __init__(self, config: RLConfig, work_dir: Path) -> None:
        if config.reference_path:
            raise ConfigError(
                "reference_path is set, but with model.lora_rank > 0 the reference is model.path with its adapters off; leave "
                "it empty, or set model.lora_rank = 0"
            )
        refuse_adapter(config.model.path)
        super().__init__(config, work_dir)
        roles = ["policy", "prm", "critic"]
        settings = lora_config(config.model)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            base = narrow_linears(self.policy_model.requires_grad_(False), compute_dtype(config.model))
            self.policy_model = get_peft_model(base, settings, adapter_name=roles[0])
            self.prm_on_base = config.algorithm.uses_prm and self._add_prm(roles[1], settings)
            if config.algorithm.advantage == "gae":
                self.policy_model.add_adapter(roles[2], settings)
        # PEFT's wrapper is made in train mode, and whoever puts the model back into its mode takes the base along.
        self.policy_model.train(config.model.gradient_checkpointing)

    def _add_prm(self, name: str, settings: LoraConfig) -> bool:
        """A new adapter for the PRM, or the one that `prm_path` names; False where the PRM is no adapter on this base."""
        if not self.config.prm_path:
            self.policy_model.add_adapter(name, settings)
            return True
        folder = self._prm_folder()
        if not shares_base(folder, self.config, self.work_dir):
            return False
        self._check_vocabulary(load_tokenizer(folder), folder, "prm_path")
        try:
            loaded = self.policy_model.load_adapter(
                str(folder), name, is_trainable=True, torch_device=str(self.policy_model.device)
            )
        except READ_ERRORS as error:
            raise ModelError(
                f"{folder}: the adapter does not fit its base {self.config.model.path}: {error}"
            ) from error
        if loaded.missing_keys:
            raise ModelError(f"{folder}: the adapter lacks weights, such as {loaded.missing_keys[0]}; save it again")
        turn_off_dropout(self.policy_model)
        configs = self.policy_model.peft_config
        configs[name].base_model_name_or_path = configs["policy"].base_model_name_or_path  # where this run finds it
        with self._language_model(self.policy_model, adapter=name).speaking():
            check_logits(self.policy_model.get_base_model(), folder)
        return True

    def policy(self) -> LanguageModel:
        return self._language_model(self.policy_model, adapter="policy")

    def prm(self) -> LanguageModel:
        return self._language_model(self.policy_model, adapter="prm") if self.prm_on_base else super().prm()

    def reference(self) -> LanguageModel:
        return self._language_model(self.policy_model, adapters_off=True)

    def critic(self) -> LanguageModel:
        return self._language_model(self.policy_model, adapter="critic")

    def save(self, model: LanguageModel, path: Path) -> None:
        save = save_full if model.adapter is None else save_adapter
        save(model, self.tokenizer, path)


def narrow_linears(model: Any, dtype: torch.dtype) -> Any:
    """Hold the weights of frozen linear layers in the compute precision.

    Autocast would round them so for every forward pass; everything else stays in float32, so the model says exactly what
    the same model with float32 weights says: before the first update every log-ratio is 0.
    """
    output_layer = model.get_output_embeddings()
    for module in model.modules():
        if isinstance(module, nn.Linear) and module is not output_layer:
            module.to(dtype)
    return model


def refuse_adapter(path: str) -> None:
    """A new adapter on a merged one would later be loaded on the wrong base. Raises ConfigError for an adapter folder."""
    folder = newest_policy(Path(path).expanduser())
    if is_adapter(folder):
        raise ConfigError(
            f"model.path = {path!r} is a LoRA adapter, and model.lora_rank > 0 would put another on top, whose base is saved "
            "nowhere. Set model.lora_rank = 0, or save the merged model first: load_model (prmkit.models.load) merges it, "
            "save_pretrained of model and tokenizer writes it"
        )


def lora_config(config: ModelConfig) -> LoraConfig:
    """Adapters on every linear layer but the output layer, without dropout: rewards must not be noisy."""
    return LoraConfig(
        r=config.lora_rank,
        lora_alpha=config.lora_alpha,
        lora_dropout=0.0,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )
