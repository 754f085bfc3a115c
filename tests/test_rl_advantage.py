"""What each option does to the advantages of a small batch, by hand; and the released run's arithmetic by plain loops."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from prmkit.errors import ConfigError
from prmkit.ops.batch import Batch
from prmkit.ops.reduce import token_weights
from prmkit.rl.advantage import ESTIMATOR_BASELINE, Greedy, advantages, greedy_baseline
from prmkit.rl.algorithm import KL, Algorithm, Outcome, Process
from prmkit.rl.presets import PRESETS, PRIME_PAPER
from prmkit.rl.step import process_coef

Rows = list[list[float]]


def hand_batch(
    steps: Sequence[Sequence[int]], outcome: Sequence[float], group: Sequence[int], truncated: Sequence[int] = ()
) -> Batch:
    """Rows of one prompt token and the given response tokens, by their steps."""
    width = 1 + max(map(len, steps))
    step_BT = torch.full((len(steps), width), -1)
    for i, row in enumerate(steps):
        step_BT[i, 1 : 1 + len(row)] = torch.tensor(row)
    return Batch(
        token_BT=torch.zeros_like(step_BT),
        length_B=torch.tensor([1 + len(row) for row in steps]),
        response_mask_BT=step_BT >= 0,
        step_BT=step_BT,
        behaviour_logp_BT=torch.zeros(step_BT.shape),
        outcome_B=torch.tensor(outcome, dtype=torch.float32),
        group_B=torch.tensor(group),
        truncated_B=torch.tensor([i in truncated for i in range(len(steps))]),
    )


def on_responses(batch: Batch, values: Rows) -> Tensor:
    """The rows as `_BT`; NaN off the response, so that whatever looks there is found out."""
    value_BT = torch.full(batch.step_BT.shape, math.nan)
    value_BT[batch.response_mask_BT] = torch.tensor([v for row in values for v in row])
    return value_BT


def rows_of(batch: Batch, value_BT: Tensor) -> Rows:
    assert not value_BT[~batch.response_mask_BT].any()
    return [value_BT[i][batch.response_mask_BT[i]].tolist() for i in range(len(value_BT))]


BATCH = hand_batch([[0, 0, 1], [0, 1], [0, 1], [0, 0, 1, 1], [0]], [1, 0, 0, 1, 0], [0, 0, 1, 1, 1], truncated=[2])
"""A group of two and a group of three; the third response is cut."""
REWARDS: Rows = [[0.1, 0.2, 0.3], [0.4, -0.2], [0.5, 0.1], [-0.1, -0.2, 0.6, 0.3], [0.2]]
RETURNS: Rows = [[0.6, 0.5, 0.3], [0.2, -0.2], [0.6, 0.1], [0.6, 0.7, 0.9, 0.3], [0.2]]
"""Sums from each token to the end."""
RAW = Process(normaliser="none", baseline="none", coef=1.0)
PROCESS_ALONE = Algorithm(advantage="reinforce", outcome=Outcome(coef=0.0), process=RAW)


def result(algorithm: Algorithm, *, coef: float = 1.0, rewards: Rows | None = REWARDS, **options: Any) -> Rows:
    process_BT = None if rewards is None else torch.nan_to_num(on_responses(BATCH, rewards))
    made = advantages(algorithm, BATCH, process_BT=process_BT, process_coef=coef, **options)
    return rows_of(BATCH, made.advantage_BT)


def process_result(**options: Any) -> Rows:
    return result(replace(PROCESS_ALONE, process=replace(RAW, **options)))


def close(got: Rows, wanted: Rows, rel: float = 1e-5) -> None:
    assert len(got) == len(wanted)
    for i, (a, b) in enumerate(zip(got, wanted, strict=True)):
        assert a == pytest.approx(b, rel=rel, abs=1e-6), f"row {i}"


def scaled(rows: Rows, factor: float) -> Rows:
    return [[v * factor for v in row] for row in rows]


# ---------------------------------------------------------------------------------------------- the outcome


@pytest.mark.parametrize(
    ("estimator", "by_row"),
    [
        # group 1: 1 - 0, 0 - 1; group 2: 0 - (1 + 0)/2, 1 - 0, 0 - (0 + 1)/2
        ("rloo", [1, -1, -0.5, 1, -0.5]),
        # means 1/2 and 1/3; unbiased variances 1/2 and (1/9 + 4/9 + 1/9)/2 = 1/3
        ("grpo", [0.5 * 2**0.5, -0.5 * 2**0.5, -(3**0.5) / 3, 2 * 3**0.5 / 3, -(3**0.5) / 3]),
        ("dr_grpo", [0.5, -0.5, -1 / 3, 2 / 3, -1 / 3]),
        ("reinforce", [1, 0, 0, 1, 0]),
        ("reinforce_pp", [1, 0, 0, 1, 0]),
        # the greedy responses have 0 and 1
        ("remax", [1, 0, -1, 0, -1]),
    ],
)
def test_every_token_has_its_responses_outcome_advantage(estimator: Any, by_row: list[float]) -> None:
    greedy = Greedy(reward_B=torch.tensor([0.0, 0, 1, 1, 1]), process_mean_B=torch.zeros(5))
    got = result(Algorithm(advantage=estimator), rewards=None, greedy=greedy if estimator == "remax" else None)
    close(got, [[a] * len(row) for a, row in zip(by_row, REWARDS, strict=True)])


def test_the_outcomes_coefficient_and_discount() -> None:
    plain = result(Algorithm(), rewards=None)
    close(result(Algorithm(outcome=Outcome(coef=3.0)), rewards=None), scaled(plain, 3))
    # leave-one-out advantages 1, -1, -0.5, 1, -0.5 on the last token, halved at each token before it
    halved = [[0.25, 0.5, 1], [-0.5, -1], [-0.25, -0.5], [0.125, 0.25, 0.5, 1], [-0.5]]
    close(result(Algorithm(outcome=Outcome(discount=0.5)), rewards=None), halved)


# ---------------------------------------------------------------------------------------------- process rewards


def test_without_shaping_the_process_advantage_is_the_return() -> None:
    close(process_result(), RETURNS)


def test_sources_add_up_each_with_its_coefficient() -> None:
    outcome = result(Algorithm(advantage="rloo"), rewards=None)
    algorithm = Algorithm(advantage="rloo", outcome=Outcome(coef=2.0), process=RAW)
    together = result(algorithm, coef=0.5)
    wanted = [[2 * a + 0.5 * b for a, b in zip(x, y, strict=True)] for x, y in zip(outcome, RETURNS, strict=True)]
    close(together, wanted)


def test_the_process_discount_is_its_own() -> None:
    # .1 + .5 * (.2 + .5 * .3) = .275; .2 + .15 = .35; and so on
    halved = [[0.275, 0.35, 0.3], [0.3, -0.2], [0.55, 0.1], [-0.0125, 0.175, 0.75, 0.3], [0.2]]
    close(process_result(discount=0.5), halved)
    close(process_result(discount=0.0), REWARDS)
    algorithm = replace(PROCESS_ALONE, outcome=Outcome(coef=0.0, discount=0.5))
    close(result(algorithm), RETURNS)  # the outcome's does not touch it


@pytest.mark.parametrize(
    ("granularity", "discount", "wanted"),
    [
        # steps of row 0: {.1, .2}, {.3}; of row 3: {-.1, -.2}, {.6, .3}
        ("step", 1.0, [[0.6, 0.6, 0.3], [0.2, -0.2], [0.6, 0.1], [0.6, 0.6, 0.9, 0.9], [0.2]]),
        # .3 + .5 * .3; .4 - .1; .5 + .05; -.3 + .45
        ("step", 0.5, [[0.45, 0.45, 0.3], [0.3, -0.2], [0.55, 0.1], [0.15, 0.15, 0.9, 0.9], [0.2]]),
        ("whole", 1.0, [[0.6] * 3, [0.2] * 2, [0.6] * 2, [0.6] * 4, [0.2]]),
        ("whole", 0.5, [[0.15, 0.3, 0.6], [0.1, 0.2], [0.3, 0.6], [0.075, 0.15, 0.3, 0.6], [0.2]]),
    ],
)
def test_granularity(granularity: str, discount: float, wanted: Rows) -> None:
    close(process_result(granularity=granularity, discount=discount), wanted)


@pytest.mark.parametrize(
    ("baseline", "first_group"),
    [
        # means of the two responses: .2 and .1
        # leave_one_out: [0, .1, .2] and [.2, -.4], then returns
        ("leave_one_out", [[0.3, 0.3, 0.2], [-0.2, -0.4]]),
        # prime: 2 r - (.2 + .1) = [-.1, .1, .3] and [.5, -.7]
        ("prime", [[0.3, 0.4, 0.3], [-0.2, -0.7]]),
        # group: mean over the five tokens .8 / 5 = .16: [-.06, .04, .14] and [.24, -.36]
        ("group", [[0.12, 0.18, 0.14], [-0.12, -0.36]]),
        # group_std: squares .0036 + .0016 + .0196 + .0576 + .1296 = .212, / 4 = .053
        ("group_std", [[v / 0.053**0.5 for v in (0.12, 0.18, 0.14)], [v / 0.053**0.5 for v in (-0.12, -0.36)]]),
        # position: returns less the sibling's return at the same position; the third token has no sibling
        ("position", [[0.4, 0.7, 0.3], [-0.4, -0.7]]),
    ],
)
def test_process_baselines(baseline: str, first_group: Rows) -> None:
    close(process_result(baseline=baseline)[:2], first_group)


def test_a_baseline_is_taken_over_the_tokens_that_carry_rewards() -> None:
    # Step sums: row 0 .3, .3 on its tokens 2, 3; row 1 .4, -.2. Means over those positions .3 and .1.
    # leave_one_out: row 0 [0, .2, .2], row 1 [.1, -.5]; then returns by steps
    got = process_result(baseline="leave_one_out", granularity="step")
    close(got[:2], [[0.4, 0.4, 0.2], [-0.4, -0.5]])


@pytest.mark.parametrize("estimator", ["rloo", "grpo", "dr_grpo", "reinforce", "reinforce_pp", "remax"])
def test_the_estimators_own_baseline(estimator: Any) -> None:
    greedy = Greedy(reward_B=torch.zeros(5), process_mean_B=torch.tensor([0.1, 0.1, 0.2, 0.2, 0.2]))
    algorithm = replace(PROCESS_ALONE, advantage=estimator)
    own = result(replace(algorithm, process=replace(RAW, baseline="estimator")), greedy=greedy)
    named: Any = ESTIMATOR_BASELINE.get(estimator, "none")
    if estimator == "remax":
        # less .1 a token: .6 - .3, .5 - .2, .3 - .1
        assert own[0] == pytest.approx([0.3, 0.3, 0.2])
        assert own[4] == pytest.approx([0.0], abs=1e-7)
    else:
        close(own, result(replace(algorithm, process=replace(RAW, baseline=named)), greedy=greedy))
    expected = {"rloo": "leave_one_out", "grpo": "group_std", "dr_grpo": "group", "remax": "greedy"}
    assert named == expected.get(estimator, "none")


def test_normalisers_and_their_floor() -> None:
    # largest |return| .9, in row 3
    close(process_result(normaliser="max_return"), scaled(RETURNS, 1 / 0.9))
    flat = [v for row in RETURNS for v in row]
    rms = math.sqrt(sum(v * v for v in flat) / len(flat))
    close(process_result(normaliser="std"), scaled(RETURNS, 1 / rms))
    for normaliser in ("max_return", "std"):
        close(process_result(normaliser=normaliser, floor=2.0), scaled(RETURNS, 1 / 2))
        close(process_result(normaliser=normaliser, floor=0.01), process_result(normaliser=normaliser))
    close(process_result(normaliser="none", floor=2.0), RETURNS)


def test_each_rank_is_normalised_by_itself() -> None:
    # the group of rows 0-1: .6; of rows 2-4: .9. Siblings have one unit, even where there are more ranks than groups
    wanted = [*scaled(RETURNS[:2], 1 / 0.6), *scaled(RETURNS[2:], 1 / 0.9)]
    close(process_result(normaliser="max_return", normaliser_ranks=2), wanted)
    close(process_result(normaliser="max_return", normaliser_ranks=8), wanted)


def test_beta_cancels_under_a_normaliser_and_nowhere_else() -> None:
    for beta in (0.05, 5.0):  # the epsilon follows beta, so that not even noise depends on it
        scaled_rewards = scaled(REWARDS, beta * 1e-6)
        algorithm = replace(PROCESS_ALONE, process=replace(RAW, normaliser="max_return", beta=beta))
        # 1e-6 * .9 * beta over (.9 + 1) * 1e-6 * beta
        close(result(algorithm, rewards=scaled_rewards), scaled(RETURNS, 1 / 1.9))


def test_the_end_token_can_go_without_reward_unless_the_response_was_cut() -> None:
    # Without the last reward, but for the cut row 2.
    wanted = [[0.3, 0.2, 0.0], [0.4, 0.0], [0.6, 0.1], [0.3, 0.4, 0.6, 0.0], [0.0]]
    close(process_result(eos_reward=False), wanted)


def test_floor_and_normaliser_do_nothing_under_a_baseline_that_divides_by_the_spread() -> None:
    """As docs/prime.md says; so `prime_grpo` sets neither."""
    plain = process_result(baseline="group_std")
    close(process_result(baseline="group_std", normaliser="max_return", floor=100.0), plain, rel=1e-3)
    grpo = PRESETS["prime_grpo"].process
    assert (grpo.baseline, grpo.normaliser, grpo.floor) == ("estimator", "none", 0.0)
    assert PRESETS["prime_dr_grpo"].process.floor == PRESETS["prime"].process.floor > 0


def test_the_greedy_baseline_is_placed_like_the_rewards_it_is_taken_from() -> None:
    batch = hand_batch([[0, 0, 1], [0, 1]], [1, 0], [0, 1], truncated=[1])
    rewards_BT = torch.nan_to_num(on_responses(batch, [[0.1, 0.2, 0.6], [0.4, 0.2]]))
    outcome_B = torch.tensor([1.0, 0.0])

    def means(**options: Any) -> list[float]:
        made = greedy_baseline(outcome_B, rewards_BT, batch, Process(**options))
        assert made.reward_B is outcome_B
        return [round(v, 6) for v in made.process_mean_B.tolist()]

    assert means() == [0.3, 0.3]  # .9 / 3, .6 / 2
    assert means(granularity="step") == [0.45, 0.3]  # over two steps each
    assert means(granularity="whole") == [0.9, 0.6]
    assert means(eos_reward=False) == [0.1, 0.3]  # .3 / 3; the cut one keeps its last
    assert greedy_baseline(outcome_B, None, batch, Process()).process_mean_B.tolist() == [0, 0]


def test_whitening_is_over_the_tokens_of_the_batch() -> None:
    got = result(replace(PROCESS_ALONE, whiten="tokens"))
    flat = [v for row in RETURNS for v in row]
    mean = sum(flat) / 12
    std = math.sqrt(sum((v - mean) ** 2 for v in flat) / 11 + 1e-8)
    close(got, [[(v - mean) / std for v in row] for row in RETURNS])


@pytest.mark.parametrize(
    ("warmup_steps", "by_step"),
    [(0, [2, 2, 2]), (1, [1, 2, 2]), (3, [0.5, 1, 1.5, 2, 2])],
)
def test_the_process_coefficient_rises_linearly(warmup_steps: int, by_step: list[float]) -> None:
    algorithm = Algorithm(process=Process(coef=2.0, warmup_steps=warmup_steps))
    assert [process_coef(algorithm, step) for step in range(1, len(by_step) + 1)] == by_step


# ---------------------------------------------------------------------------------------------- KL and values

COSTS: Rows = [[0.1, 0.2, 0.3], [0.4, -0.2], [0.5, 0.1], [-0.1, -0.2, 0.6, 0.3], [0.2]]
"""log-prob less reference log-prob; the same numbers as the rewards."""


def kl_result(advantage: Any, coef: float, **options: Any) -> Rows:
    reference_BT = -torch.nan_to_num(on_responses(BATCH, COSTS))
    algorithm = Algorithm(advantage=advantage, outcome=Outcome(coef=0.0), kl=KL(coef=coef, **options))
    return result(algorithm, rewards=None, coef=0.0, reference_logp_BT=reference_BT)


@pytest.mark.parametrize(
    ("estimator", "first_group"),
    [
        ("reinforce", [[-0.6, -0.5, -0.3], [-0.2, 0.2]]),
        # the leave-one-out and group baselines of the rewards above, with the other sign
        ("rloo", [[-0.3, -0.3, -0.2], [0.2, 0.4]]),
        ("dr_grpo", [[-0.12, -0.18, -0.14], [0.12, 0.36]]),
        ("grpo", [[-0.12, -0.18, -0.14], [0.12, 0.36]]),
    ],
)
def test_kl_in_the_reward_is_a_cost_in_proportion_to_its_coefficient(estimator: str, first_group: Rows) -> None:
    close(kl_result(estimator, 1.0, where="reward")[:2], first_group)
    close(kl_result(estimator, 0.1, where="reward")[:2], scaled(first_group, 0.1))


def test_kl_in_the_loss_leaves_the_advantages_alone() -> None:
    close(kl_result("rloo", 1.0, where="loss"), [[0.0] * len(row) for row in COSTS])


def test_gae_by_hand() -> None:
    batch = hand_batch([[0, 0, 1]], [1.0], [0])
    value_BT = torch.nan_to_num(on_responses(batch, [[0.5, 0.25, 0.1]]))
    process_BT = torch.nan_to_num(on_responses(batch, [[0.2, 0.0, 0.4]]))
    process = Process(coef=1.0, normaliser="none", discount=0.9)
    algorithm = Algorithm(advantage="gae", gae_lambda=0.5, process=process, outcome=Outcome(coef=2.0, discount=0.9))
    made = advantages(algorithm, batch, process_BT=process_BT, process_coef=0.5, value_BT=value_BT)
    # rewards .1, 0, 2 + .2; deltas .1 + .9 * .25 - .5 = -.175, .9 * .1 - .25 = -.16, 2.2 - .1 = 2.1
    # advantages: 2.1; -.16 + .45 * 2.1 = .785; -.175 + .45 * .785 = .17825
    close(rows_of(batch, made.advantage_BT), [[0.17825, 0.785, 2.1]])
    assert made.return_BT is not None
    close(rows_of(batch, made.return_BT), [[0.67825, 1.035, 2.2]])
    whitened = advantages(
        replace(algorithm, whiten="tokens"), batch, process_BT=process_BT, process_coef=0.5, value_BT=value_BT
    )
    assert whitened.return_BT is not None
    assert torch.equal(whitened.return_BT, made.return_BT)  # the value model's targets are not whitened
    assert whitened.advantage_BT.sum() == pytest.approx(0, abs=1e-6)


def test_gae_takes_the_kl_cost_as_a_reward() -> None:
    batch = hand_batch([[0, 1]], [1.0], [0])
    reference_BT = -torch.nan_to_num(on_responses(batch, [[0.5, 0.25]]))
    algorithm = Algorithm(advantage="gae", kl=KL(coef=0.2, where="reward"))
    value_BT = torch.zeros_like(reference_BT)
    made = advantages(algorithm, batch, reference_logp_BT=reference_BT, value_BT=value_BT)
    # rewards -.1 and 1 - .05; lambda 1, values 0: sums to the end
    close(rows_of(batch, made.advantage_BT), [[0.85, 0.95]])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"group_size": 1},
            'algorithm.group_size = 1, but advantage "rloo" needs at least 2. Set algorithm.group_size = 4',
        ),
        (
            {"group_size": 1, "advantage": "reinforce", "process": Process(coef=1.0, baseline="prime")},
            'algorithm.group_size = 1, but process.baseline "prime" needs at least 2',
        ),
        ({"group_size": 0, "advantage": "reinforce"}, "algorithm.group_size = 0; it must be at least 1"),
        ({"process": Process(coef=1.0, loss="dpo")}, 'algorithm.process.loss = "dpo" compares siblings'),
        (
            {"advantage": "reinforce", "group_size": 1, "process": Process(loss="bon_rm", update="reverse")},
            'algorithm.process.loss = "bon_rm" needs group_size >= 2',
        ),
        (
            {"advantage": "gae", "process": Process(coef=1.0, baseline="group")},
            'algorithm.process.baseline = "group" has no place in gae',
        ),
        (
            {"advantage": "gae", "process": Process(coef=1.0, discount=0.5)},
            "algorithm.process.discount = 0.5 differs from outcome.discount = 1.0, but gae has one value model for both",
        ),
        (
            {"kl": KL(coef=1.0, estimator="k1")},
            'algorithm.kl.estimator = "k1" has no gradient in expectation as a loss',
        ),
        (
            {"advantage": "reinforce", "group_size": 1, "process": Process(coef=1.0, gate="accuracy")},
            'algorithm.group_size = 1, but process.gate = "accuracy" trusts the PRM for ordering siblings',
        ),
        (
            {"advantage": "reinforce", "group_size": 1, "process": Process(coef=1.0, loss="ce_offset")},
            'algorithm.group_size = 1, but process.loss = "ce_offset" takes a prompt\'s offset from its siblings',
        ),
        ({"kl": KL(coef=-1.0)}, "algorithm.kl.coef = -1.0 is out of range [0.0, inf]"),
        ({"process": Process(coef=-1.0)}, "algorithm.process.coef = -1.0 is out of range [0.0, inf]"),
        ({"process": Process(coef=math.nan)}, "algorithm.process.coef = nan is out of range [0.0, inf]"),
        ({"process": Process(beta=0.0)}, "algorithm.process.beta = 0.0 is out of range"),
        ({"process": Process(discount=1.5)}, "algorithm.process.discount = 1.5 is out of range [0.0, 1.0]"),
        ({"outcome": Outcome(discount=math.nan)}, "algorithm.outcome.discount = nan is out of range [0.0, 1.0]"),
        ({"process": Process(warmup_steps=-1)}, "algorithm.process.warmup_steps = -1 is out of range"),
        ({"process": Process(replay_batches=-1)}, "algorithm.process.replay_batches = -1 is out of range"),
        ({"process": Process(floor=-1.0)}, "algorithm.process.floor = -1.0 is out of range"),
        ({"clip_low": 1.5}, "algorithm.clip_low = 1.5 is out of range [0.0, 1.0]"),
        ({"num_minibatches": 0}, "algorithm.num_minibatches = 0 is out of range"),
        ({"prm_minibatches": 0}, "algorithm.prm_minibatches = 0 is out of range"),
        ({"value_clip": 0.0}, "algorithm.value_clip = 0.0 is out of range"),
        ({"entropy_coef": math.nan}, "algorithm.entropy_coef = nan is out of range"),
    ],
)
def test_what_cannot_run_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Algorithm(**options)
    assert str(caught.value).startswith(message)


# ---------------------------------------------------------------------------------------------- prime_paper


def released_run(q: Rows, accuracy: list[float], n: int, ranks: int) -> Rows:
    """The released run's advantages by plain loops: raw log-ratios q, rows of one prompt beside each other."""
    rows = len(q)
    # 1. Each rank divides its share of rows by max |sum of q from t to the end| + 1e-6.
    scores: Rows = []
    share = rows // ranks
    for rank in range(ranks):
        mine = q[rank * share : (rank + 1) * share]
        largest = max(abs(sum(row[t:])) for row in mine for t in range(len(row)))
        scores += [[v / (largest + 1e-6) for v in row] for row in mine]
    total: Rows = [[0.0] * len(row) for row in q]
    for first in range(0, rows, n):
        group = range(first, first + n)
        # 2. Process: n/(n-1) r - 1/(n-1) sum_j mean_j, then the sum to the end.
        means = sum(sum(scores[j]) / len(scores[j]) for j in group)
        for i in group:
            centred = [n / (n - 1) * v - means / (n - 1) for v in scores[i]]
            for t in range(len(centred)):
                total[i][t] += sum(centred[t:])
        # 3. Outcome: n/(n-1) R - 1/(n-1) sum_j R_j on the last token, then the sum to the end.
        for i in group:
            loo = n / (n - 1) * accuracy[i] - sum(accuracy[j] for j in group) / (n - 1)
            for t in range(len(total[i])):
                total[i][t] += loo
    # 4. Whitened over all tokens of all ranks, unbiased variance.
    flat = [v for row in total for v in row]
    mean = sum(flat) / len(flat)
    variance = sum((v - mean) ** 2 for v in flat) / (len(flat) - 1)
    return [[(v - mean) / math.sqrt(variance + 1e-8) for v in row] for row in total]


def paper_case(seed: int, scale: float) -> tuple[Batch, Rows, list[float]]:
    """8 prompts of 4 responses, as many ranks: one prompt each."""
    rng = random.Random(seed)
    lengths = [rng.randint(1, 7) for _ in range(32)]
    q = [[rng.gauss(0.1, 1) * scale for _ in range(length)] for length in lengths]
    accuracy = [1.0, 0.0, 0.0, 1.0] * 4 + [0.0, 1.0, 0.0, 0.0] * 4
    batch = hand_batch([[0] * length for length in lengths], accuracy, [i // 4 for i in range(32)])
    return batch, q, accuracy


@pytest.mark.parametrize("scale", [1.0, 1e-6], ids=["learned", "noise at the start"])
def test_prime_paper_does_the_released_runs_arithmetic(scale: float) -> None:
    batch, q, accuracy = paper_case(0, scale)
    beta = PRIME_PAPER.process.beta  # the released run's rewards are raw q; the scale cancels in the normaliser
    made = advantages(
        PRIME_PAPER,
        batch,
        process_BT=beta * torch.nan_to_num(on_responses(batch, q)),
        process_coef=process_coef(PRIME_PAPER, 1),
    )
    close(rows_of(batch, made.advantage_BT), released_run(q, accuracy, n=4, ranks=8), rel=2e-5)


def test_the_released_runs_ranks_matter() -> None:
    """Were the normaliser taken over the whole batch, the golden numbers would be others: the test above can fail."""
    _, q, accuracy = paper_case(0, 1.0)
    apart, together = released_run(q, accuracy, n=4, ranks=8), released_run(q, accuracy, n=4, ranks=1)
    assert max(abs(a - b) for x, y in zip(apart, together, strict=True) for a, b in zip(x, y, strict=True)) > 0.05


def test_prime_paper_is_the_released_configuration() -> None:
    """The 7B script: 8 GPUs, 4 responses, 1024 rows in mini-batches of 256, clip 0.2, bounds 0.2 and 0.8, no KL."""
    paper, process = PRIME_PAPER, PRIME_PAPER.process
    assert (paper.advantage, paper.whiten, paper.group_size, paper.unparsed) == ("rloo", "tokens", 4, "mask")
    assert (paper.num_minibatches, paper.prm_minibatches) == (4, 4)
    assert (paper.clip_low, paper.clip_high, paper.entropy_coef, paper.kl.coef) == (0.2, 0.2, 0.0, 0.0)
    assert (paper.filter.enabled, paper.filter.low, paper.filter.high, paper.filter.truncated) == (
        True,
        0.2,
        0.8,
        "keep",
    )
    assert (paper.outcome.coef, paper.outcome.discount, process.coef, process.discount) == (1.0, 1.0, 1.0, 1.0)
    assert (process.beta, process.granularity, process.normaliser, process.normaliser_ranks) == (
        0.05,
        "token",
        "max_return",
        8,
    )
    assert (process.baseline, process.eos_reward, process.floor, process.warmup_steps) == ("prime", True, 0.0, 0)
    assert (process.update, process.loss, process.reference, process.replay_batches) == ("after", "ce", "freeze", 0)


def test_prime_paper_weighs_each_sequence_the_same_and_its_tokens_too() -> None:
    batch = hand_batch([[0] * 4, [0], [0, 0]], [1, 0, 1], [0, 0, 0])
    weight_BT = token_weights(batch.response_mask_BT, PRIME_PAPER.reduce, 64)
    close(rows_of(batch, weight_BT), [[1 / 12] * 4, [1 / 3], [1 / 6] * 2])
