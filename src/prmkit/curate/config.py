"""Configuration of `prmkit data prepare`. Plain data, no torch."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

from prmkit.config import ModelConfig, VerifierConfig
from prmkit.config_io import nearest
from prmkit.data.types import SamplingParams
from prmkit.errors import ConfigError

STEPS = ("rules", "answer", "choices", "duplicates", "contamination", "difficulty", "verifiability")
"""The steps of the library; one's own is a `module:function`."""


def _in_range(section: object, ranges: dict[str, tuple[float, float]]) -> None:
    for key, (low, high) in ranges.items():
        value = getattr(section, key)
        if not low <= value <= high:
            raise ConfigError(f"{key} = {value} is out of range [{low:g}, {high:g}]")


def _is_unset(model: ModelConfig) -> bool:
    """Neither folder nor server. The model that is made from scratch can read no questions."""
    return model.path == "tiny" and not model.url


@dataclass(frozen=True, kw_only=True)
class RulesConfig:
    """Questions that cannot be asked, or not be judged, by their wording."""

    use: tuple[str, ...] = ("figure", "diagram", "image", "proof", "blank")
    """Rules by name; docs/data_prepare.md has each, and PRIME's own as `prime_figure`, `prime_proof`, `prime_blank`."""
    own: tuple[str, ...] = ()
    """Rules of one's own as `name=regex`: a question in which the regex is found is dropped (letter case is ignored)."""


@dataclass(frozen=True, kw_only=True)
class AnswerConfig:
    """Answers that a verifier can work with."""

    solution: Literal["agree", "require", "ignore"] = "agree"
    """`agree`: a solution that marks an answer must agree with the row's; `require`: and every solution must mark one
    (PRIME's rule); `ignore`: solutions are not looked at where the row has an answer."""
    phrases: bool = False
    """Also take "the answer is 5" for the solution's answer, not only `\\boxed{5}` and `#### 5`. In solutions written for people
    such words often introduce something else."""
    most_characters: int = 200
    """Longest answer; 0: no limit."""
    probe: bool = True
    """Also drop answers of which only a response with the same text would be judged right or wrong at all."""

    def __post_init__(self) -> None:
        _in_range(self, {"most_characters": (0, math.inf)})


@dataclass(frozen=True, kw_only=True)
class ChoicesConfig:
    """Multiple choice."""

    mode: Literal["open", "drop", "keep"] = "open"
    """`open`: ask without the options, where the question stands by itself; what cannot be opened is dropped."""
    by: Literal["rules", "model"] = "rules"
    """What opens: the options are cut off (`rules`), or `choices.model` decides and rewrites question and solution."""
    refers: tuple[str, ...] = ("following", "statement", "which of these", "closest", "could be")
    """A question with one of these needs its options and is not opened. The first two are PRIME's."""
    letters: Literal["drop", "keep"] = "drop"
    """Rows whose answer is a letter of A to J in brackets or alone, and whose question shows no options."""
    batch_size: int = 64
    """Questions per call of the model."""
    failures: Literal["stop", "drop"] = "stop"
    """When the model gives no response: stop at the end of the step (the same command asks again), or drop the question."""
    model: ModelConfig = field(default_factory=ModelConfig)
    sampling: SamplingParams = field(default_factory=lambda: SamplingParams(temperature=0.8, max_tokens=2048))

    def __post_init__(self) -> None:
        _in_range(self, {"batch_size": (1, math.inf)})


@dataclass(frozen=True, kw_only=True)
class DuplicatesConfig:
    """Questions that are there twice."""

    near: float = 0.8
    """Jaccard similarity of word n-grams from which two questions with the same answer are one; 0: equal questions only."""
    n: int = 3
    """Words of an n-gram."""
    same_numbers: bool = True
    """Near duplicates also have the same numbers, in order; off, variants of one template count as duplicates too."""
    conflicts: Literal["drop", "first", "keep"] = "drop"
    """Equal questions with different answers: drop all of them, keep the first, or keep all."""

    def __post_init__(self) -> None:
        _in_range(self, {"near": (0.0, 1.0), "n": (1, 100)})
        if 0 < self.near < 0.3:
            raise ConfigError(
                f"near = {self.near} calls almost all questions equal; set it to 0.3 or above, or 0 for off"
            )


@dataclass(frozen=True, kw_only=True)
class ContaminationConfig:
    """Questions of the evaluation sets."""

    against: tuple[str, ...] = ()
    """Evaluation sets: a file, `TASK=FILE` where the fields are those of a task of docs/evaluation.md, or `TASK=hub`."""
    n: int = 13
    """Words of an n-gram that may not be shared, signs and LaTeX commands not counted. A question that is equal as a whole
    counts whatever its length."""
    common: int = 10
    """n-grams in more than this many source questions are phrases that the field uses and count for nothing; 0: all count."""

    def __post_init__(self) -> None:
        _in_range(self, {"n": (3, 100), "common": (0, math.inf)})


@dataclass(frozen=True, kw_only=True)
class DifficultyConfig:
    """How often a model is right."""

    samples: int = 8
    """Responses per question."""
    bounds: tuple[float, float] = (0.2, 0.8)
    """Lowest and highest accuracy that is kept, both included."""
    decided: float = 0.5
    """Smallest share of the responses that the verifier must have decided; accuracy is over these alone."""
    template: str = "boxed"
    """How questions are put: a template of docs/evaluation.md, or a file of one's own. Ask as RL will ask."""
    batch_size: int = 64
    """Questions per call of the model."""
    failures: Literal["stop", "drop"] = "stop"
    """When the model gives no response: stop at the end of the step (the same command asks again), or drop the question."""
    model: ModelConfig = field(default_factory=ModelConfig)
    """The model that RL will start from."""
    sampling: SamplingParams = field(default_factory=lambda: SamplingParams(temperature=1.0, max_tokens=2048))

    def __post_init__(self) -> None:
        _in_range(self, {"samples": (1, math.inf), "decided": (0.0, 1.0), "batch_size": (1, math.inf)})
        low, high = self.bounds
        if not 0 <= low <= high <= 1:
            raise ConfigError(f"bounds = [{low}, {high}] is no range of accuracies; set it to [0.2, 0.8] or the like")


@dataclass(frozen=True, kw_only=True)
class VerifiabilityConfig:
    """Whether strong models agree among themselves and with the reference."""

    samples: int = 5
    """Responses per question and model."""
    agreement: float = 0.6
    """Smallest share of all responses that give the majority's answer. PRIME's released scripts state no threshold."""
    unsolvable: float = 0.0
    """Largest share of responses that may say that the question has no solution."""
    reference: bool = True
    """The majority's answer must equal the row's."""
    batch_size: int = 64
    """Questions per call of a model."""
    failures: Literal["stop", "drop"] = "stop"
    """When a model gives no response: stop at the end of the step (the same command asks again), or drop the question."""
    models: tuple[ModelConfig, ...] = ()
    """[[verifiability.models]] tables, each as `[model]`."""
    sampling: SamplingParams = field(
        default_factory=lambda: SamplingParams(temperature=0.8, top_p=0.95, max_tokens=16384)
    )

    def __post_init__(self) -> None:
        ranges = {
            "samples": (1, math.inf),
            "agreement": (0.0, 1.0),
            "unsolvable": (0.0, 1.0),
            "batch_size": (1, math.inf),
        }
        _in_range(self, ranges)


@dataclass(frozen=True, kw_only=True)
class PrepareConfig:
    """Prompts for RL out of question files: `prmkit data prepare --source math.jsonl --out prepared`.

    The steps run in the order of `steps`. Every dropped row is written to dropped.jsonl with the step and the reason.
    """

    source: tuple[str, ...] = ()
    """Files of questions: JSONL, with the extra `hub` also parquet, a folder or a data set of the hub. `TASK=FILE` where the
    fields are those of a task of docs/evaluation.md, such as `gsm8k=train.jsonl`."""
    out: str = ""
    """The folder to write; it may not exist."""
    steps: tuple[str, ...] = ("rules", "answer", "choices", "duplicates", "contamination")
    """What is done, in order; also `difficulty` and `verifiability`, which need a model, and `module:function` of one's own."""
    on_bad: Literal["stop", "skip"] = "stop"
    """What to do at a row that cannot be read: stop, or list it among the dropped."""
    limit: int = 0
    """Use only the first so many rows of each source; 0 uses all."""
    split: Literal["train", "test"] = "train"
    """Of a folder or a data set of the hub."""
    seed: int = 0
    """Of sampling."""
    cache: str = ""
    """SQLite file of sampled responses, from which a run that was cut off goes on; empty: `OUT.samples.sqlite`."""
    rules: RulesConfig = field(default_factory=RulesConfig)
    answer: AnswerConfig = field(default_factory=AnswerConfig)
    choices: ChoicesConfig = field(default_factory=ChoicesConfig)
    duplicates: DuplicatesConfig = field(default_factory=DuplicatesConfig)
    contamination: ContaminationConfig = field(default_factory=ContaminationConfig)
    difficulty: DifficultyConfig = field(default_factory=DifficultyConfig)
    verifiability: VerifiabilityConfig = field(default_factory=VerifiabilityConfig)
    verifier: VerifierConfig = field(default_factory=VerifierConfig)
    """Use the one that RL will use."""

    def __post_init__(self) -> None:
        _in_range(self, {"limit": (0, math.inf)})
        if not self.steps:
            raise ConfigError(f"steps is empty, so nothing would be done; known: {', '.join(STEPS)}")
        for name in self.steps:
            if name not in STEPS and ":" not in name:
                raise ConfigError(
                    f'steps: "{name}" is no step; {nearest(name, STEPS)} (one\'s own is "module:function")'
                )
        opening = self.choices.mode == "open" and self.choices.by == "model"
        needs = {
            "difficulty": _is_unset(self.difficulty.model),
            "choices": opening and _is_unset(self.choices.model),
        }
        for name, missing in needs.items():
            if name in self.steps and missing:
                raise ConfigError(
                    f'the step "{name}" samples from a model; set {name}.model.path to its folder or {name}.model.url to a server'
                )
        if "verifiability" in self.steps and (
            not self.verifiability.models or any(map(_is_unset, self.verifiability.models))
        ):
            raise ConfigError(
                'the step "verifiability" samples from models; add [[verifiability.models]] tables with path or url'
            )
