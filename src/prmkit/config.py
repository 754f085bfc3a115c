"""Sections of configuration that several commands share. The one layer of defaults: each is written here, once."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from prmkit.errors import ConfigError

ReportTo = Literal["tensorboard", "wandb", "trackio"]
"""Loggers beside metrics.jsonl; each is an extra of its name."""


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Which model, and how it is held."""

    path: str = "tiny"
    """A local Hugging Face folder, a run folder (its last policy), `smollm2` (the extra of that name), or `tiny`: a small
    Llama made from scratch."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Of the forward and backward passes. Weights that are trained stay in float32."""
    lora_rank: int = 0
    """0 trains all weights; otherwise policy and PRM are LoRA adapters of this rank on one shared base, and the reference
    is that base with its adapters off."""
    lora_alpha: int = 32
    gradient_checkpointing: bool = False
    threads: int = 0
    """CPU threads for torch; 0 leaves torch's own choice."""

    def __post_init__(self) -> None:
        _check(self, {"lora_rank": (0, math.inf), "lora_alpha": (1, math.inf), "threads": (0, math.inf)})


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """AdamW and its schedule."""

    learning_rate: float = 1e-4
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    """Gradients are scaled down to this norm; 0 turns clipping off."""
    warmup_steps: int = 0
    """Optimizer steps over which the rate rises linearly to its full value; the first step is never at rate 0."""
    schedule: Literal["constant", "cosine", "linear"] = "constant"
    total_steps: int = 0
    """Optimizer steps at which cosine and linear reach `min_rate_ratio`; filled in by the trainer when 0."""
    min_rate_ratio: float = 0.0
    tokens_per_microbatch: int = 16384
    """Largest number of tokens, padding included, in one forward and backward pass."""

    def __post_init__(self) -> None:
        below_1 = math.nextafter(1.0, 0.0)
        _check(
            self,
            {
                "learning_rate": (0.0, math.inf),
                "beta1": (0.0, below_1),
                "beta2": (0.0, below_1),
                "eps": (0.0, math.inf),
                "weight_decay": (0.0, math.inf),
                "max_grad_norm": (0.0, math.inf),
                "warmup_steps": (0, math.inf),
                "total_steps": (0, math.inf),
                "min_rate_ratio": (0.0, 1.0),
                "tokens_per_microbatch": (1, math.inf),
            },
        )


@dataclass(frozen=True, kw_only=True)
class TaskConfig:
    """What is asked."""

    name: str = "arithmetic"
    """`arithmetic` (made here), `gsm8k`, or `math` (JSONL with question and answer)."""
    train: str = ""
    """Path of the training prompts (JSONL), or a hub data set name with the `hub` extra."""
    test: str = ""
    limit: int = 0
    """Use only the first so many rows; 0 uses all."""
    format: Literal["plain", "boxed", "actions"] = "plain"
    """How an answer is asked for: the task's own form, \\boxed{}, or the seven actions of PRIME's SFT stage."""
    chain: int = 6
    """arithmetic: number of additions."""
    misconceptions: Literal["carry", "pairs"] = "carry"
    """arithmetic: what the demonstrations get wrong: the carry, or an own error for each pair of digits that carries."""
    error_rate: float = 0.5
    """arithmetic: probability that a demonstration falls for a misconception where one applies."""
    demonstrations: int = 4096
    """arithmetic: how many worked solutions the SFT stage sees."""

    def __post_init__(self) -> None:
        _check(self, {"limit": (0, math.inf), "demonstrations": (0, math.inf)})


@dataclass(frozen=True, kw_only=True)
class VerifierConfig:
    """How answers are judged."""

    workers: int = 1
    """Processes that run math-verify."""
    timeout_s: float = 5.0
    """Deadline of one answer; the worker that misses it is killed."""
    function: str = ""
    """`module:function` of a user's verifier: f(prompt, text) -> float in [0, 1] or None (could not decide)."""


def _check(section: object, ranges: dict[str, tuple[float, float]]) -> None:
    """Raises ConfigError for a value outside its inclusive range; not a number is outside every range."""
    for key, (low, high) in ranges.items():
        value = getattr(section, key)
        if not low <= value <= high:
            raise ConfigError(f"{key} = {value} is out of range [{low:g}, {high:g}]")
