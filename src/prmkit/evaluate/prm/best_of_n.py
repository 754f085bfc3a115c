"""Best-of-N from a frozen pool: what a reward model's choice among N solutions is worth, beside honest controls.

For each problem N solutions are drawn from its pool without replacement. Choices by a score are averaged over all draws in
closed form, votes over all draws where those are few and over seeded random ones otherwise; the draws depend on the problem,
never on the model, so that all models and controls see the same ones.
"""

from __future__ import annotations

import math
import random
import sys
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import median_low
from typing import NamedTuple

from prmkit.data.step_scores import AGGREGATES, Aggregate, aggregate, log_aggregate, log_sigmoid, ranked
from prmkit.data.types import Group, RewardKind, Solution, StepRewards
from prmkit.evaluate.prm.bootstrap import Tally
from prmkit.evaluate.prm.scored import Scored, as_probability, problem_key
from prmkit.verify.answers import normalise
from prmkit.verify.math import fast_equal

MAX_EXACT_DRAWS = 512
"""Up to so many subsets, votes are averaged over all of them."""

Same = Callable[[str, str], bool]
"""Whether two final answers mean the same."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Candidate:
    """One solution of a pool."""

    index: int
    """Position among the solutions of all pools."""
    outcome: float
    answer: int | None
    """Equal answers have equal numbers; None where no answer was found: it has no vote."""
    length: int
    """Characters of the response."""
    reward: float | None
    """The reward-model score that came with the pool."""


@dataclass(frozen=True, kw_only=True)
class Pool:
    """The judged solutions of one problem."""

    problem: str
    members: tuple[Candidate, ...]


@dataclass(frozen=True, kw_only=True)
class Pools:
    """Pools that are large enough for every N."""

    pools: tuple[Pool, ...]
    n_values: tuple[int, ...]
    undecided: int
    """Solutions without a known outcome: they are in no pool."""
    nothing_decided: int
    """Problems without a single known outcome: missing, whatever a model would choose there."""
    unscored: int
    """Solutions that were left out because a model has no score for them."""
    too_small: int
    """Pools with fewer solutions left than the largest N: left out at every N, so that a curve is about one set of problems."""


Score = Callable[[Candidate], float | None]


class Ballot(NamedTuple):
    """What a weighted vote goes by."""

    weight: Score
    fallback: Score
    """Takes the highest where nobody votes."""
    log_weight: Score | None = None
    """Decides where all weights of a draw are too small for a float."""


Values = Mapping[int, Sequence[Tally]]
"""N -> one (expected outcome of the choice, 1) per problem."""


def same_answer(a: str, b: str) -> bool:
    """Equal as normalised text, or as exact numbers."""
    first, second = normalise(a), normalise(b)
    return first == second or fast_equal(first, second) is True


def make_pools(
    groups: Sequence[Group[Solution]],
    *,
    n_values: Sequence[int] = (),
    same: Same = same_answer,
    leave_out: Container[int] = (),
) -> Pools:
    """Number the answers of each pool and choose the N. Solutions are counted through all groups, in order.

    `leave_out`: positions of solutions that no method may choose, so that all choose from the same.
    Without `n_values`: powers of two up to the size that at least half of the pools have.
    """
    pools = []
    start = undecided = nothing_decided = unscored = emptied = 0
    for group in groups:
        numbers = answer_numbers([member.answer for member in group.members], same)
        members = []
        for k, (member, answer) in enumerate(zip(group.members, numbers, strict=True)):
            if member.outcome is None:
                undecided += 1
                continue
            if start + k in leave_out:
                unscored += 1
                continue
            reward = pool_reward(member)
            members.append(
                Candidate(
                    index=start + k, outcome=member.outcome, answer=answer, length=len(member.text), reward=reward
                )
            )
        start += len(group.members)
        if all(member.outcome is None for member in group.members):
            nothing_decided += 1
        elif not members:
            emptied += 1
        else:
            pools.append(Pool(problem=problem_key(group.members[0]), members=tuple(members)))
    largest = median_low([len(pool.members) for pool in pools]) if pools else 0
    chosen = tuple(sorted(set(n_values))) or tuple(2**k for k in range(largest.bit_length()))
    kept = tuple(pool for pool in pools if len(pool.members) >= max(chosen, default=1))
    return Pools(
        pools=kept,
        n_values=chosen,
        undecided=undecided,
        nothing_decided=nothing_decided,
        unscored=unscored,
        too_small=emptied + len(pools) - len(kept),
    )


def pool_reward(solution: Solution) -> float | None:
    """`meta["reward"]` where it is a finite number."""
    value = solution.meta.get("reward")
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        return None
    return float(value)


def answer_numbers(answers: Sequence[str | None], same: Same) -> list[int | None]:
    """The number of each answer's class: the first class whose first member equals it, or a new one."""
    known: list[str] = []
    seen: dict[str, int] = {}
    numbers: list[int | None] = []
    for answer in answers:
        if answer is None or not answer.strip():
            numbers.append(None)
            continue
        if answer not in seen:
            found = next((k for k, other in enumerate(known) if same(other, answer)), None)
            if found is None:
                found = len(known)
                known.append(answer)
            seen[answer] = found
        numbers.append(seen[answer])
    return numbers


def expected_pick(scores: Sequence[float | None], outcomes: Sequence[float], n: int) -> float:
    """Expected outcome of the highest score among n solutions drawn without replacement; exact.

    P(the best is one of the k solutions with score s, m solutions being higher) = [C(M-m, n) - C(M-m-k, n)] / C(M, n).
    Which of equals is taken is left to chance: their mean outcome counts. A solution without a score is never taken; a draw
    in which none has one is a failed pick and counts as wrong.
    """
    total = len(scores)
    levels: dict[float, list[float]] = {}
    for score, outcome in zip(scores, outcomes, strict=True):
        if score is not None:
            levels.setdefault(score, []).append(outcome)
    expected, above = 0.0, 0
    for score in sorted(levels, reverse=True):
        tied = levels[score]
        ways = math.comb(total - above, n) - math.comb(total - above - len(tied), n)
        expected += ways / math.comb(total, n) * _mean(tied)
        above += len(tied)
    return expected


def draws(size: int, n: int, key: str, *, num: int, seed: int) -> list[tuple[int, ...]]:
    """All subsets of n of `size` solutions where those are few, else `num` random ones that `key` and the seed fix."""
    if math.comb(size, n) <= max(MAX_EXACT_DRAWS, num):
        return list(combinations(range(size), n))
    rng = random.Random(f"report-card/draws/{seed}/{n}/{key}")
    return [tuple(rng.sample(range(size), n)) for _ in range(num)]


def vote(
    chosen: Sequence[int],
    answers: Sequence[int | None],
    weights: Sequence[float | None],
    outcomes: Sequence[float],
    fallback: Sequence[float | None],
    log_weights: Sequence[float | None] = (),
) -> float:
    """Outcome of the answer with the largest sum of weights among the chosen; equal sums share it evenly.

    Where every sum is too small for a float, the sums of `log_weights` (log-sum-exp) decide. Solutions without an answer or a
    weight have no vote. When nobody votes, the highest `fallback` score is taken (all equal: a random solution); when nobody
    has one, the pick has failed and counts as wrong.
    """
    classes: dict[int, list[int]] = {}
    for k in chosen:
        answer = answers[k]
        if answer is not None and weights[k] is not None:
            classes.setdefault(answer, []).append(k)
    if not classes:
        return expected_pick([fallback[k] for k in chosen], [outcomes[k] for k in chosen], len(chosen))
    if len(classes) == 1:
        winners = list(classes.values())
    else:  # exact sums: equal weights in another order must tie
        sums = [math.fsum([w for k in members if (w := weights[k]) is not None]) for members in classes.values()]
        if log_weights and max(sums) < sys.float_info.min:
            sums = _scaled_sums(list(classes.values()), log_weights)
        top = max(sums)
        winners = [members for members, total in zip(classes.values(), sums, strict=True) if total == top]
    return _mean([_mean([outcomes[k] for k in members]) for members in winners])


def _scaled_sums(classes: Sequence[Sequence[int]], logs: Sequence[float | None]) -> list[float]:
    """Sums of e^log of each class, all divided by the largest e^log of any."""
    found = [[log for k in members if (log := logs[k]) is not None] for members in classes]
    largest = max(map(max, found))
    if largest == -math.inf:
        return [0.0] * len(found)  # weights of exactly 0: all tie
    return [math.fsum([math.exp(log - largest) for log in members]) for members in found]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)  # fmean takes most of the time of a card


def vote_weight(score: float, name: Aggregate, kind: RewardKind, temperature: float) -> float:
    """The weight of a solution's vote: its aggregate where that comes from probabilities, else sigma of it.

    sigma(score / temperature) for log-ratios: at temperature 1 a few nats decide; the released code of the implicit PRM
    divides by 1000, which leaves a majority vote whose ties the PRM breaks. A product is one of probabilities already.
    """
    return score if kind == "probability" or name == "prod" else as_probability(score, kind, temperature)


def log_vote_weight(rewards: StepRewards, name: Aggregate, temperature: float) -> float:
    """The logarithm of `vote_weight`, finite where the weight is not 0 but too small for a float."""
    if rewards.kind == "probability" or name == "prod":
        return log_aggregate(rewards, name)
    return log_sigmoid(aggregate(rewards, name) / (temperature if rewards.kind == "log_ratio" else 1.0))


def controls(pools: Pools, *, num_draws: int, seed: int) -> dict[str, Values]:
    """What needs no model: `pass` (an oracle's choice), `random`, `shortest`, `longest`, `majority`; and, where the pool brings
    scores of a reward model, `pool reward` and `pool reward vote`."""
    found = {
        "pass": _picks(pools, lambda m: m.outcome),
        "random": _picks(pools, lambda m: 0.0),
        "shortest": _picks(pools, lambda m: -m.length),
        "longest": _picks(pools, lambda m: m.length),
    }
    votes = {"majority": Ballot(lambda m: 1.0, lambda m: 0.0)}
    rewards = [member.reward for pool in pools.pools for member in pool.members]
    if any(reward is not None for reward in rewards):
        in_unit = all(reward is None or 0 <= reward <= 1 for reward in rewards)
        found["pool reward"] = _picks(pools, lambda m: m.reward)
        votes["pool reward vote"] = Ballot(
            lambda m: m.reward if in_unit or m.reward is None else as_probability(m.reward, "logit"),
            lambda m: m.reward,
            None if in_unit else lambda m: None if m.reward is None else log_sigmoid(m.reward),
        )
    return found | _votes(pools, votes, num_draws=num_draws, seed=seed)


def choices(
    pools: Pools,
    scored: Sequence[Scored],
    *,
    aggregates: Sequence[Aggregate] = AGGREGATES,
    temperature: float = 1.0,
    num_draws: int,
    seed: int,
) -> dict[str, Values]:
    """`best NAME` (the highest aggregate) and `vote NAME` (votes weighted by it) for each aggregate.

    `scored` holds the solutions of all pools in order. The `vote` of unscored solutions does not count.
    """
    found: dict[str, Values] = {}
    votes = {}
    given = [row.rewards if isinstance(row.rewards, StepRewards) else None for row in scored]
    for name in aggregates:
        values = [None if r is None else ranked(r, name) for r in given]
        weights = [None if r is None else vote_weight(aggregate(r, name), name, r.kind, temperature) for r in given]
        logs = [None if r is None else log_vote_weight(r, name, temperature) for r in given]
        found[f"best {name}"] = _picks(pools, _at(values))
        votes[f"vote {name}"] = Ballot(_at(weights), _at(values), _at(logs))
    return found | _votes(pools, votes, num_draws=num_draws, seed=seed)


def _at(values: Sequence[float | None]) -> Score:
    return lambda member: values[member.index]


def _picks(pools: Pools, score: Score) -> Values:
    found: dict[int, list[Tally]] = {n: [] for n in pools.n_values}
    for item, pool in enumerate(pools.pools):
        scores, outcomes = [score(m) for m in pool.members], [m.outcome for m in pool.members]
        for n in pools.n_values:
            found[n].append(Tally(item, pool.problem, (expected_pick(scores, outcomes, n), 1.0)))
    return found


def _votes(
    pools: Pools,
    methods: Mapping[str, Ballot],
    *,
    num_draws: int,
    seed: int,
) -> dict[str, Values]:
    """All methods on the same draws."""
    found: dict[str, dict[int, list[Tally]]] = {name: {n: [] for n in pools.n_values} for name in methods}
    for item, pool in enumerate(pools.pools):
        members = pool.members
        outcomes, answers = [m.outcome for m in members], [m.answer for m in members]
        tables = {
            name: (
                [ballot.weight(m) for m in members],
                [ballot.fallback(m) for m in members],
                [ballot.log_weight(m) for m in members] if ballot.log_weight else (),
            )
            for name, ballot in methods.items()
        }
        for n in pools.n_values:
            drawn = draws(len(members), n, pool.problem, num=num_draws, seed=seed)
            for name, (weights, fallback, logs) in tables.items():
                value = _mean([vote(chosen, answers, weights, outcomes, fallback, logs) for chosen in drawn])
                found[name][n].append(Tally(item, pool.problem, (value, 1.0)))
    return dict(found)
