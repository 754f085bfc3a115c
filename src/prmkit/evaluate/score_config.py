"""Configuration of scoring a file with a PRM. Plain data, no torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from prmkit.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class PRMOverrides:
    """How to ask the model for step rewards, where its folder does not say so or says it wrongly.

    The fields are those of `PRMSpec`, the content of a model's `prm.json`. What is left at its default is taken from there.
    """

    family: Literal[
        "auto",
        "token_classification",
        "process_reward",
        "label_tokens",
        "label_turns",
        "value_head",
        "implicit",
        "log_prob",
    ] = "auto"
    """What kind of PRM the folder holds; `auto` reads prm.json, else config.json."""
    separator: str = ""
    """Text after each step, as the model was trained with; empty: as the folder says. An implicit or log_prob model then reads it
    between the steps of all solutions; else a solution whose own text between steps is known keeps that."""
    labels: tuple[str, ...] = ()
    """Label tokens or class names: right, wrong, and neutral where there is one; empty: as the folder says."""
    neutral: Literal["auto", "right", "wrong"] = "auto"
    """Whether P(neutral) counts for right or for wrong, where there are three classes."""
    prompt: Literal["auto", "chat", "plain"] = "auto"
    """Whether the prompt goes through the chat template, or its text is used as it is."""
    system: str = ""
    """System turn that comes first where the prompt has none; empty: as the folder says."""
    after_prompt: str = ""
    """Text between a plain prompt and the first step; empty: as the folder says."""
    tokenise: Literal["auto", "pieces", "one_text"] = "auto"
    """label_tokens: prompt, steps and separators piece by piece (TRL's rule), or as one text (Math-Shepherd's)."""
    reference: str = ""
    """implicit: folder of the reference model, `base` for an adapter's own base, `none` for log pi alone; empty: as the
    folder says."""
    beta: float = 0.0
    """implicit: the reward is beta times the log-ratio; 0: as the folder says."""

    def __post_init__(self) -> None:
        if not 0 <= self.beta < float("inf"):
            raise ConfigError(f"beta = {self.beta}, but it is a positive number; 0 takes the folder's own")


@dataclass(frozen=True, kw_only=True)
class ScoreConfig:
    """Rewards of every step of the solutions in a file, by any PRM: `prmkit score --model M --source IN --out OUT`."""

    model: str = ""
    """Folder of the PRM."""
    source: str = ""
    """File of solutions, in any format of `prmkit data convert`; also what prmkit sampled: the `.items.jsonl` of `prmkit eval`,
    the rollouts of an RL run."""
    out: str = ""
    """JSONL file of scores, one line a solution, in the order of the source. `.meta.json` beside it says what made them,
    `.errors.jsonl` which rows have none and why. A run that was cut off goes on from there."""
    format: str = "auto"
    """Format of the source; `auto` finds it out."""
    split: Literal["format", "auto", "step", "paragraph", "line", "whole"] = "format"
    """How a response that comes as one text is cut into steps; `format`: as its format usually is."""
    texts: bool = True
    """Repeat prompt, steps and labels in the scores; false writes ids, hashes and numbers alone, of which no page can be made."""
    token_rewards: bool = False
    """Also write the reward of every token of the response, of an implicit PRM or log_prob; the file grows by a multiple."""
    limit: int = 0
    """Score only the first so many rows; 0 scores all. A later run with more goes on from there."""
    window: int = 1024
    """Rows that are read, sorted by length, scored and written together: a cut-off run repeats at most this many."""
    tokens_per_batch: int = 16384
    """Largest number of tokens, padding included, in one forward pass."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """`auto` takes a CUDA GPU where there is one."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Of the weights and the forward pass."""
    threads: int = 0
    """CPU threads for torch; 0 leaves torch's own choice."""
    html: str = ""
    """Also write a page of the scores, steps coloured, to this file; `prmkit report OUT` does it later."""
    prm: PRMOverrides = field(default_factory=PRMOverrides)

    def __post_init__(self) -> None:
        for name, least in (("limit", 0), ("window", 1), ("tokens_per_batch", 1), ("threads", 0)):
            if getattr(self, name) < least:
                raise ConfigError(f"{name} = {getattr(self, name)}, but it must be at least {least}")
        if self.out and not self.out.endswith(".jsonl"):
            raise ConfigError(f'out = "{self.out}", but the scores are a JSONL file; set out = "{self.out}.jsonl"')
        if self.html and not self.html.endswith(".html"):
            raise ConfigError(f'html = "{self.html}", but the page is an HTML file; set html = "{self.html}.html"')
        if self.html and not self.texts:
            raise ConfigError("texts = false leaves no steps to show on the page; set texts = true, or no html")
        if self.out and self.out == self.source:
            raise ConfigError(f'out = "{self.out}" is the source itself; set out to another file')
