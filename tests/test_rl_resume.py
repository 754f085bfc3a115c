"""Killed at any moment and started again with the same command, a run ends in the bytes of one that was never killed."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
import torch
from engine_models import own_logprobs
from rl_setup import At, Done, commands, micro_model, scratch, taught_model
from transformers import AutoModelForCausalLM

KINDS: dict[str, tuple[str, ...]] = {
    "prime": (
        "--preset=prime",
        "--algorithm.process.replay-batches=2",
        "--algorithm.num-minibatches=2",
        "--algorithm.prm-minibatches=2",
    ),
    "ppo": ("--preset=prime_ppo", "--algorithm.kl.coef=0.1"),
    "lora": ("--preset=prime", "--model.lora-rank=4", "--algorithm.kl.coef=0.1"),
}
"""Replayed PRM batches; a value model and a KL reference; adapters on a shared base."""


def rl_args(run: Path, kind: str = "prime") -> tuple[str, ...]:
    return (
        "rl",
        *KINDS[kind],
        f"--run-dir={run}",
        f"--model.path={taught_model()}",
        "--model.device=cpu",
        "--model.threads=1",
        "--task.chain=2",
        "--sampling.max-tokens=24",
        "--algorithm.filter.low=0",
        "--algorithm.filter.high=1",
        "--policy.learning-rate=1e-3",
        "--prm.learning-rate=1e-3",
        "--prompts-per-step=3",
        "--steps=5",
        "--save-every=2",
        "--keep-checkpoints=1",
        "--eval-every=2",
        "--eval-prompts=6",
        "--record-rollouts-every=1",
        "--keep-rollouts=3",
    )


def sft_args(run: Path) -> tuple[str, ...]:
    return (
        "sft",
        f"--run-dir={run}",
        f"--model.path={micro_model()}",
        "--model.device=cpu",
        "--model.threads=1",
        "--task.chain=2",
        "--task.demonstrations=64",
        "--optimizer.schedule=cosine",
        "--batch-size=8",
        "--steps=5",
        "--save-every=2",
    )


def arguments(kind: str, run: Path) -> tuple[str, ...]:
    return sft_args(run) if kind == "sft" else rl_args(run, kind)


def bytes_of(run: Path) -> dict[str, str]:
    """A checksum of every file but those that tell the time or the place."""
    exempt = {"timings.jsonl", "config.toml", "report.html", "report.json"}
    files = [p for p in run.rglob("*") if p.is_file() and p.name not in exempt]
    return {str(p.relative_to(run)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


@cache
def never_killed(kind: str) -> tuple[Done, dict[str, str]]:
    run = scratch() / f"whole-{kind}"
    done = commands().run(*arguments(kind, run), watch=run)
    assert done.code == 0, done.err
    return done, bytes_of(run)


def assert_ends_the_same(kind: str, run: Path) -> None:
    done = commands().run(*arguments(kind, run))
    assert done.code == 0, done.err
    assert bytes_of(run) == never_killed(kind)[1]


MOMENTS = {
    "before the first step": At(matching="open metrics.jsonl", write=0),
    "during the evaluation's write": At(matching="open eval.jsonl", write=1),
    "between metrics and timings": At(matching="open timings.jsonl", write=2),
    "old rollouts half gone": At(matching="os.remove rollouts", write=1),
    "inside the first checkpoint": At(matching="step_000002/policy/tokenizer_config.json", write=0),
    "inside the second checkpoint": At(matching="step_000004/policy/config.json", write=0),
    "trainer.pt half written": At(matching="os.mkdir checkpoints/.writing-step_000004", write=0, action="tear"),
    "before the rename": At(matching="os.rename checkpoints/.writing-step_000004", write=0),
    "before the old checkpoint goes": At(matching="shutil.rmtree checkpoints/", write=3),
    "between steps": At(matching="open .writing-rollouts-step_000005", write=0),
    "inside the last checkpoint": At(matching="step_000005/policy/config.json", write=0),
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_killed_run_ends_in_the_same_bytes(moment: str, tmp_path: Path) -> None:
    killed = commands().run(*rl_args(tmp_path), watch=tmp_path, at=MOMENTS[moment])
    assert killed.code == -9, killed.err
    assert bytes_of(tmp_path) != never_killed("prime")[1]
    assert_ends_the_same("prime", tmp_path)


@pytest.mark.parametrize("kind", ["ppo", "lora"])
@pytest.mark.parametrize("matching", ["open .writing-rollouts-step_000003", "step_000004/policy/tokenizer_config.json"])
def test_value_models_and_adapters_go_on_too(kind: str, matching: str, tmp_path: Path) -> None:
    killed = commands().run(*rl_args(tmp_path, kind), watch=tmp_path, at=At(matching=matching, write=0))
    assert killed.code == -9, killed.err
    assert_ends_the_same(kind, tmp_path)


@pytest.mark.parametrize("matching", ["open metrics.jsonl", "step_000004/policy/config.json", "os.rename checkpoints"])
def test_fine_tuning_goes_on_too(matching: str, tmp_path: Path) -> None:
    write = 3 if matching == "open metrics.jsonl" else 0
    killed = commands().run(*sft_args(tmp_path), watch=tmp_path, at=At(matching=matching, write=write))
    assert killed.code == -9, killed.err
    assert_ends_the_same("sft", tmp_path)


@pytest.mark.slow
def test_killed_again_and_again(tmp_path: Path) -> None:
    """Every attempt is killed a few writes further on than the last."""
    attempts, write = 0, 3
    while (done := commands().run(*rl_args(tmp_path), watch=tmp_path, at=At(write=write))).code != 0:
        assert done.code == -9, done.err
        attempts, write = attempts + 1, write + 5
    assert attempts > 5
    assert bytes_of(tmp_path) == never_killed("prime")[1]


@pytest.mark.slow
@pytest.mark.parametrize("kind", [*KINDS, "sft"])
def test_killed_at_one_write_in_four(kind: str, tmp_path: Path) -> None:
    writes = never_killed(kind)[0].writes
    for write in range(2, len(writes), 4):
        run = tmp_path / str(write)
        killed = commands().run(*arguments(kind, run), watch=run, at=At(write=write))
        assert killed.code == -9, (write, writes[write], killed.err)
        done = commands().run(*arguments(kind, run))
        assert done.code == 0, (write, writes[write], done.err)
        assert bytes_of(run) == never_killed(kind)[1], (write, writes[write])
