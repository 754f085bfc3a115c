"""Where an RL run's PRM starts: the model that `prm_path` stands for, and whether the run asks what it was trained to say."""

from __future__ import annotations

from pathlib import Path

from prmkit.data.prm_spec import PRMSpec, base_folder, read_spec
from prmkit.engines.local.prms.families import own_head
from prmkit.engines.local.prms.log_ratio import reference_folder
from prmkit.engines.local.prms.reading import configuration
from prmkit.errors import ConfigError, ModelError
from prmkit.models.folders import saved_models, weights_digest
from prmkit.models.load import is_adapter, resolve_model_path
from prmkit.rl.config import RLConfig


def prm_start(config: RLConfig, work_dir: Path) -> Path:
    """The folder that `prm_path` names: of a run, its last checkpoint's PRM, else its policy; empty: `model.path`.

    An implicit PRM says beta times a log-ratio to its own reference, so the run's beta and reference must be those of its
    prm.json. A folder without prm.json is a language model to start from. Raises ModelError for a PRM of another family,
    ConfigError for one that was trained with another beta or reference, naming what to set.
    """
    if not config.prm_path:
        return resolve_model_path(config.model.path, work_dir, config.seed)
    given = Path(config.prm_path).expanduser()
    prms = [] if (given / "config.json").is_file() else saved_models(given, "prm")
    folder = prms[-1] if prms else resolve_model_path(config.prm_path, work_dir, config.seed)
    spec = read_spec(folder)
    _check_family(folder, spec)
    if spec is not None and spec.family == "implicit":
        _check_beta(config, folder, spec)
        _check_reference(config, folder, spec, work_dir)
    return folder


def shares_base(folder: Path, config: RLConfig, work_dir: Path) -> bool:
    """Whether a folder is an adapter on the very model that `model.path` names."""
    return is_adapter(folder) and same_model(
        base_folder(folder), resolve_model_path(config.model.path, work_dir, config.seed)
    )


def same_model(a: Path, b: Path) -> bool:
    """Whether two folders hold the same weights: one of them may be a copy."""
    return a.resolve() == b.resolve() or weights_digest(a) == weights_digest(b)


def _check_family(folder: Path, spec: PRMSpec | None) -> None:
    family = spec.family if spec is not None else own_head(folder)
    names = [str(name) for name in configuration(folder).get("architectures") or ()]
    if family is None and any(name.endswith(("ForRewardModel", "ForSequenceClassification")) for name in names):
        family = "value_head"
    if family not in (None, "implicit", "log_prob"):
        raise ModelError(
            f"prm_path: {folder} is a reward model of the family {family}, but RL takes an implicit PRM, a language model whose "
            "log-ratio to its reference is the reward. Give one of `prmkit train implicit` or of an RL run with a PRM, or a "
            "language model to start from"
        )


def _check_beta(config: RLConfig, folder: Path, spec: PRMSpec) -> None:
    beta = config.algorithm.process.beta
    if beta != spec.beta:
        raise ConfigError(
            f"algorithm.process.beta = {beta:g}, but the PRM of prm_path has learned with {spec.beta:g} ({folder / 'prm.json'}), "
            f"and all it says would be {beta / spec.beta:g} times as strong. Set algorithm.process.beta = {spec.beta:g}, or "
            f"train it with beta = {beta:g}"
        )


def _check_reference(config: RLConfig, folder: Path, spec: PRMSpec, work_dir: Path) -> None:
    """At the start of the run: `process.reference = "policy"` goes with the policy from there."""
    asked = config.algorithm.process.reference
    try:
        own = reference_folder(folder, spec.reference)
    except ModelError as error:
        raise ModelError(f'{error}, as "reference" in {folder / "prm.json"}') from error
    if own is None:
        if asked != "none":
            raise ConfigError(
                f'algorithm.process.reference = "{asked}", but the PRM of prm_path has none, it says log pi alone. Set '
                'algorithm.process.reference = "none"; if it was trained against one, name that as "reference" in '
                f"{folder / 'prm.json'}"
            )
        return
    start = resolve_model_path(config.model.path, work_dir, config.seed)
    named = asked == "freeze" and config.reference_path
    now = resolve_model_path(config.reference_path, work_dir, config.seed) if named else start
    if asked != "none" and same_model(own, now):
        return
    to_set = [] if asked == "freeze" else ['algorithm.process.reference = "freeze"']
    if not same_model(own, start):
        to_set += ["model.lora_rank = 0"] if config.model.lora_rank else []
        to_set.append(f'reference_path = "{own.resolve()}"')
    elif config.reference_path:
        to_set.append('reference_path = ""')
    wrong = "the run compares it with none" if asked == "none" else f"the run compares it with {now}"
    raise ConfigError(
        f"the PRM of prm_path was trained against the reference {own.resolve()} ({folder / 'prm.json'}), and {wrong}: such a "
        f"log-ratio is not what it has learned. Set {' and '.join(to_set)}"
    )
