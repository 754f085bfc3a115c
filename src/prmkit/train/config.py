"""Configuration of supervised fine-tuning. Plain data, no torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from prmkit.config import ModelConfig, OptimizerConfig, ReportTo, TaskConfig
from prmkit.errors import ConfigError

TooLong = Literal["error", "leave_out"]


@dataclass(frozen=True, kw_only=True)
class SFTConfig:
    """Fine-tune on worked solutions: `prmkit sft CONFIG.toml`."""

    run_dir: str = "runs/sft"
    """Folder of the run. If it holds checkpoints of the same configuration, the run goes on from the last one."""
    seed: int = 0
    steps: int = 300
    batch_size: int = 64
    """Demonstrations per optimizer step."""
    max_tokens: int = 256
    """Longest demonstration, prompt included, and never more than the model's context."""
    too_long: TooLong = "error"
    """A longer one is an error, or left out. What was left out is counted and printed. None is ever cut."""
    data: str = ""
    """JSONL with prompt and completion, or messages, whose last turn alone is learned; empty: the worked solutions of `task`."""
    model: ModelConfig = field(default_factory=ModelConfig)
    task: TaskConfig = field(default_factory=TaskConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    save_every: int = 100
    keep_checkpoints: int = 1
    report_to: tuple[ReportTo, ...] = ()
    """tensorboard, wandb, trackio: loggers beside metrics.jsonl."""

    def __post_init__(self) -> None:
        self.model.refuse_url("fine-tuning moves the weights")
        for key in ("steps", "batch_size", "max_tokens", "save_every", "keep_checkpoints"):
            if getattr(self, key) < 1:
                raise ConfigError(f"{key} = {getattr(self, key)} is out of range; it must be at least 1")
