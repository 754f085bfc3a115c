"""The run: steps, logs, evaluation, checkpoints. Killed at any moment, it goes on from its last checkpoint.

All randomness is derived from (seed, step), so what a step does depends on nothing but the state that a checkpoint holds.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from prmkit.data.types import Prompt, Verdict
from prmkit.errors import DataError
from prmkit.evaluate.run import data_hash, evaluate_policy
from prmkit.protocols import Verifier
from prmkit.rl.algorithm import Algorithm
from prmkit.rl.clock import Clock
from prmkit.rl.collect import PromptStream, counted, derived_seed
from prmkit.rl.config import RLConfig
from prmkit.rl.metrics import FirstError, rollout_rows, step_metrics
from prmkit.rl.step import Roles, StepResult, rl_step
from prmkit.train.loggers import Logger, make_loggers
from prmkit.train.run_folder import RunFolder
from prmkit.train.stop import StopRequest

OnStep = Callable[[int, Mapping[str, float]], None]
LEARN = {"prm", "policy", "critic"}
"""Roles that learn, by the names that the clock counts their calls under."""


@dataclass(frozen=True, kw_only=True)
class RunData:
    """What a run asks."""

    train: Sequence[Prompt]
    test: Sequence[Prompt]
    first_error: FirstError | None = None


def train_rl(
    config: RLConfig,
    roles: Roles,
    data: RunData,
    folder: RunFolder,
    *,
    on_step: OnStep = lambda step, metrics: None,
    stop: StopRequest | None = None,
) -> bool:
    """Train until `config.steps`; True if it got there, False if it was asked to stop before.

    `folder` is open, and closed at the end. Logs later than the last checkpoint are cut off, and their steps done again.
    Raises DataError where a checkpoint was made with other prompts or answers.
    """
    run = _Run(config, roles, data, folder)
    start = run.restore()
    run.loggers = make_loggers(config.report_to, folder.path, start + 1 if start else 0)
    try:
        run.evaluate_if_due(start)
        for step in range(start + 1, config.steps + 1):
            row = run.step(step)
            if step % config.save_every == 0 or step == config.steps or (stop is not None and stop.asked):
                run.save(step)
            on_step(step, row | run.evaluate_if_due(step))
            if stop is not None and stop.asked and step < config.steps:
                run.save(step)
                return False
    finally:
        for logger in run.loggers:
            logger.close()
        folder.close()
    return True


@dataclass(frozen=True)
class _Counting:
    """A verifier whose verdicts are as the algorithm counts them."""

    verifier: Verifier
    algorithm: Algorithm

    def verify(self, responses: Sequence[tuple[Prompt, str]]) -> list[Verdict]:
        return [counted(verdict, self.algorithm) for verdict in self.verifier.verify(responses)]


class _Run:
    """The state of a run between its steps."""

    def __init__(self, config: RLConfig, roles: Roles, data: RunData, folder: RunFolder) -> None:
        self.config, self.data, self.folder = config, data, folder
        self.clock = Clock()
        self.plain_roles, self.roles = roles, self.clock.roles(roles)
        self.stream = PromptStream(data.train, derived_seed(config.seed, "prompts"))
        self.digests = {"task.train": data_hash(data.train), "task.test": data_hash(data.test[: config.eval_prompts])}
        self.totals = {"rollouts": 0.0, "num_tokens": 0.0}
        self.loggers: list[Logger] = []
        self.saved = 0

    def step(self, step: int) -> dict[str, float]:
        """One step, logged. What fails before anything has learned costs no step: the last one is saved first."""
        config = self.config
        self.clock.seconds.clear()
        start, position = time.perf_counter(), self.stream.position
        try:
            result = rl_step(
                self.roles,
                config.algorithm,
                self.stream,
                config.sampling,
                step=step,
                num_groups=config.prompts_per_step,
                seed=config.seed,
            )
        except Exception:
            if not LEARN & self.clock.seconds.keys():
                self.stream.position = position
                self.save(step - 1)
            raise
        seconds = time.perf_counter() - start
        row = self._log(step, result, seconds)
        if config.record_rollouts_every and (step == 1 or step % config.record_rollouts_every == 0):
            rows = rollout_rows(result, step, self.data.first_error)
            self.folder.write_rollouts(step, rows, every=config.record_rollouts_every, keep=config.keep_rollouts)
        return row

    def _log(self, step: int, result: StepResult, seconds: float) -> dict[str, float]:
        row = step_metrics(result, self.data.first_error, self.config.algorithm)
        self.totals["rollouts"] += row.pop("step/rollouts")
        tokens = row.pop("step/tokens")
        self.totals["num_tokens"] += tokens
        row = {"step": step, **row, **self.totals}
        timing = {"time/step": seconds, **{f"time/{name}": s for name, s in self.clock.seconds.items()}}
        timing["tokens_per_second"] = tokens / max(self.clock.seconds.get("sample", 0.0), 1e-9)
        self.folder.append("metrics.jsonl", row)
        self.folder.append("timings.jsonl", {"step": step, **timing})
        for logger in self.loggers:
            logger.log(step, {name: value for name, value in row.items() if name != "step"} | timing)
        return row | timing

    def evaluate_if_due(self, step: int) -> dict[str, float]:
        """The evaluation of a step whose row is not there yet: a run may have been killed between checkpoint and evaluation.

        If it fails, the step is saved first.
        """
        every = self.config.eval_every
        due = every and (step % every == 0 or step == self.config.steps)
        if not due or self.folder.has_row("eval.jsonl", step):
            return {}
        try:
            return self.evaluate(step)
        except Exception:
            self.save(step)
            raise

    def evaluate(self, step: int) -> dict[str, float]:
        """Sampled and greedy accuracy on the test prompts; undecided responses count as they do in learning."""
        config = self.config
        prompts = self.data.test[: config.eval_prompts]
        accuracy = evaluate_policy(
            self.plain_roles.sampler,
            _Counting(self.plain_roles.verifier, config.algorithm),
            prompts,
            samples=config.eval_samples,
            params=config.sampling,
            seed=derived_seed(config.seed, "eval"),
        )
        row = {"eval/undecided": accuracy.undecided / (len(prompts) * (config.eval_samples + 1))}
        for kind, interval in (("sampled", accuracy.sampled), ("greedy", accuracy.greedy)):
            if interval is not None:
                row |= {f"eval/{kind}_accuracy": interval.mean}
                row |= {f"eval/{kind}_low": interval.low, f"eval/{kind}_high": interval.high}
        self.folder.append("eval.jsonl", {"step": step, **row})
        for logger in self.loggers:
            logger.log(step, row)
        return row

    def save(self, step: int) -> None:
        """A checkpoint, unless there is one: models in Hugging Face form, and the trainer's state."""
        if step == self.saved:
            return
        state: dict[str, Any] = {
            "step": step,
            "data": self.digests,
            "position": self.stream.position,
            "totals": dict(self.totals),
        }
        roles = self.plain_roles
        state["policy"] = roles.policy.state_dict()
        models = {"policy": roles.policy.save}
        if roles.prm is not None:
            state["prm"] = roles.prm.state_dict()
            models["prm"] = roles.prm.save
        if roles.critic is not None:
            state["critic"] = roles.critic.state_dict()
            models["critic"] = roles.critic.save
        self.folder.save_checkpoint(step, state, models, self.config.keep_checkpoints)
        self.saved = step

    def restore(self) -> int:
        """Go on from the last checkpoint; returns its step, 0 if there is none."""
        steps = self.folder.saved_steps()
        last = steps[-1] if steps else 0
        state = self.folder.load_checkpoint(last) if steps else {}
        for key, digest in state.get("data", {}).items():  # older checkpoints have none
            if digest != self.digests[key]:
                raise DataError(
                    f"the prompts or answers of {key} are not those that this run began with; put the old data back, or give the "
                    "run another run_dir"
                )
        self.folder.rewind(last if steps else -1)
        self.folder.prune(self.config.keep_checkpoints)
        self.saved = last
        if not steps:
            return 0
        self.stream.position, self.totals = state["position"], state["totals"]
        roles = self.plain_roles
        roles.policy.load_state_dict(state["policy"])
        if roles.prm is not None:
            roles.prm.load_state_dict(state["prm"])
        if roles.critic is not None:
            roles.critic.load_state_dict(state["critic"])
        return last
