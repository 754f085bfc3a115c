"""PRIME's loop with a process reward of one's own: the source of rewards changes in one place, the step stays as it is.

A micro model learns chains of three additions from worked solutions, a part of which drop the carry. Then it is trained by
RL twice from the same start: from the answer's verdict alone (RLOO), and with a reward for each step as well. The steps are
judged by the truth, which this small task knows: an oracle, the upper bound of what a process reward model can give.

Run it with `python examples/own_process_reward.py`; it takes less than a minute on one CPU core. One seed of a small model
shows that it works, not by how much; benchmarks/sample_efficiency.py measures that.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from prmkit.config import ModelConfig, OptimizerConfig, TaskConfig, VerifierConfig
from prmkit.data.types import Message, Prompt, SamplingParams
from prmkit.engines.local.roles import local_roles
from prmkit.engines.local.single import sft_learner
from prmkit.evaluate.run import evaluate_policy
from prmkit.models.tiny import make_tiny
from prmkit.ops.batch import Batch
from prmkit.ops.rewards import step_end_mask
from prmkit.rl.algorithm import Algorithm, Process
from prmkit.rl.collect import PromptStream
from prmkit.rl.config import RLConfig
from prmkit.rl.presets import RLOO
from prmkit.rl.process import ProcessRewards
from prmkit.rl.step import rl_step
from prmkit.tasks.arithmetic import step_is_right
from prmkit.tasks.task import load_task
from prmkit.train.config import SFTConfig
from prmkit.train.run_folder import RunFolder
from prmkit.train.sft import encode_all, train_sft
from prmkit.verify import make_verifier

TASK = TaskConfig(name="arithmetic", chain=3, error_rate=0.3)
STEPWISE = Process(coef=1.0, granularity="step", discount=0.0, normaliser="none", baseline="leave_one_out")
"""Each step answers for itself (discount 0), against what the siblings' steps got."""


@dataclass(frozen=True, kw_only=True)
class TrueSteps:
    """A process reward model in the sense of `prmkit.rl.process.ProcessRewardModel`: 1 for a right step, 0 for a wrong one."""

    tokenizer: Any

    def rewards(self, batch: Batch) -> ProcessRewards:
        """What `rl_step` asks for. A model that learns would learn from `batch.outcome_B` here."""
        return ProcessRewards(reward_BT=self.score(batch), metrics={})

    def score(self, batch: Batch) -> Tensor:
        """The reward of each step on its last token."""
        reward_BT = torch.zeros_like(batch.behaviour_logp_BT)
        for i, token_T in enumerate(batch.token_BT):
            response_T = batch.response_mask_BT[i]
            asked = self.tokenizer.decode(token_T[: int(response_T.nonzero()[0])])
            prompt = Prompt(id=str(i), messages=(Message(role="user", content=asked),), answer="")
            right = step_is_right(prompt, self.tokenizer.decode(token_T[response_T], skip_special_tokens=True))
            ends = step_end_mask(batch.step_BT[i : i + 1])[0]
            reward_BT[i, ends] = torch.tensor(right or [False]).float()
        return reward_BT

    def save(self, path: Path) -> None:
        """Nothing to write."""

    def state_dict(self) -> Mapping[str, Any]:
        """Nothing to go on from."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Nothing to restore."""


def fine_tuned(folder: Path, steps: int) -> Path:
    """A micro model that knows the form of a solution and is right part of the time."""
    model = ModelConfig(path=str(make_tiny(folder / "start", seed=0, size="micro")), device="cpu", threads=1)
    optimizer = OptimizerConfig(learning_rate=1e-2, beta2=0.95, warmup_steps=20, schedule="cosine")
    config = SFTConfig(model=model, task=TASK, steps=steps, save_every=steps, max_tokens=64, optimizer=optimizer)
    learner, tokenizer = sft_learner(config, folder)
    encoded = encode_all(tokenizer, load_task(TASK, seed=0).demonstrations, config.max_tokens)
    run = RunFolder(folder / "sft")
    run.open("")
    train_sft(learner, encoded, run, config)
    return folder / "sft" / "checkpoints" / f"step_{steps:06d}" / "policy"


def accuracies(start: Path, algorithm: Algorithm, steps: int) -> list[float]:
    """Sampled accuracy on test prompts before RL and after it."""
    config = RLConfig(
        model=ModelConfig(path=str(start), device="cpu", threads=1),
        task=TASK,
        sampling=SamplingParams(max_tokens=48),
        policy=OptimizerConfig(learning_rate=1e-3, beta2=0.95),
    )
    task = load_task(TASK, seed=0)
    with make_verifier(VerifierConfig()) as verifier:
        local = local_roles(config, verifier, task.splitter, start.parent)
        roles = local.roles
        if algorithm.uses_prm:
            roles = replace(roles, prm=TrueSteps(tokenizer=local.tokenizer))  # the one place
        stream = PromptStream(task.train, seed=0)
        found = []
        for step in range(steps + 1):
            if step in (0, steps):
                measured = evaluate_policy(
                    roles.sampler, verifier, task.test, samples=4, params=config.sampling, seed=0, greedy=False
                )
                found.append(measured.sampled.mean)
            if step < steps:
                rl_step(roles, algorithm, stream, config.sampling, step=step + 1, num_groups=16, seed=0)
    return found


def main(sft_steps: int = 800, rl_steps: int = 20) -> None:
    """Fine-tune once, then both ways from the same start."""
    with tempfile.TemporaryDirectory() as folder:
        start = fine_tuned(Path(folder), sft_steps)
        for name, algorithm in (("verdict alone", RLOO), ("and true steps", replace(RLOO, process=STEPWISE))):
            before, after = accuracies(start, algorithm, rl_steps)
            print(f"{name:15} sampled accuracy {before:.3f} -> {after:.3f} in {rl_steps} steps")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
