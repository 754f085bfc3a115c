"""Configuration of `prmkit data convert`. Plain data, no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from prmkit.config_io import nearest
from prmkit.data.formats import FORMATS, ReadOptions, WriteOptions
from prmkit.data.formats.base import SplitName
from prmkit.data.pairs import BalanceMode, PairMode
from prmkit.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class ConvertConfig:
    """From one file format of PRM data to another: `prmkit data convert --source a.jsonl --target b.jsonl --target-format trl`.

    What the target cannot hold is refused with the reason; what is dropped or left out is counted and printed.
    """

    source: str = ""
    """A JSONL file; with the extra `hub` also a parquet file, a folder or a data set of the hub."""
    target: str = ""
    """The JSONL file to write."""
    source_format: str = "auto"
    """auto: by the fields of the first row. docs/prm_data.md lists the names."""
    target_format: str = "prmkit"
    """The name of the format to write."""
    on_bad: Literal["stop", "skip"] = "stop"
    """What to do at a row that cannot be read or written: stop, or go on without it and list it at the end."""
    lossless: bool = False
    """Refuse rows of which the target would lose anything at all, ids and separators included."""
    source_split: Literal["train", "test"] = "train"
    """Of a folder or a data set of the hub."""

    split: Literal["default", "auto", "step", "paragraph", "line", "whole"] = "default"
    """How responses that come as one text are cut into steps; default: as their format usually is."""
    placeholder: str = "ки"
    """The step tag of Math-Shepherd, OpenRLHF and OpenR rows, read and written."""
    response_start: str = "Step 1:"
    """Where the response begins in formats that hold prompt and response in one text."""
    problem_end: Literal["auto", "blank_line"] = "auto"
    """RLHFlow: where the problem ends in a first turn without `response_start`: at its only blank line; auto: such a row is
    refused, since a blank line may lie inside the problem."""
    human_completion: Literal["right", "unlabelled"] = "right"
    """PRM800K, phase 1: what a step is that the labeller wrote, and nobody rated."""
    alternatives: Literal["drop", "last", "all"] = "drop"
    """PRM800K: completions that were not chosen, each as a solution that ends there, labelled at its last step or at all."""
    original: bool = True
    """PRMBench: the unmodified solutions too."""
    outside: Literal["refuse", "ignore"] = "refuse"
    """PRMBench: error steps that the solution does not have."""
    preferred_is_right: bool = False
    """Preference data: take chosen for right and rejected for wrong."""

    phase: Literal["all", "1", "2"] = "all"
    """PRM800K: only rows of this phase."""
    drop_quality_control: bool = False
    """PRM800K: without quality-control rows; recommended for training."""
    drop_screening: bool = False
    """PRM800K: without the rows that screened labellers; recommended for training."""
    finish_reasons: tuple[str, ...] = ()
    """PRM800K: only rows that ended so (found_error, solution, bad_problem, give_up); empty: all."""

    neutral: Literal["keep", "right", "wrong", "drop"] = "keep"
    """What a neutral step becomes; drop removes its label."""
    unlabelled: Literal["keep", "right", "wrong", "cut"] = "keep"
    """What a step without label becomes; cut ends the solution before the first one."""
    threshold: float = -1.0
    """Soft labels and outcomes above this are right, others wrong (Math-Shepherd: 0, OpenR: 0.5); below 0: they stay."""
    after_error: Literal["keep", "unlabel", "cut"] = "keep"
    """What becomes of steps after the first wrong one: cut ends the solution with it, unlabel removes their labels."""
    number_steps: bool = False
    """Put `Step k: ` before steps that do not begin with it."""
    outcome_from_labels: bool = False
    """Where the outcome is not known: wrong if a step is wrong, right if the solution is whole, all its steps are labelled and
    none is wrong. Unknown where it ends early: an alternative, or a PRM800K labelling that did not end with `solution`."""

    pairs: PairMode = "all"
    """Target preference: every right with every wrong solution of a prompt, or each solution in one pair at most."""
    balance: BalanceMode = "none"
    """As many right as wrong solutions: over the data set, or within each prompt."""
    seed: int = 0
    """Of pairs and balance."""
    label_type: Literal["auto", "bool", "float"] = "auto"
    """Targets trl and openrlhf: the type of labels; auto: bool unless there is a soft one."""
    extras: bool = True
    """Write what else is known of a solution as further columns."""

    def __post_init__(self) -> None:
        for key, name in (("source_format", self.source_format), ("target_format", self.target_format)):
            if name not in FORMATS and not (key == "source_format" and name == "auto"):
                raise ConfigError(f'{key} = "{name}" is no data format; {nearest(name, FORMATS)}')
        if maker := FORMATS[self.target_format].made_by:
            raise ConfigError(
                f'target_format = "{self.target_format}" is what {maker} writes of what it sampled, and is only read; set '
                'target_format = "prmkit"'
            )
        if not self.response_start.strip():
            raise ConfigError('response_start = "" is empty; set it to how responses begin, such as "Step 1:"')
        if not self.placeholder:
            raise ConfigError('placeholder = "" is empty; set it to the text that ends each step, such as "ки"')
        if self.target and not self.target.endswith((".jsonl", ".json")):
            raise ConfigError(
                f'target = "{self.target}", but JSON lines are written; set target = "{self.target}.jsonl"'
            )
        if not self.threshold < 1:
            raise ConfigError(f"threshold = {self.threshold}, but labels above it are right, so it must be below 1")

    @property
    def read_options(self) -> ReadOptions:
        """What is left open when the source is read."""
        return ReadOptions(
            split=self._split,
            placeholder=self.placeholder,
            response_start=self.response_start,
            problem_end=self.problem_end,
            human_completion=self.human_completion,
            alternatives=self.alternatives,
            keep_alternatives=self.target_format in ("prm800k", "prmkit"),
            original=self.original,
            outside=self.outside,
            preferred_is_right=self.preferred_is_right,
        )

    @property
    def write_options(self) -> WriteOptions:
        """What is left open when the target is written."""
        return WriteOptions(placeholder=self.placeholder, label_type=self.label_type, extras=self.extras)

    @property
    def _split(self) -> SplitName | None:
        return None if self.split == "default" else self.split
