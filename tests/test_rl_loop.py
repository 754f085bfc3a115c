"""A run whose verifier or data let it down: what it has learned stays, and it goes on only with what it began with."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from rl_setup import CPU, PROMPTS, CoinVerifier, make_roles, micro_model, rl_config, scratch

from prmkit.cli.provenance import resolved_config
from prmkit.data.types import Prompt, Verdict
from prmkit.engines.local.roles import local_roles
from prmkit.engines.local.single import sft_learner
from prmkit.errors import ConfigError, DataError, TrainingError, VerifierError
from prmkit.models.tiny import make_tiny
from prmkit.rl.algorithm import KL, Algorithm, Filter, Process
from prmkit.rl.config import RLConfig
from prmkit.rl.loop import RunData, train_rl
from prmkit.tasks.arithmetic import SPLIT
from prmkit.train.config import SFTConfig
from prmkit.train.run_folder import RunFolder
from prmkit.train.sft import Encoded, train_sft

OPEN = Algorithm(filter=Filter(low=0.01, high=1.0, max_draws=1))
DATA = RunData(train=PROMPTS, test=PROMPTS[:4])


class Until(CoinVerifier):
    """A coin's verdicts for so many calls, then one verdict for all."""

    def __init__(self, calls: int, then: Verdict) -> None:
        self.calls, self.then = calls, then

    def verify(self, responses: Sequence[tuple[Prompt, str]]) -> list[Verdict]:
        self.calls -= 1
        return super().verify(responses) if self.calls >= 0 else [self.then for _ in responses]


WRONG = Verdict(status="ok", reward=0.0)
BROKEN = Verdict(status="error", reward=None, detail="the judge is down")


def config(run: Path, algorithm: Algorithm = OPEN, **options: Any) -> RLConfig:
    settings = {"steps": 4, "save_every": 10, "record_rollouts_every": 0, "keep_checkpoints": 1}
    return rl_config(algorithm, run_dir=str(run), **settings | options)


def go(settings: RLConfig, verifier: Any = None, data: RunData = DATA) -> RunFolder:
    folder = RunFolder(Path(settings.run_dir))
    local = local_roles(settings, verifier or CoinVerifier(), SPLIT, scratch())
    folder.open(resolved_config(settings), local.frozen)
    train_rl(settings, local.roles, data, folder)
    return folder


def lines(folder: RunFolder, name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder.path / name).read_text().splitlines()]


def same_run(one: Path, other: Path) -> bool:
    logs = all((one / name).read_bytes() == (other / name).read_bytes() for name in ("metrics.jsonl", "eval.jsonl"))
    states = [next(run.glob("checkpoints/*/trainer.pt")).read_bytes() for run in (one, other)]
    return logs and states[0] == states[1]


def test_a_step_in_which_nothing_passes_costs_no_step_before_it(tmp_path: Path) -> None:
    run = config(tmp_path / "run", eval_every=4, eval_prompts=2, eval_samples=1)
    with pytest.raises(TrainingError, match=r"A run that goes on may have another algorithm\.filter"):
        go(run, Until(4, WRONG))  # the evaluation before the first step, then three steps
    folder = RunFolder(tmp_path / "run")
    assert folder.saved_steps() == [3]
    assert [row["step"] for row in lines(folder, "metrics.jsonl")] == [1, 2, 3]
    go(run)
    go(replace(run, run_dir=str(tmp_path / "whole")))
    assert same_run(tmp_path / "run", tmp_path / "whole")


def test_a_failure_in_the_first_step_leaves_nothing_to_save(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="no group of"):
        go(config(tmp_path), Until(0, WRONG))
    assert RunFolder(tmp_path).saved_steps() == []


def test_an_evaluation_that_fails_is_made_up_for(tmp_path: Path) -> None:
    run = config(tmp_path / "run", steps=3, eval_every=2, eval_prompts=2, eval_samples=1)
    with pytest.raises(VerifierError, match="the judge is down"):
        go(run, Until(3, BROKEN))
    folder = RunFolder(tmp_path / "run")
    assert folder.saved_steps() == [2]
    assert [row["step"] for row in lines(folder, "eval.jsonl")] == [0]
    go(run)
    go(replace(run, run_dir=str(tmp_path / "whole")))
    assert [row["step"] for row in lines(folder, "eval.jsonl")] == [0, 2, 3]
    assert same_run(tmp_path / "run", tmp_path / "whole")


def test_the_filter_may_change_and_both_configurations_stay(tmp_path: Path) -> None:
    run = config(tmp_path, steps=1)
    go(run)
    wider = replace(run, steps=2, algorithm=replace(OPEN, filter=Filter(low=0.0, high=1.0)))
    folder = go(wider)
    assert folder.saved_steps() == [2]
    assert "low = 0.01" in (tmp_path / "config_until_step_000001.toml").read_text()
    assert "low = 0.0\n" in (tmp_path / "config.toml").read_text()
    with pytest.raises(ConfigError, match=r"differs in algorithm\.clip_low"):
        go(replace(wider, algorithm=replace(wider.algorithm, clip_low=0.1)))


class Unread:
    """A tenth of the answers is right, the rest cannot be read."""

    def __init__(self, every: int) -> None:
        self.every = every

    def verify(self, responses: Sequence[tuple[Prompt, str]]) -> list[Verdict]:
        unread = Verdict(status="unparsed", reward=None)
        return [Verdict(status="ok", reward=1.0) if i % self.every == 0 else unread for i in range(len(responses))]


@pytest.mark.parametrize(
    ("unparsed", "accuracy", "undecided"),
    # 4 prompts of 3 samples and a greedy response: of 16 every fourth is right, the first sample of each prompt
    [("wrong", 1 / 3, 0.0), ("mask", 1.0, 0.75)],
)
def test_what_cannot_be_read_counts_in_figures_as_it_does_in_learning(
    unparsed: Any, accuracy: float, undecided: float, tmp_path: Path
) -> None:
    algorithm = Algorithm(unparsed=unparsed, filter=Filter(enabled=False), advantage="reinforce", group_size=8)
    run = config(tmp_path, algorithm, steps=1, eval_every=1, eval_prompts=4, eval_samples=3)
    folder = go(run, Unread(4))
    first = lines(folder, "eval.jsonl")[0]
    assert (first["eval/sampled_accuracy"], first["eval/undecided"]) == pytest.approx((accuracy, undecided))
    row = lines(folder, "metrics.jsonl")[0]
    assert row["reward"] == (0.25 if unparsed == "wrong" else 1.0)
    assert row["verdict/unparsed"] == 0.75


def test_a_run_of_answers_that_cannot_be_read_has_an_accuracy_of_0_where_they_are_wrong(tmp_path: Path) -> None:
    algorithm = Algorithm(unparsed="wrong", filter=Filter(enabled=False))
    run = config(tmp_path, algorithm, steps=1, eval_every=1, eval_prompts=2, eval_samples=1)
    folder = go(run, Until(0, Verdict(status="unparsed", reward=None)))
    assert lines(folder, "eval.jsonl")[0]["eval/sampled_accuracy"] == 0


# ---------------------------------------------------------------------------------------------- what a run began with


def test_other_prompts_or_answers_are_refused(tmp_path: Path) -> None:
    run = config(tmp_path, steps=1)
    go(run)
    other = RunData(train=[replace(PROMPTS[0], answer="12"), *PROMPTS[1:]], test=DATA.test)
    with pytest.raises(DataError, match=r"answers of task\.train are not those that this run began with"):
        go(replace(run, steps=2), data=other)
    go(replace(run, steps=2))


def test_a_checkpoint_that_knows_of_no_data_goes_on(tmp_path: Path) -> None:
    run = config(tmp_path, steps=1)
    folder = go(run)
    file = folder.checkpoints / "step_000001" / "trainer.pt"
    state = torch.load(file, weights_only=True)
    del state["data"]
    torch.save(state, file)
    assert go(replace(run, steps=2)).saved_steps() == [2]


def test_other_demonstrations_are_refused(tmp_path: Path) -> None:
    rows = [Encoded(prompt_token_ids=(2, 3), token_ids=(4, 1)), Encoded(prompt_token_ids=(2,), token_ids=(5, 1))]
    settings = SFTConfig(model=replace(CPU, path=str(micro_model())), steps=1, batch_size=2)

    def fine_tune(encoded: list[Encoded], steps: int) -> None:
        learner, _ = sft_learner(settings, scratch())
        folder = RunFolder(tmp_path)
        folder.open("")
        train_sft(learner, encoded, folder, replace(settings, steps=steps))

    fine_tune(rows, 1)
    with pytest.raises(DataError, match="the training data are not those that this run began with"):
        fine_tune([rows[0], replace(rows[1], token_ids=(6, 1))], 2)
    file = tmp_path / "checkpoints" / "step_000001" / "trainer.pt"
    torch.save(torch.load(file, weights_only=True) | {"data": {"training": "", "validation": ""}}, file)
    fine_tune(rows, 2)  # of an older checkpoint nothing is known


@pytest.mark.parametrize("lora_rank", [0, 2])
def test_a_reference_that_has_moved_on_is_refused(lora_rank: int, tmp_path: Path) -> None:
    """Of a run's folder the last checkpoint is taken, and there may be another one since."""
    start = tmp_path / "sft"
    make_tiny(start / "checkpoints" / "step_000001" / "policy", seed=0, size="micro")
    algorithm = replace(OPEN, kl=KL(coef=0.1))
    run = config(tmp_path / "run", algorithm, steps=1, model=replace(CPU, path=str(start), lora_rank=lora_rank))
    go(run)
    moved = start.rename(tmp_path / "away")  # the same weights at another place are the same weights
    shutil.copytree(moved, start)
    go(replace(run, steps=2))
    make_tiny(start / "checkpoints" / "step_000002" / "policy", seed=1, size="micro")
    with pytest.raises(
        ConfigError, match=r"began with model\.path = .*step_000001/policy.* of .*step_000002/policy now"
    ):
        go(replace(run, steps=3))
    (tmp_path / "run" / "models.json").unlink()  # a run from before there was such a file
    go(replace(run, steps=3))


def test_a_policy_alone_goes_on_whatever_it_started_from(tmp_path: Path) -> None:
    """All of its weights are in the checkpoint."""
    start = tmp_path / "sft"
    make_tiny(start / "checkpoints" / "step_000001" / "policy", seed=0, size="micro")
    run = config(tmp_path / "run", steps=1, model=replace(CPU, path=str(start)))
    go(run)
    make_tiny(start / "checkpoints" / "step_000002" / "policy", seed=1, size="micro")
    assert go(replace(run, steps=2)).saved_steps() == [2]


def test_a_frozen_prm_that_is_its_own_reference_is_refused() -> None:
    frozen = Algorithm(process=Process(coef=1.0, update="none"))
    for rank in (0, 2):
        with pytest.raises(
            ConfigError, match=r"every process reward would be exactly 0; set prm_path to a trained PRM$"
        ):
            make_roles(rl_config(frozen, prm_path="", lora_rank=rank))


@pytest.mark.parametrize(("steps", "replay", "taken"), [(5, 4, 15), (20, 4, 90), (3, 0, 3)])
def test_the_prms_schedule_knows_that_replay_fills_up_first(steps: int, replay: int, taken: int) -> None:
    algorithm = Algorithm(process=Process(coef=1.0, replay_batches=replay), prm_minibatches=2)
    prm: Any = make_roles(rl_config(algorithm, steps=steps)).prm
    assert prm.learner.total_steps == 2 * taken


# ---------------------------------------------------------------------------------------------- one process at a time


@contextmanager
def another(folder: Path) -> Iterator[str]:
    """A process that opens the folder and then waits until it is killed; what it says: `open`, or why not."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            RunFolder(folder).open("x = 1")
            os.write(write, b"open")
        except ConfigError as error:
            os.write(write, str(error).encode())
        finally:
            signal.pause()
            os._exit(1)
    try:
        yield os.read(read, 65536).decode()
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(read)
        os.close(write)


def test_a_folder_has_one_process_at_a_time(tmp_path: Path) -> None:
    mine = RunFolder(tmp_path)
    mine.open("x = 1")
    (mine.checkpoints / ".writing-step_000001").mkdir()
    with another(tmp_path) as told:
        assert told.startswith(f"{tmp_path} is in use: another process runs there")
        assert (mine.checkpoints / ".writing-step_000001").exists()
    mine.open("x = 1")  # again, by the same process
    RunFolder(tmp_path).open("x = 1")
    mine.close()
    with another(tmp_path) as told:
        assert told == "open"
        with pytest.raises(ConfigError, match="is in use"):
            mine.open("x = 1")
    mine.open("x = 1")  # the kernel has freed what the killed one held
    mine.close()
