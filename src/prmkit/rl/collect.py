"""From prompts to kept groups: sample, verify, filter, until the batch is full or the draws are spent."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from prmkit.data.types import Group, Prompt, Rollout, SamplingParams, Verdict, Verified
from prmkit.errors import TrainingError
from prmkit.protocols import Sampler, Verifier
from prmkit.rl.algorithm import Algorithm, Filter

_OF_THE_GROUP = ("rloo", "grpo", "dr_grpo")
"""Advantages that are 0 where the rewards of a group are all equal."""


def derived_seed(*parts: int | str) -> int:
    """A seed for one purpose, from the run's seed, the step and a name: no random state has to be saved."""
    return random.Random("/".join(map(str, parts))).getrandbits(62)


class PromptStream:
    """Prompts in epochs, each in its own order. The whole state is `position`."""

    def __init__(self, prompts: Sequence[Prompt], seed: int, position: int = 0) -> None:
        if not prompts:
            raise TrainingError("there are no training prompts; check task.train and task.limit")
        self.prompts, self.seed, self.position = prompts, seed, position
        self._order: tuple[int, list[int]] = (-1, [])

    def take(self, num: int) -> list[Prompt]:
        """The next prompts."""
        taken = []
        for _ in range(num):
            epoch, offset = divmod(self.position, len(self.prompts))
            if self._order[0] != epoch:
                order = list(range(len(self.prompts)))
                random.Random(derived_seed(self.seed, "epoch", epoch)).shuffle(order)
                self._order = (epoch, order)
            taken.append(self.prompts[self._order[1][offset]])
            self.position += 1
        return taken


@dataclass(frozen=True, kw_only=True)
class Collected:
    """What one step sampled, and what of it is learned from."""

    kept: list[Group[Verified]]
    """Decided members only; at most `num_groups` groups."""
    sampled: list[Group[Verified]]
    """Everything, undecided verdicts included."""
    draws: int
    greedy: Sequence[Group[Verified]] = ()
    """ReMax: the greedy responses that the kept groups are compared with. They cost as much as sampled ones."""


def verify(groups: Sequence[Group[Rollout]], verifier: Verifier) -> list[Group[Verified]]:
    """Each rollout with its verdict."""
    flat = [(group.prompt, rollout) for group in groups for rollout in group.members]
    verdicts = iter(verifier.verify([(prompt, rollout.text) for prompt, rollout in flat]))
    return [
        Group(prompt=g.prompt, members=[Verified(rollout=r, verdict=next(verdicts)) for r in g.members]) for g in groups
    ]


def counted(verdict: Verdict, algorithm: Algorithm) -> Verdict:
    """The verdict as it counts: `unparsed = wrong` turns answers that cannot be read into a reward of 0."""
    if verdict.status == "unparsed" and algorithm.unparsed == "wrong":
        return Verdict(status="ok", reward=0.0, detail=verdict.detail)
    return verdict


def decided(group: Group[Verified], algorithm: Algorithm) -> Group[Verified]:
    """The members that can be learned from: what could not be judged is left out, never scored 0.

    Verdicts are as they count (`counted`); `truncated = mask` leaves cut responses out.
    """
    members = []
    for member in group.members:
        verdict = counted(member.verdict, algorithm)
        cut_out = algorithm.filter.truncated == "mask" and member.rollout.finish == "length"
        if verdict.reward is not None and member.rollout.finish != "error" and not cut_out:
            members.append(Verified(rollout=member.rollout, verdict=verdict))
    return Group(prompt=group.prompt, members=members)


def passes(group: Group[Verified], full: Group[Verified], settings: Filter, least: int) -> bool:
    """Whether a group is learned from: enough decided members, and mean accuracy within the bounds (inclusive).

    The bounds are on the verifier's accuracy, never on a shaped reward, whose spread would let all-wrong groups through.
    """
    if len(group.members) < least:
        return False
    if settings.truncated == "drop_group" and any(m.rollout.finish == "length" for m in full.members):
        return False
    rewards = [m.verdict.reward for m in group.members if m.verdict.reward is not None]
    mean = sum(rewards) / len(rewards)
    slack = 1e-9  # 0.2 * 5 is not 1 in binary
    return not settings.enabled or settings.low - slack <= mean <= settings.high + slack


def teaches_nothing(group: Group[Verified], algorithm: Algorithm) -> bool:
    """Whether all advantages of a group are 0 though its accuracy lies between the bounds: soft rewards that are all equal.

    Only where nothing but the outcome is learned from, against the group's own mean. Rewards of 0 and 1 are the bounds' matter.
    """
    if not algorithm.filter.enabled or algorithm.process.coef > 0 or algorithm.advantage not in _OF_THE_GROUP:
        return False
    rewards = [m.verdict.reward for m in group.members if m.verdict.reward is not None]
    return len(rewards) > 1 and 0 < min(rewards) == max(rewards) < 1


def collect(
    sampler: Sampler,
    verifier: Verifier,
    stream: PromptStream,
    algorithm: Algorithm,
    params: SamplingParams,
    *,
    num_groups: int,
    seed: int,
) -> Collected:
    """Draw prompts until `num_groups` groups pass. Raises TrainingError when no group at all passes in `max_draws`."""
    least = 1 if algorithm.group_size == 1 else 2
    kept: list[Group[Verified]] = []
    sampled: list[Group[Verified]] = []
    draws = 0
    while len(kept) < num_groups and draws < algorithm.filter.max_draws:
        wanted = num_groups
        if kept:  # aim at what is missing, at the rate seen so far
            wanted = min(num_groups, math.ceil((num_groups - len(kept)) * len(sampled) / len(kept)))
        prompts = stream.take(wanted)
        rollouts = sampler.sample(
            prompts, n=algorithm.group_size, params=params, seed=derived_seed(seed, "sample", draws)
        )
        check_finite(rollouts)
        groups = verify(rollouts, verifier)
        for group in groups:
            usable = decided(group, algorithm)
            if passes(usable, group, algorithm.filter, least) and not teaches_nothing(usable, algorithm):
                kept.append(usable)
        sampled += groups
        draws += 1
    if not kept:
        raise TrainingError(_nothing_passed(sampled, draws, algorithm))
    return Collected(kept=kept[:num_groups], sampled=sampled, draws=draws)


def check_finite(groups: Sequence[Group[Rollout]]) -> None:
    """A policy whose weights have diverged still writes tokens: noise, which must not pass for wrong answers."""
    for group in groups:
        if not all(math.isfinite(logp) for rollout in group.members for logp in rollout.logprobs):
            raise TrainingError(
                f"the policy's log-probs for prompt {group.prompt.id!r} are not finite: its weights have diverged. Go back to "
                "an earlier checkpoint and lower policy.learning_rate, or use dtype float32"
            )


def _nothing_passed(sampled: Sequence[Group[Verified]], draws: int, algorithm: Algorithm) -> str:
    members = [m for g in sampled for m in g.members]
    statuses = Counter(m.verdict.status for m in members)
    rewards = [r for m in members if (r := counted(m.verdict, algorithm).reward) is not None]
    cut = sum(m.rollout.finish == "length" for m in members) / len(members)
    mean = f"{sum(rewards) / len(rewards):.3f}" if rewards else "unknown"
    reason = next((m.verdict.detail for m in members if m.verdict.status in ("error", "timeout", "unparsed")), "")
    bounds = algorithm.filter
    wanted, about_accuracy, wider = "has responses enough to learn from", "", "raise algorithm.filter.max_draws"
    if bounds.enabled:
        wanted = f"passed the filter (mean accuracy within [{bounds.low}, {bounds.high}])"
        about_accuracy = (
            "if accuracy is near 0, start from a better SFT model or easier prompts; near 1, take harder prompts; "
        )
        wider = "widen algorithm.filter or raise its max_draws"
        equal = sum(teaches_nothing(decided(group, algorithm), algorithm) for group in sampled)
        if equal:
            about_accuracy += f"in {equal} groups all rewards are equal, from which nothing can be learned; "
    return (
        f"no group of {len(sampled)} sampled in {draws} draws {wanted}: accuracy {mean}, {cut:.0%} cut at max_tokens, verdicts "
        + ", ".join(f"{status} {count}" for status, count in sorted(statuses.items()))
        + (f" (the first undecided one: {reason})" if reason else "")
        + f". If many are undecided, mend the verifier; {about_accuracy}if many are cut, raise sampling.max_tokens; "
        f"otherwise {wider} or the group_size. A run that goes on may have another algorithm.filter; for what else changes give "
        "another run_dir, with model.path = the folder of this run to start from its last checkpoint"
    )
