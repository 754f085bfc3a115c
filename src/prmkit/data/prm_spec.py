"""What a folder's weights mean as a reward model: `prm.json` beside config.json. Plain data, no torch."""

from __future__ import annotations

import json
import math
import os
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Literal, get_args

from prmkit.errors import ModelError

Family = Literal[
    "token_classification", "process_reward", "label_tokens", "label_turns", "value_head", "implicit", "log_prob"
]
"""`token_classification`: 2 or 3 classes at the separator after each step (TRL). `process_reward`: Qwen2.5-Math-PRM, a 2-class
head at `<extra_0>`. `label_tokens`: a causal LM whose logits of label tokens are read at a step tag (Math-Shepherd).
`label_turns`: a chat whose assistant answers + or - to each step (RLHFlow). `value_head`: one number at each step's last token
(Skywork-o1, and prmkit's outcome models). `implicit`: a causal LM against a reference. `log_prob`: a plain causal LM."""


@dataclass(frozen=True, kw_only=True)
class PRMSpec:
    """How to ask the model in a folder for step rewards. Strings that do not apply are empty."""

    family: Family
    separator: str = "\n\n"
    """Text after each step, the last included where a head reads there. `<extra_0>` and the like are separators too.
    implicit, log_prob: text between the steps of solutions whose own is not known; see `keep_text`."""
    keep_text: bool = True
    """implicit, log_prob: a solution that says what stands between its steps keeps its text; false: `separator` stands between
    the steps of every solution."""
    labels: tuple[str, ...] = ()
    """label_tokens, label_turns: the label tokens' text, right one first, then wrong, then neutral where there is one.
    token_classification: the class names in the order of the head's outputs, of right, wrong, neutral."""
    neutral_is_right: bool = True
    """Whether P(neutral) counts for P(right) (Let's Verify's choice) where there are three classes."""
    chat: bool = True
    """Whether the prompt goes through the chat template; else its text is used as it is, and it must be one turn. label_turns,
    implicit and log_prob always use the template."""
    system: str = ""
    """Where the chat template is used: the system turn that comes first where the prompt has none; empty: none is added."""
    after_prompt: str = ""
    """Text between the prompt's own text and the first step, where the prompt does not go through the chat template, and in
    label_turns."""
    one_text: bool = False
    """label_tokens: prompt, steps and separators are tokenised as one text (Math-Shepherd), not piece by piece (TRL's rule). The
    separator without its white space is then the one token at which a step is read."""
    reference: str = ""
    """implicit: folder of the reference, relative to this one or absolute; `base`: this adapter's base with the adapter off;
    empty: none (log pi alone)."""
    beta: float = 1.0
    """implicit: the reward is beta times the log-ratio."""
    base: str = ""
    """Of an adapter: folder of its base, relative to this one or absolute. `write_spec` fills it in; where it is no model any
    more, the name in adapter_config.json counts, which PEFT and transformers read from the working directory."""

    def __post_init__(self) -> None:
        if self.family not in get_args(Family):
            raise ValueError(f"family {self.family!r} is unknown; known: {', '.join(get_args(Family))}")
        for field in fields(self):
            value, kind = getattr(self, field.name), type(field.default)
            if kind is bool and not isinstance(value, bool):
                raise ValueError(f"{field.name} is {value!r}, but it is true or false")
            if kind is str and not isinstance(value, str):
                raise ValueError(f"{field.name} is {value!r}, but it is a text")
        if not isinstance(self.labels, tuple) or not all(isinstance(label, str) for label in self.labels):
            raise ValueError(f"labels is {self.labels!r}, but it is a list of texts")
        if type(self.beta) not in (int, float) or not 0 < self.beta < math.inf:
            raise ValueError(f"beta is {self.beta!r}, but it is a positive number")


def write_spec(folder: Path, spec: PRMSpec) -> None:
    """Write prm.json, after the weights. Reference and base are named by `portable`, so that a run and its models can be moved
    together."""
    spec = replace(spec, reference=portable(folder, spec.reference), base=portable(folder, named_base(folder)))
    (folder / "prm.json").write_text(json.dumps(asdict(spec), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def named_base(folder: Path) -> str:
    """The base that adapter_config.json names; empty for a folder of whole weights. Raises ModelError for a file without it."""
    file = folder / "adapter_config.json"
    if (folder / "config.json").is_file() or not file.is_file():
        return ""
    try:
        name = json.loads(file.read_text(encoding="utf-8"))["base_model_name_or_path"]
        if not isinstance(name, str) or not name:
            raise ValueError(f"base_model_name_or_path is {name!r}")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{folder}: adapter_config.json does not name its base: {error!r}; save it again") from error
    return name


def base_folder(folder: Path) -> Path:
    """The folder of an adapter's base: what prm.json says, then what adapter_config.json says; a relative name is taken from the
    adapter's folder, then from the working directory. Raises ModelError where none of them is a model."""
    named = named_base(folder)
    spec = read_spec(folder)
    for name in (spec.base if spec else "", named):
        for base in (folder / name, Path(name)) if name else ():
            if (base / "config.json").is_file():
                return base.resolve()
    raise ModelError(
        f"{folder}: its base {named} is not there; put it back, or correct base_model_name_or_path in adapter_config.json"
    )


def portable(folder: Path, reference: str) -> str:
    """`reference` relative to `folder` where both lie under the run's folder, its parent or the parent's parent (a project that
    holds `runs/` and `models/`); else as it is.

    The run's folder is the one that holds `checkpoints`; of a model outside a run, its own folder. A checkpoint is written
    aside under another name of the same depth, so what is relative to it stays right when it gets its own.
    """
    if not Path(reference).is_absolute():
        return reference
    here, there = folder.resolve(), Path(reference).resolve()
    run = next((parent.parent for parent in here.parents if parent.name == "checkpoints"), here)
    top = run.parent.parent
    if top == Path(top.anchor) or not there.is_relative_to(top):
        top = run.parent
    if top == Path(top.anchor) or not there.is_relative_to(top):
        return reference
    return Path(os.path.relpath(there, here)).as_posix()


def read_spec(folder: Path) -> PRMSpec | None:
    """The folder's prm.json; None where there is none. Raises ModelError for one that cannot be read."""
    file = folder / "prm.json"
    if not file.is_file():
        return None
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
        unknown = sorted(set(data) - {field.name for field in fields(PRMSpec)})
        if unknown:
            raise ValueError(f"unknown key {unknown[0]!r}")
        labels = data.get("labels", [])
        return PRMSpec(**{**data, "labels": tuple(labels) if isinstance(labels, list) else labels})
    except (OSError, ValueError, TypeError) as error:
        raise ModelError(
            f"{file}: not a description of a reward model ({error}); mend it, or save the model again"
        ) from error
