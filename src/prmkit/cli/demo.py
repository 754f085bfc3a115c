"""`prmkit demo`: fine-tune, PRIME, evaluate and report on the embedded task, in minutes on two cores."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from prmkit.config import ModelConfig, OptimizerConfig, TaskConfig
from prmkit.config_io import nearest
from prmkit.data.types import SamplingParams
from prmkit.errors import ConfigError
from prmkit.rl.config import RLConfig
from prmkit.rl.presets import PRESETS
from prmkit.train.config import SFTConfig

OPTIMIZER = OptimizerConfig(learning_rate=1e-4, beta2=0.95)


@dataclass(frozen=True, kw_only=True)
class DemoConfig:
    """All of prmkit on a small task that is made here: `prmkit demo`."""

    run_dir: str = "runs/demo"
    """Holds sft/ and rl/. The same command goes on where it stopped."""
    seed: int = 0
    preset: str = "prime"
    """The algorithm; see `prmkit.rl.presets`."""
    chain: int = 6
    """Additions in a problem."""
    sft_steps: int = 300
    rl_steps: int = 50
    prompts_per_step: int = 16
    eval_prompts: int = 256
    threads: int = 0
    """CPU threads for torch; 0 leaves torch's own choice."""

    def __post_init__(self) -> None:
        if self.preset not in PRESETS:
            raise ConfigError(f'preset = "{self.preset}" is no preset; {nearest(self.preset, list(PRESETS))}')
        for key in ("chain", "sft_steps", "rl_steps", "prompts_per_step", "eval_prompts"):
            if getattr(self, key) < 1:
                raise ConfigError(f"{key} = {getattr(self, key)} is out of range; it must be at least 1")


def stages(config: DemoConfig) -> tuple[SFTConfig, RLConfig]:
    """The two runs that the demo is made of."""
    root, model = Path(config.run_dir), ModelConfig(threads=config.threads)
    task = TaskConfig(name="arithmetic", chain=config.chain, misconceptions="carry", error_rate=0.35)
    sft = SFTConfig(
        run_dir=str(root / "sft"),
        seed=config.seed,
        steps=config.sft_steps,
        model=model,
        task=task,
        optimizer=OptimizerConfig(learning_rate=2e-3, beta2=0.95, warmup_steps=50, schedule="cosine"),
    )
    rl = RLConfig(
        run_dir=str(root / "rl"),
        seed=config.seed,
        steps=config.rl_steps,
        prompts_per_step=config.prompts_per_step,
        preset=config.preset,
        algorithm=PRESETS[config.preset],
        model=replace(model, path=sft.run_dir),
        task=task,
        sampling=SamplingParams(max_tokens=12 * config.chain),
        policy=OPTIMIZER,
        prm=OPTIMIZER,
        critic=OPTIMIZER,
        eval_every=10,
        eval_prompts=config.eval_prompts,
    )
    return sft, rl


def run(config: DemoConfig) -> None:
    """Fine-tune, then RL, then a table of before and after."""
    from prmkit.cli import commands

    start = time.perf_counter()
    sft, rl = stages(config)
    commands.sft(sft)
    commands.rl(rl)
    commands.console.print(_table(Path(rl.run_dir), rl.steps))
    commands.console.print(f"{time.perf_counter() - start:.0f} s in all", soft_wrap=True)
    commands.console.print(f"report: {Path(rl.run_dir) / 'report.html'}", soft_wrap=True)


def _table(run_dir: Path, last_step: int) -> Any:
    """Before and after, read from the run's own logs."""
    from rich.table import Table

    from prmkit.data.jsonl import read_jsonl

    evaluations = {row["step"]: row for row in read_jsonl(run_dir / "eval.jsonl")}
    before, after = evaluations[0], evaluations[last_step]
    metrics = read_jsonl(run_dir / "metrics.jsonl")
    timings = read_jsonl(run_dir / "timings.jsonl")
    table = Table(title="arithmetic, test prompts (95% intervals)", title_justify="left")
    for column in ("", "after SFT", "after RL"):
        table.add_column(column, justify="left" if not column else "right")
    for kind in ("sampled", "greedy"):
        table.add_row(f"{kind} accuracy", *(_interval(row, kind) for row in (before, after)))
    speed = sum(row["tokens_per_second"] for row in timings) / len(timings)
    table.add_row("tokens sampled per second", "", f"{speed:,.0f}")
    aucs = [row["prm/first_error_auc"] for row in metrics if "prm/first_error_auc" in row]
    if aucs:
        recent = aucs[-10:]
        table.add_row("first wrong step: AUC of process rewards", f"{aucs[0]:.3f}", f"{sum(recent) / len(recent):.3f}")
    return table


def _interval(row: Mapping[str, Any], kind: str) -> str:
    return f"{row[f'eval/{kind}_accuracy']:.3f} [{row[f'eval/{kind}_low']:.3f}, {row[f'eval/{kind}_high']:.3f}]"
