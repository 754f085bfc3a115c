"""Arithmetic runs for benchmarks: a fine-tuned model per task variant, the controls, and one run's learning curve."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from prmkit.config import ModelConfig, OptimizerConfig, TaskConfig, VerifierConfig
from prmkit.data.types import Message, Prompt, SamplingParams
from prmkit.engines.local.roles import local_roles
from prmkit.engines.local.single import sft_learner
from prmkit.errors import TrainingError
from prmkit.evaluate.run import evaluate_policy
from prmkit.ops.batch import Batch
from prmkit.rl.algorithm import Algorithm
from prmkit.rl.collect import PromptStream
from prmkit.rl.config import RLConfig
from prmkit.rl.metrics import step_metrics
from prmkit.rl.process import ProcessRewards
from prmkit.rl.step import rl_step
from prmkit.tasks import arithmetic
from prmkit.train.config import SFTConfig
from prmkit.train.sft import batch_rows, encode_all, sft_batch, sft_loss
from prmkit.verify import make_verifier

SFT_STEPS = 350
CACHE = Path(tempfile.gettempdir()) / "prmkit-benchmarks"


@dataclass(frozen=True, kw_only=True)
class Variant:
    """A task variant. The error rate is set so that the fine-tuned model is right about a quarter of the time."""

    chain: int
    error_rate: float
    misconceptions: str = "pairs"
    sft_steps: int = SFT_STEPS

    @property
    def max_tokens(self) -> int:
        """Room for the longest response: at most 3-digit sums, 10 characters a step."""
        return 10 * self.chain + 10


@dataclass(frozen=True, kw_only=True)
class Run:
    """One arm on one variant with one seed."""

    arm: str
    algorithm: Algorithm
    learning_rate: float
    prm_learning_rate: float
    variant: Variant
    seed: int
    steps: int
    prompts: int
    eval_every: int
    eval_prompts: int
    eval_from: int = 0
    """No measurement before this step; tuning needs the last ones alone."""


def fine_tuned(variant: Variant) -> Path:
    """The model that has learned the demonstrations, misconceptions included; made once and kept in a temporary folder."""
    steps = variant.sft_steps
    name = f"{variant.misconceptions}-{variant.chain}-{variant.error_rate}-{steps}"
    folder = CACHE / name
    if folder.exists():
        return folder
    config = SFTConfig(
        steps=steps,
        task=TaskConfig(
            chain=variant.chain,
            misconceptions=variant.misconceptions,  # type: ignore[arg-type]
            error_rate=variant.error_rate,
            demonstrations=8192,
        ),
        optimizer=OptimizerConfig(learning_rate=2e-3, beta2=0.95, warmup_steps=min(50, steps // 4), schedule="cosine"),
    )
    learner, tokenizer = sft_learner(config, CACHE)
    demonstrations = arithmetic.demonstrations(
        config.task.demonstrations,
        chain=variant.chain,
        misconceptions=config.task.misconceptions,
        error_rate=variant.error_rate,
        seed=0,
    )
    encoded = encode_all(tokenizer, demonstrations, 256)
    for step in range(steps):
        learner.update([sft_batch([encoded[i] for i in batch_rows(len(encoded), 64, 0, step)])], sft_loss)
    aside = CACHE / f".{name}"
    shutil.rmtree(aside, ignore_errors=True)
    learner.save(aside)
    aside.rename(folder)
    return folder


class StepTruth:
    """A control in the PRM's place: +1 on a right step and -1 on a wrong one (`oracle`), or the same by coin (`noise`)."""

    def __init__(self, tokenizer: Any, kind: str, seed: int) -> None:
        self.tokenizer, self.kind = tokenizer, kind
        self.coin = torch.Generator().manual_seed(seed)

    def rewards(self, batch: Batch) -> ProcessRewards:
        """The step's reward on its last token."""
        return ProcessRewards(reward_BT=self.score(batch), metrics={})

    def score(self, batch: Batch) -> Tensor:
        """The same, without learning."""
        reward_BT = torch.zeros_like(batch.behaviour_logp_BT)
        for i, right in enumerate(self._truth(batch)):
            for step, holds in enumerate(right):
                last = int((batch.step_BT[i] == step).nonzero()[-1])
                heads = holds if self.kind == "oracle" else bool(torch.rand((), generator=self.coin) < 0.5)
                reward_BT[i, last] = 1.0 if heads else -1.0
        return reward_BT

    def save(self, path: Path) -> None:
        """Nothing to save."""

    def state_dict(self) -> Mapping[str, Any]:
        """Nothing to keep."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Nothing to restore."""

    def _truth(self, batch: Batch) -> list[list[bool]]:
        truth = []
        for token_T, mask_T in zip(batch.token_BT, batch.response_mask_BT, strict=True):
            start = int(mask_T.nonzero()[0])
            asked = self.tokenizer.decode(token_T[:start])
            text = self.tokenizer.decode(token_T[mask_T], skip_special_tokens=True)
            prompt = Prompt(id="", messages=(Message(role="user", content=asked),), answer="")
            truth.append(arithmetic.step_is_right(prompt, text))
        return truth


def learning_curve(run: Run, note: Callable[[str], None] = lambda line: None) -> dict[str, Any]:
    """Train one run; accuracy on test prompts against the rollouts sampled so far, and the PRM's quality by step."""
    torch.set_num_threads(1)
    variant = run.variant
    optimizer = OptimizerConfig(learning_rate=run.learning_rate, beta2=0.95)
    config = RLConfig(
        seed=run.seed,
        model=ModelConfig(path=str(fine_tuned(variant))),
        algorithm=run.algorithm,
        policy=optimizer,
        prm=replace(optimizer, learning_rate=run.prm_learning_rate),
    )
    params = SamplingParams(max_tokens=variant.max_tokens)
    stream = PromptStream(arithmetic.arithmetic_prompts(4096, chain=variant.chain, seed=run.seed), run.seed)
    test = arithmetic.arithmetic_prompts(run.eval_prompts, chain=variant.chain, seed=0, split="test")
    curve: list[tuple[int, float]] = []
    quality: list[dict[str, float]] = []
    rollouts = stopped = 0
    with make_verifier(VerifierConfig()) as verifier:
        local = local_roles(config, verifier, arithmetic.SPLIT, CACHE)
        roles = local.roles
        if run.arm in ("oracle", "noise"):
            roles = replace(roles, prm=StepTruth(local.tokenizer, run.arm, run.seed))

        def measure() -> float:
            accuracy = evaluate_policy(
                roles.sampler, verifier, test, samples=4, params=params, seed=run.seed, greedy=False
            )
            return accuracy.sampled.mean

        if run.eval_from == 0:
            curve.append((0, measure()))
        for step in range(1, run.steps + 1):
            try:
                result = rl_step(
                    roles, config.algorithm, stream, params, step=step, num_groups=run.prompts, seed=run.seed
                )
            except TrainingError as error:  # nothing passes the filter: the policy has collapsed
                note(f"{run.arm} chain {variant.chain} seed {run.seed} stops at step {step}: {error}")
                stopped = step
                curve.append((rollouts, measure()))
                break
            rollouts += sum(len(group.members) for group in result.collected.sampled)
            row = step_metrics(result, arithmetic.first_error_step, config.algorithm)
            quality.append({k: row[k] for k in ("prm/accuracy", "prm/first_error_auc") if k in row})
            if step % run.eval_every == 0 and step >= run.eval_from:
                curve.append((rollouts, measure()))
    note(f"{run.arm} chain {variant.chain} seed {run.seed}: " + " ".join(f"{a:.2f}" for _, a in curve))
    found = {"arm": run.arm, "chain": variant.chain, "seed": run.seed, "curve": curve, "quality": quality}
    return found | ({"stopped_at_step": stopped} if stopped else {})
