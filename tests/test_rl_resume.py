"""Killed at any moment and started again with the same command, a run ends in the bytes of one that was never killed."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
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
        "--algorithm.process.gate=accuracy",
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
        "--eval-prompts=4",
        "--eval-samples=2",
        "--task.demonstrations=8",
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
    files = [p for p in run.rglob("*") if p.is_file() and p.name not in exempt and not p.name.startswith(".report")]
    return {str(p.relative_to(run)): hashlib.sha256(comparable(p)).hexdigest() for p in files}


def comparable(file: Path) -> bytes:
    """The bytes; of prm.json, with the names of its reference and base alone: the way there differs between places."""
    if file.name != "prm.json":
        return file.read_bytes()
    spec = json.loads(file.read_text())
    return json.dumps(spec | {key: Path(spec[key]).name for key in ("reference", "base")}).encode()


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
        attempts, write = attempts + 1, write + 9
    assert attempts > 3
    assert bytes_of(tmp_path) == never_killed("prime")[1]


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "stride"), [("prime", 12), ("ppo", 24), ("lora", 24), ("sft", 10)])
def test_killed_at_many_writes(kind: str, stride: int, tmp_path: Path) -> None:
    writes = never_killed(kind)[0].writes
    for write in range(2, len(writes), stride):
        run = tmp_path / str(write)
        killed = commands().run(*arguments(kind, run), watch=run, at=At(write=write))
        assert killed.code == -9, (write, writes[write], killed.err)
        done = commands().run(*arguments(kind, run))
        assert done.code == 0, (write, writes[write], done.err)
        assert bytes_of(run) == never_killed(kind)[1], (write, writes[write])


@pytest.mark.slow
def test_a_process_of_its_own_killed_from_outside(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "prmkit.cli.main", *rl_args(tmp_path)]
    checkpoints = tmp_path / "checkpoints"
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while process.poll() is None and not any(checkpoints.glob("step_*")):
            time.sleep(0.002)
        process.kill()
    assert process.returncode == -9, "the run was over before it could be killed"
    subprocess.run(command, check=True, capture_output=True)
    assert bytes_of(tmp_path) == never_killed("prime")[1]


@pytest.mark.parametrize("kind", ["prime", "sft"])
def test_an_interrupt_finishes_the_step_saves_it_and_can_be_resumed(kind: str, tmp_path: Path) -> None:
    at = At(matching="open metrics.jsonl", write=2, action="int")  # in the third step
    stopped = commands().run(*arguments(kind, tmp_path), watch=tmp_path, at=at)
    assert stopped.code == 130
    assert stopped.complaint() == "interrupted; run the same command again to go on"
    assert f"{tmp_path}: a checkpoint of the last step is written; the same command goes on from there" in stopped.out
    assert [row["step"] for row in rows(tmp_path / "metrics.jsonl")] == [1, 2, 3]
    assert [p.name for p in (tmp_path / "checkpoints").iterdir()] == ["step_000003"]
    assert_ends_the_same(kind, tmp_path)


def test_an_interrupt_in_the_last_step_changes_nothing(tmp_path: Path) -> None:
    at = At(matching="open metrics.jsonl", write=4, action="int")
    done = commands().run(*rl_args(tmp_path), watch=tmp_path, at=at)
    assert done.code == 0, done.err
    assert bytes_of(tmp_path) == never_killed("prime")[1]


@pytest.mark.parametrize("kind", ["prime", "lora", "sft"])
def test_a_full_disk_in_a_checkpoint_costs_that_checkpoint_only(kind: str, tmp_path: Path) -> None:
    at = At(matching="os.mkdir checkpoints/.writing-step_000004", write=0, action="limit")
    stopped = commands().run(*arguments(kind, tmp_path), watch=tmp_path, at=at)
    assert stopped.code == 1
    start, end = (
        f"error: the checkpoint of step 4 could not be written under {tmp_path / 'checkpoints'}: ",
        "Earlier checkpoints are whole. Free some space and run the same command again",
    )
    assert stopped.complaint().startswith(start)
    assert stopped.complaint().endswith(end)
    assert [p.name for p in (tmp_path / "checkpoints").iterdir()] == ["step_000002"]
    assert_ends_the_same(kind, tmp_path)


@pytest.mark.parametrize(
    ("write", "named"),
    [
        ("open metrics.jsonl", "metrics.jsonl"),
        ("open timings.jsonl", "timings.jsonl"),
        ("open .writing-rollouts", "rollouts/step_000001.jsonl"),
        ("open eval.jsonl", "eval.jsonl"),
        ("open .writing-config.toml", "config.toml"),
    ],
)
def test_a_full_disk_elsewhere_names_the_file(write: str, named: str, tmp_path: Path) -> None:
    stopped = commands().run(*rl_args(tmp_path), watch=tmp_path, at=At(matching=write, write=0, action="limit"))
    assert stopped.code == 1
    assert stopped.complaint().startswith(f"error: {named} could not be written in {tmp_path}: ")
    assert_ends_the_same("prime", tmp_path)


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a file system takes root")
def test_a_disk_that_is_really_full(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    size = sum(f.stat().st_size for f in checkpoint_of_whole().rglob("*"))
    mount = ["mount", "-t", "tmpfs", "-o", f"size={int(1.7 * size)}", "none", str(disk)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting is not allowed here")
    try:
        stopped = commands().run(*rl_args(disk / "run"))
        assert stopped.code == 1
        assert re.search(r"MB, 0\.\d MB are free\)", stopped.complaint()), stopped.complaint()
        assert stopped.complaint().startswith("error: the checkpoint of step 4 could not be written under ")
        shutil.copytree(disk / "run", tmp_path / "run")
    finally:
        subprocess.run(["umount", str(disk)], check=True)
    moved = (tmp_path / "run" / "config.toml").read_text().replace(str(disk), str(tmp_path))
    (tmp_path / "run" / "config.toml").write_text(moved)
    assert_ends_the_same("prime", tmp_path / "run")


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ("--algorithm.clip-low=0.3", "algorithm.clip_low (0.2 there, 0.3 now)"),
        ("--seed=3", "seed (0 there, 3 now)"),
        ("--task.chain=3", "task.chain (2 there, 3 now)"),
    ],
)
def test_another_configuration_in_the_same_folder_is_refused(change: str, named: str, tmp_path: Path) -> None:
    run = copy_of_whole("prime", tmp_path)
    done = commands().run(*rl_args(run), change)
    assert done.code == 2
    assert done.complaint() == (
        f"error: {run} holds a run with another configuration; it differs in {named}. "
        "Give the run another run_dir, or delete the folder"
    )
    assert bytes_of(run) == never_killed("prime")[1]


def test_a_run_can_be_made_longer(tmp_path: Path) -> None:
    shorter = (*rl_args(tmp_path), "--steps=4")
    assert commands().run(*shorter).code == 0
    assert_ends_the_same("prime", tmp_path)


def test_a_finished_run_is_left_as_it_is(tmp_path: Path) -> None:
    assert_ends_the_same("prime", copy_of_whole("prime", tmp_path))


@pytest.mark.parametrize("damage", ["empty", "half", "noise", "hole", "missing"])
def test_a_damaged_checkpoint_names_the_file_and_the_way_out(damage: str, tmp_path: Path) -> None:
    args = (*rl_args(tmp_path), "--keep-checkpoints=2")
    assert commands().run(*args).code == 0
    whole = bytes_of(tmp_path)
    last = tmp_path / "checkpoints" / "step_000005"
    spoil(last / "trainer.pt", damage)
    done = commands().run(*args)
    assert done.code == 1
    assert done.complaint().startswith(f"error: {last / 'trainer.pt'} cannot be read: ")
    assert done.complaint().endswith(f". Delete the folder {last} to go on from the one before")
    shutil.rmtree(last)  # as it says
    assert commands().run(*args).code == 0
    assert bytes_of(tmp_path) == whole


def test_a_damaged_log_names_file_and_line(tmp_path: Path) -> None:
    run = copy_of_whole("prime", tmp_path)
    log = run / "metrics.jsonl"
    lines = log.read_text().splitlines()
    log.write_text("\n".join([lines[0], "{}", *lines[2:]]) + "\n")
    done = commands().run(*rl_args(run))
    assert done.code == 2
    assert done.complaint().startswith(f"error: {log}:2: not a line of this log")


@pytest.mark.parametrize("role", ["policy", "prm"])
def test_saved_models_load_with_transformers_and_say_the_same(role: str) -> None:
    """The checkpoint's weights are in two places: for others in Hugging Face form, for the run itself in trainer.pt."""
    folder = checkpoint_of_whole()
    saved = AutoModelForCausalLM.from_pretrained(folder / role).eval()
    state = torch.load(folder / "trainer.pt", weights_only=True)[role]
    weights = state["weights"] if role == "policy" else state["learner"]["weights"]
    built = AutoModelForCausalLM.from_pretrained(taught_model()).eval()
    before = own_logprobs(built, range(2, 18))
    missing, unexpected = built.load_state_dict(weights, strict=False)
    assert (missing, unexpected) == (["lm_head.weight"], [])  # tied to the embedding
    assert torch.equal(own_logprobs(saved, range(2, 18)), own_logprobs(built, range(2, 18)))
    assert not torch.equal(own_logprobs(saved, range(2, 18)), before)


def checkpoint_of_whole() -> Path:
    never_killed("prime")
    return scratch() / "whole-prime" / "checkpoints" / "step_000005"


def rows(path: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def copy_of_whole(kind: str, tmp_path: Path) -> Path:
    """A finished run, in a folder of its own."""
    never_killed(kind)
    whole, run = scratch() / f"whole-{kind}", tmp_path / "run"
    shutil.copytree(whole, run)
    config = run / "config.toml"
    config.write_text(config.read_text().replace(str(whole), str(run)))
    return run


def spoil(file: Path, damage: str) -> None:
    data = file.read_bytes()
    middle = len(data) // 2
    if damage == "missing":
        file.unlink()
        return
    spoilt = {
        "empty": b"",
        "half": data[:middle],
        "noise": bytes(range(256)) * 40,
        "hole": data[:64] + bytes(middle) + data[64 + middle :],
    }
    file.write_bytes(spoilt[damage])
