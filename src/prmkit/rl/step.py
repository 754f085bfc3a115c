"""One step of online RL, as the paper has it: prompts -> rollouts -> verdicts -> rewards -> advantages -> update."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from prmkit.data.steps import Splitter
from prmkit.data.types import SamplingParams
from prmkit.ops.batch import Batch, pack
from prmkit.protocols import Learner, Sampler, Verifier
from prmkit.rl.advantage import Advantages, advantages
from prmkit.rl.algorithm import Algorithm
from prmkit.rl.collect import Collected, PromptStream, collect, derived_seed
from prmkit.rl.greedy import greedy_rows
from prmkit.rl.learn import update_critic, update_policy
from prmkit.rl.process import ProcessRewardModel, ProcessRewards, TokenScorer


@dataclass(frozen=True, kw_only=True)
class Roles:
    """Who takes part. Where a role runs, and with whom it shares weights, is the engine's business."""

    sampler: Sampler
    verifier: Verifier
    policy: Learner
    split: Splitter
    prm: ProcessRewardModel | None = None
    reference: TokenScorer | None = None
    """For the KL term; the PRM has its own."""
    critic: Learner | None = None
    """For gae."""


@dataclass(frozen=True, kw_only=True)
class StepResult:
    """What a step sampled, computed and did."""

    collected: Collected
    batch: Batch
    process: ProcessRewards | None
    advantages: Advantages
    metrics: Mapping[str, float]


def rl_step(
    roles: Roles,
    algorithm: Algorithm,
    stream: PromptStream,
    params: SamplingParams,
    *,
    step: int,
    num_groups: int,
    seed: int,
) -> StepResult:
    """Step number `step` (from 1), from prompts to updated weights."""
    seed = derived_seed(seed, "step", step)
    collected = collect(roles.sampler, roles.verifier, stream, algorithm, params, num_groups=num_groups, seed=seed)
    greedy = None
    if algorithm.advantage == "remax":
        collected, greedy = greedy_rows(
            roles.sampler, roles.verifier, roles.prm, roles.split, algorithm, collected, params
        )
    batch = pack(collected.kept, roles.split)

    process = roles.prm.rewards(batch) if roles.prm else None  # the PRM learns here, too
    reference_BT = roles.reference.outputs(batch).output_BT if roles.reference else None
    value_BT = roles.critic.outputs(batch).output_BT if roles.critic else None

    result = advantages(
        algorithm,
        batch,
        process_BT=process.reward_BT if process else None,
        process_coef=process_coef(algorithm, step) * (process.trust if process else 0.0),
        reference_logp_BT=reference_BT,
        value_BT=value_BT,
        greedy=greedy,
    )

    shuffle = torch.Generator().manual_seed(seed % 2**63)
    metrics = update_policy(roles.policy, algorithm, batch, result, reference_BT, params.max_tokens, shuffle)
    metrics |= update_critic(roles.critic, algorithm, batch, result, value_BT, shuffle)
    metrics |= {f"prm/{name}": value for name, value in process.metrics.items()} if process else {}
    if process is not None and process.kl is not None:
        metrics.setdefault("kl", process.kl)
    metrics |= result.metrics
    return StepResult(collected=collected, batch=batch, process=process, advantages=result, metrics=metrics)


def process_coef(algorithm: Algorithm, step: int) -> float:
    """The process coefficient at a step (from 1): linear up to `coef`, which it has from step warmup_steps + 1 on."""
    return algorithm.process.coef * min(1.0, step / (algorithm.process.warmup_steps + 1))
