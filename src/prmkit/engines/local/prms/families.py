"""Which family a published folder is of, read from its configuration alone, and how the published models are asked."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

from prmkit.data.prm_spec import Family, PRMSpec
from prmkit.engines.local.prms.reading import configuration, tensors_named
from prmkit.engines.local.prms.values import OWN, PUBLISHED
from prmkit.errors import ModelError

QWEN_SYSTEM = "Please reason step by step, and put your final answer within \\boxed{}."

SPECS: dict[str, PRMSpec] = {
    "trl": PRMSpec(family="token_classification", separator="\n", chat=False),
    "qwen2.5-math-prm": PRMSpec(family="process_reward", separator="<extra_0>", system=QWEN_SYSTEM),
    "math-shepherd": PRMSpec(
        family="label_tokens", separator=" ки\n", labels=("+", "-"), chat=False, after_prompt=" ", one_text=True
    ),
    "rlhflow": PRMSpec(family="label_turns", labels=("+", "-"), after_prompt=" "),
    "skywork-o1": PRMSpec(family="value_head", separator="\n", chat=False, after_prompt="\n"),
    "log-prob": PRMSpec(family="log_prob"),
}
"""How the models of each name are asked; docs/prms.md has the sources. `load_prm` takes a name for its spec."""

BY_FAMILY: dict[Family, PRMSpec] = {spec.family: spec for spec in SPECS.values()} | {
    "implicit": PRMSpec(family="implicit")
}
"""The published way of asking, for each family."""
LOG_PROBS: tuple[Family, ...] = ("implicit", "log_prob")
"""Families whose step reward is a sum over the step's tokens."""


def own_head(folder: Path) -> Family | None:
    """The family of the reward head that a folder's weights hold, from its configuration and the names of its tensors; None where
    there is none that is known."""
    config = configuration(folder)
    names = [str(name) for name in config.get("architectures") or ()]
    if any(name.endswith("ForTokenClassification") for name in names) or config.get("task_type") == "TOKEN_CLS":
        return "token_classification"
    if "Qwen2ForProcessRewardModel" in names:
        return "process_reward"
    if any(name.endswith("ForPrmModel") for name in names) or tensors_named(folder, PUBLISHED):
        return "value_head"
    return None


def family_of(folder: Path, *, flag: str = "") -> PRMSpec:
    """The spec of a folder without prm.json. Raises ModelError, naming the choices, where config.json does not tell.

    `flag`: how the family is given on the command line that asks."""
    known = own_head(folder)
    if known is not None:
        return BY_FAMILY[known]
    names = [str(name) for name in configuration(folder).get("architectures") or ()]
    hint = ""
    if any(name.endswith(("ForRewardModel", "ForSequenceClassification")) for name in names):
        hint = " It scores whole responses, and has no number for a step."
    elif (folder / OWN).is_file():
        hint = f" Its {OWN} may be a critic's, which reads the token before; an outcome model of prmkit has a prm.json."
    families = ", ".join(get_args(Family))
    python = f"Give spec: one of the names {', '.join(SPECS)}, or PRMSpec(family=...) with a family of {families}"
    how = f"Give {flag}, FAMILY being one of {families}" if flag else python
    raise ModelError(
        f"{folder}: its configuration (architectures {names or 'not named'}) does not say what kind of PRM it is.{hint} "
        f"{how}; or write prm.json beside the weights"
    )


def check_token_rewards(spec: PRMSpec, folder: Path) -> None:
    """Raises ModelError where a family has no rewards of single tokens."""
    if spec.family not in LOG_PROBS:
        raise ModelError(
            f"{folder}: token rewards are differences of log-probs, so they are for implicit PRMs and log_prob; this one is of "
            f"the family {spec.family}, which gives one number a step: leave token_rewards out"
        )


def named_spec(name: str) -> PRMSpec:
    """The spec of that name. Raises ModelError, naming the choices."""
    if name not in SPECS:
        raise ModelError(f"spec {name!r} is unknown; known names: {', '.join(SPECS)}, or give a PRMSpec")
    return SPECS[name]
