"""Algorithms are values: what is rewarded, which baseline, which loss, how it is reduced. Plain data, no torch.

Sources: PRIME is arXiv:2502.01456; "released run" is the authors' code and 7B script; where they disagree, docs/prime.md
says how. Each default names where it comes from.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

from prmkit.errors import ConfigError

Advantage = Literal["rloo", "grpo", "dr_grpo", "reinforce", "reinforce_pp", "remax", "gae"]
ProcessBaseline = Literal["estimator", "prime", "leave_one_out", "group", "group_std", "position", "none"]
PRMUpdate = Literal["after", "before", "none", "reverse"]
PRMLoss = Literal["ce", "ce_offset", "dpo", "bon_acc", "bon_rm"]
SIBLING_LOSSES = ("dpo", "bon_acc", "bon_rm")
"""PRM losses that compare a response with its siblings' scores."""
Reference = Literal["freeze", "policy", "none"]
Granularity = Literal["token", "step", "whole"]
Gate = Literal["none", "accuracy"]
Use = Literal["add", "redistribute"]
Normaliser = Literal["max_return", "std", "none"]
Whiten = Literal["tokens", "none"]
Reduce = Literal["token_mean", "seq_mean_token_mean", "seq_mean_token_sum", "seq_mean_token_sum_norm"]


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The verifier's reward, on the last token of the response."""

    coef: float = 1.0
    """Weight of the outcome's advantage. It acts: the released run's 5/5 cancels, only the ratio to `process.coef` counts."""
    discount: float = 1.0
    """Per token, from the end backwards. 1.0 in the released run."""


@dataclass(frozen=True, kw_only=True)
class Process:
    """Implicit process rewards: r_t = beta * (log pi_prm(y_t) - log pi_ref(y_t)) (Yuan et al., arXiv:2412.01981)."""

    coef: float = 0.0
    """Weight of the process advantage; 0 means outcome only, and then no PRM exists at all."""
    use: Use = "add"
    """`add`: the process advantage is added to the outcome's (PRIME). `redistribute`: the outcome's advantage keeps its sign
    and, at outcome.discount 1, its sum over a response, and the process rewards decide which tokens carry it
    (ops/advantages.py); where the rewards are all equal, as they are at the start, this is exactly the outcome-only
    algorithm."""
    warmup_steps: int = 0
    """Steps over which `coef` rises linearly from 0. At the start the log-ratio is noise, and a max normaliser would make
    that noise full-scale."""
    gate: Gate = "none"
    """`accuracy`: `coef` is also multiplied by the PRM's trust, a running mean of max(0, 2 * accuracy - 1), its accuracy at
    ordering siblings it has not learned from yet (`after`); a PRM that is no better than chance then has no say. A batch in
    which no siblings differ in outcome leaves the trust as it is."""
    discount: float = 1.0
    """Per token from the end backwards; at granularity `step` per step, and not at all inside a step."""
    beta: float = 0.05
    """Scale of the log-ratio, in the PRM's loss and in the reward (PRIME: 0.05)."""
    granularity: Granularity = "token"
    """Where the rewards sit: every token, the last token of each step (sum of the step), or the last token (the sum)."""
    normaliser: Normaliser = "max_return"
    """`max_return` divides by the largest |return-to-go| of the whole batch (released run: of each rank's share); `std` by
    the root mean square of the returns-to-go."""
    normaliser_ranks: int = 1
    """Contiguous shares of the batch's groups that are normalised apart, as by the data-parallel ranks of the released run
    (8)."""
    floor: float = 0.0
    """Least value of the normaliser, in units of the summed log-ratio times beta. Like the normaliser it does not act under
    baseline group_std, which divides by a spread of its own."""
    baseline: ProcessBaseline = "estimator"
    """How siblings' process rewards are subtracted (ops/advantages.py). `estimator`: the form that belongs to `advantage`:
    leave_one_out for rloo, group_std for grpo, group for dr_grpo, the greedy response's mean for remax, else none."""
    eos_reward: bool = True
    """Whether the end token keeps its process reward (released run: yes; later recipe: no)."""
    update: PRMUpdate = "after"
    """`after`: rewards come from the forward pass of the PRM's own update (single forward); `before`: update, then score
    again (double forward); `none`: frozen; `reverse`: siblings' scores first, for a loss that compares them (dpo, bon), then
    as `after`."""
    loss: PRMLoss = "ce"
    """`ce`: cross-entropy of sigmoid(beta * sum of log-ratios) against the outcome, soft labels allowed; `ce_offset`: the
    same with an offset for each prompt, the log-odds of its group's accuracy, so that the PRM need not lower or raise every
    token to explain how hard a prompt is; `dpo`, `bon_acc`, `bon_rm`: against siblings, as in the later recipe."""
    reference: Reference = "freeze"
    """`freeze`: the SFT model; `policy`: the behaviour log-probs of the rollout; `none`: no reference (r = beta*log pi)."""
    replay_batches: int = 0
    """How many earlier batches the PRM also learns from at each step."""


@dataclass(frozen=True, kw_only=True)
class KL:
    """Keeps the policy near the reference policy."""

    coef: float = 0.0
    """0 in the released runs."""
    where: Literal["reward", "loss"] = "loss"
    """`reward`: -coef * k1 joins the token rewards; `loss`: coef * estimator joins the loss."""
    estimator: Literal["k1", "k2", "k3"] = "k3"
    """Schulman's estimators of KL(policy || reference), for `loss`."""


@dataclass(frozen=True, kw_only=True)
class Filter:
    """Online prompt filter on the verifier's accuracy, never on a shaped reward."""

    low: float = 0.2
    """Inclusive bounds on a group's mean accuracy (PRIME: 0.2 and 0.8)."""
    high: float = 0.8
    max_draws: int = 8
    """How many times prompts are drawn for one step before the run gives up on filling the batch."""
    truncated: Literal["keep", "drop_group", "mask"] = "keep"
    """`keep`: judge a cut response as it is; `drop_group`: drop prompts with any cut response; `mask`: drop the response."""
    enabled: bool = True


@dataclass(frozen=True, kw_only=True)
class Algorithm:
    """One RL algorithm, as a value."""

    outcome: Outcome = field(default_factory=Outcome)
    process: Process = field(default_factory=Process)
    advantage: Advantage = "rloo"
    whiten: Whiten = "none"
    """`tokens`: the summed advantage is whitened over the tokens of the whole batch (released run)."""
    gae_lambda: float = 1.0
    """For `gae`: lambda of generalised advantage estimation (Schulman et al., 2016)."""
    value_clip: float = 0.5
    """For `gae`: clip range of the value loss."""
    clip_low: float = 0.2
    """PPO clip: the ratio is held in [1 - clip_low, 1 + clip_high] (PRIME: 0.2 both)."""
    clip_high: float = 0.2
    entropy_coef: float = 0.0
    """Weight of the entropy bonus (released run: 0)."""
    kl: KL = field(default_factory=KL)
    reduce: Reduce = "token_mean"
    filter: Filter = field(default_factory=Filter)
    group_size: int = 4
    """Responses per prompt (PRIME: 4)."""
    num_minibatches: int = 1
    """Optimizer steps per RL step, for the policy (released run: 4)."""
    prm_minibatches: int = 1
    """Optimizer steps per RL step, for the PRM (released run: 4)."""
    unparsed: Literal["mask", "wrong"] = "mask"
    """What an answer that cannot be read counts as: left out, or a reward of 0."""

    def __post_init__(self) -> None:
        problem = next(_problems(self), None)
        if problem:
            raise ConfigError(problem)

    @property
    def uses_prm(self) -> bool:
        """Whether there is a process reward model in this algorithm."""
        return self.process.coef != 0.0


def _problems(algorithm: Algorithm) -> Iterator[str]:
    """What cannot run, with the fix."""
    process, prm_filter, kl = algorithm.process, algorithm.filter, algorithm.kl
    if algorithm.group_size < 1:
        yield f"algorithm.group_size = {algorithm.group_size}; it must be at least 1"
    if algorithm.advantage in ("rloo", "grpo", "dr_grpo") and algorithm.group_size < 2:
        yield (
            f'algorithm.group_size = {algorithm.group_size}, but advantage "{algorithm.advantage}" needs at least 2. '
            'Set algorithm.group_size = 4 or algorithm.advantage = "reinforce"'
        )
    if algorithm.uses_prm and process.baseline in ("prime", "leave_one_out") and algorithm.group_size < 2:
        yield (
            f'algorithm.group_size = {algorithm.group_size}, but process.baseline "{process.baseline}" needs at least 2. '
            'Set algorithm.group_size = 4 or algorithm.process.baseline = "none"'
        )
    if process.loss in SIBLING_LOSSES and process.update not in ("reverse", "before"):
        yield (
            f'algorithm.process.loss = "{process.loss}" compares siblings, so it needs their scores before the update. '
            'Set algorithm.process.update = "reverse"'
        )
    if process.gate == "accuracy" and process.update == "before":
        yield (
            'algorithm.process.gate = "accuracy" needs the PRM\'s accuracy on responses that it has not learned from. '
            'Set algorithm.process.update = "after", or gate = "none"'
        )
    if process.loss in SIBLING_LOSSES and algorithm.group_size < 2:
        yield f'algorithm.process.loss = "{process.loss}" needs group_size >= 2'
    if algorithm.uses_prm and process.gate == "accuracy" and algorithm.group_size < 2:
        yield (
            f'algorithm.group_size = {algorithm.group_size}, but process.gate = "accuracy" trusts the PRM for ordering '
            'siblings, so without them it never would. Set algorithm.group_size = 4 or algorithm.process.gate = "none"'
        )
    if algorithm.uses_prm and process.loss == "ce_offset" and algorithm.group_size < 2:
        yield (
            f'algorithm.group_size = {algorithm.group_size}, but process.loss = "ce_offset" takes a prompt\'s offset from its '
            "siblings; of one response it would be the label itself. Set algorithm.group_size = 4 or "
            'algorithm.process.loss = "ce"'
        )
    if algorithm.advantage == "gae" and process.baseline not in ("estimator", "none"):
        yield f'algorithm.process.baseline = "{process.baseline}" has no place in gae, whose baseline is the value model'
    if process.use == "redistribute" and algorithm.advantage == "gae":
        yield 'algorithm.process.use = "redistribute" has no place in gae, which takes rewards. Use "add"'
    if algorithm.advantage == "gae" and algorithm.uses_prm and process.discount != algorithm.outcome.discount:
        yield (
            f"algorithm.process.discount = {process.discount} differs from outcome.discount = {algorithm.outcome.discount}, but "
            "gae has one value model for both. Set them to the same value"
        )
    if not 0 <= prm_filter.low <= prm_filter.high <= 1:
        yield f"algorithm.filter: 0 <= low <= high <= 1 does not hold for {prm_filter.low}, {prm_filter.high}"
    if prm_filter.max_draws < 1:
        yield f"algorithm.filter.max_draws = {prm_filter.max_draws}; it must be at least 1"
    if kl.coef and kl.where == "loss" and kl.estimator == "k1":
        yield 'algorithm.kl.estimator = "k1" has no gradient in expectation as a loss. Use "k2" or "k3", or kl.where = "reward"'
    yield from _out_of_range(algorithm)


def _out_of_range(algorithm: Algorithm) -> Iterator[str]:
    process, kl = algorithm.process, algorithm.kl
    for name, value, low, high in (
        ("outcome.coef", algorithm.outcome.coef, 0.0, None),
        ("process.coef", process.coef, 0.0, None),
        ("process.beta", process.beta, 1e-12, None),
        ("process.discount", process.discount, 0.0, 1.0),
        ("outcome.discount", algorithm.outcome.discount, 0.0, 1.0),
        ("process.floor", process.floor, 0.0, None),
        ("process.warmup_steps", process.warmup_steps, 0, None),
        ("process.normaliser_ranks", process.normaliser_ranks, 1, None),
        ("process.replay_batches", process.replay_batches, 0, None),
        ("gae_lambda", algorithm.gae_lambda, 0.0, 1.0),
        ("value_clip", algorithm.value_clip, 1e-12, None),
        ("clip_low", algorithm.clip_low, 0.0, 1.0),
        ("clip_high", algorithm.clip_high, 0.0, None),
        ("kl.coef", kl.coef, 0.0, None),
        ("entropy_coef", algorithm.entropy_coef, -math.inf, None),
        ("num_minibatches", algorithm.num_minibatches, 1, None),
        ("prm_minibatches", algorithm.prm_minibatches, 1, None),
    ):
        if not low <= value <= (math.inf if high is None else high):  # not a number is out of every range
            yield f"algorithm.{name} = {value} is out of range [{low}, {'inf' if high is None else high}]"
