"""The arithmetic of PRIME's released run, end to end: log-probs and verdicts in, whitened advantages out.

`released_run` is written in plain Python from the description of the released code, with nothing of prmkit in it.
"""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from strategies import QUICK, Ragged, ragged
from torch import Tensor

from prmkit.ops.advantages import outcome_advantage, process_baseline
from prmkit.ops.masked import whiten
from prmkit.ops.policy_loss import clipped_policy_loss
from prmkit.ops.prm_loss import cross_entropy
from prmkit.ops.reduce import token_weights
from prmkit.ops.returns import discounted_return
from prmkit.ops.rewards import at_last_token, by_granularity, implicit_reward, normaliser_scale

Rows = list[list[float]]


def to_go(reward: list[float], discount: float) -> list[float]:
    return [sum(discount ** (s - t) * reward[s] for s in range(t, len(reward))) for t in range(len(reward))]


def released_run(
    logp: Rows,
    reference: Rows,
    outcome: list[float],
    group: list[int],
    process_discount: float = 1.0,
    outcome_discount: float = 1.0,
    granularity: str = "token",
) -> Rows:
    score = [[a - b for a, b in zip(p, r, strict=True)] for p, r in zip(logp, reference, strict=True)]
    if granularity == "whole":
        score = [[0.0] * (len(row) - 1) + [sum(row)] for row in score]
    largest = max(abs(g) for row in score for g in to_go(row, 1.0)) + 1e-6
    score = [[q / largest for q in row] for row in score]
    returns = []
    for i, row in enumerate(score):
        siblings = [j for j in range(len(score)) if group[j] == group[i]]
        n = len(siblings)
        means = sum(sum(score[j]) / len(score[j]) for j in siblings)
        process = [n / (n - 1) * q - means / (n - 1) for q in row]
        verdict = n / (n - 1) * outcome[i] - sum(outcome[j] for j in siblings) / (n - 1)
        sources = to_go(process, process_discount), to_go([0.0] * (len(row) - 1) + [verdict], outcome_discount)
        returns.append([a + b for a, b in zip(*sources, strict=True)])
    tokens = [g for row in returns for g in row]
    mean = sum(tokens) / len(tokens)
    variance = sum((g - mean) ** 2 for g in tokens) / (len(tokens) - 1)
    return [[(g - mean) / math.sqrt(variance + 1e-8) for g in row] for row in returns]


def composed(
    logp_BT: Tensor,
    reference_BT: Tensor,
    x: Ragged,
    process_discount: float = 1.0,
    outcome_discount: float = 1.0,
    granularity: str = "token",
) -> Tensor:
    reward_BT = implicit_reward(logp_BT, reference_BT, x.mask_BT, beta=1.0)  # the released run scales q by no beta here
    reward_BT = by_granularity(reward_BT, x.step_BT, x.mask_BT, granularity)
    reward_BT = reward_BT / normaliser_scale(reward_BT, x.mask_BT, "max_return")
    process_BT = process_baseline(reward_BT, x.mask_BT, x.group_B, "prime")
    outcome_BT = at_last_token(outcome_advantage(x.outcome_B, x.group_B, "rloo"), x.mask_BT)
    return_BT = discounted_return(process_BT, x.mask_BT, process_discount)
    return_BT = return_BT + discounted_return(outcome_BT, x.mask_BT, outcome_discount)
    return whiten(return_BT, x.mask_BT)


def ragged_list(value_BT: Tensor, mask_BT: Tensor) -> Rows:
    return [row[kept].tolist() for row, kept in zip(value_BT, mask_BT, strict=True)]


@given(
    x=ragged(),
    process_discount=st.sampled_from([1.0, 0.9, 0.0]),
    outcome_discount=st.sampled_from([1.0, 0.9]),
    granularity=st.sampled_from(["token", "whole"]),
)
@QUICK
def test_advantages_are_those_of_the_released_run(
    x: Ragged, process_discount: float, outcome_discount: float, granularity: str
) -> None:
    options = (process_discount, outcome_discount, granularity)
    expected = released_run(
        ragged_list(x.reward_BT, x.mask_BT),
        ragged_list(x.other_BT, x.mask_BT),
        x.outcome_B.tolist(),
        x.group_B.tolist(),
        *options,
    )
    actual_BT = composed(x.reward_BT, x.other_BT, x, *options)
    assert not actual_BT[~x.mask_BT].any()
    for actual_row, expected_row in zip(ragged_list(actual_BT, x.mask_BT), expected, strict=True):
        assert actual_row == pytest.approx(expected_row, rel=1e-6, abs=1e-9)


TWO_SIBLINGS = Ragged(
    mask_BT=torch.tensor([[True, True], [True, False]]),
    step_BT=torch.tensor([[0, 0], [0, -1]]),
    reward_BT=torch.tensor([[-1.0, -2.0], [-7.0, 0.0]], dtype=torch.float64),
    other_BT=torch.tensor([[-3.0, -6.0], [-1.0, 0.0]], dtype=torch.float64),
    group_B=torch.tensor([0, 0]),
    outcome_B=torch.tensor([1.0, 0.0], dtype=torch.float64),
    score_B=torch.zeros(2),
)


def test_two_siblings_by_hand() -> None:
    # log-ratios q: 2, 4 and -6. Returns-to-go 6, 4 and -6: Z = 6 (+ 1e-6). Rewards 1/3, 2/3 and -1; means 1/2 and -1.
    # process, n = 2: 2 r - (1/2 - 1): 2/3 + 1/2 = 7/6, 4/3 + 1/2 = 11/6 and -2 + 1/2 = -3/2
    # outcome: 2 * 1 - 1 = 1 and 2 * 0 - 1 = -1, on the last tokens
    # returns: 7/6 + 11/6 + 1 = 4, 11/6 + 1 = 17/6 and -3/2 - 1 = -5/2. Mean (24 + 17 - 15)/18 = 26/18
    # deviations (72 - 26)/18 = 46/18, (51 - 26)/18 = 25/18, (-45 - 26)/18 = -71/18
    # variance (46^2 + 25^2 + 71^2)/(2 * 18^2) = 7782/648 = 3891/18^2
    x, root = TWO_SIBLINGS, 3891**0.5
    expected_BT = torch.tensor([[46 / root, 25 / root], [-71 / root, 0.0]], dtype=torch.float64)
    torch.testing.assert_close(composed(x.reward_BT, x.other_BT, x), expected_BT, rtol=1e-6, atol=0.0)


def test_the_losses_of_the_released_run_by_hand() -> None:
    # PRM: Q = 0.05 * (2 + 4) = 0.3 with outcome 1, and 0.05 * -6 = -0.3 with outcome 0:
    #      -log sigmoid(0.3) = log(1 + exp(-0.3)), and -log(1 - sigmoid(-0.3)) the same; so is their mean
    x = TWO_SIBLINGS
    q_B = implicit_reward(x.reward_BT, x.other_BT, x.mask_BT, beta=0.05).sum(1)
    loss = cross_entropy(q_B, x.outcome_B).mean()
    assert float(loss) == pytest.approx(math.log(1 + math.exp(-0.3)), rel=1e-6)
    # Policy, micro-batch of one: the mean over responses of the mean over tokens. With ratios 1.5, 0.5 and 1.5 and the
    # advantages a, b, c above: max(-1.5 a, -1.2 a) = -1.2 a; max(-0.5 b, -0.8 b) = -0.5 b; max(-1.5 c, -1.2 c) = -1.5 c
    # (c < 0). Loss: ((-1.2 a - 0.5 b)/2 - 1.5 c)/2
    advantage_BT = composed(x.reward_BT, x.other_BT, x)
    ratio_BT = torch.tensor([[1.5, 0.5], [1.5, 1.0]], dtype=torch.float64)
    token_BT, _ = clipped_policy_loss(torch.log(ratio_BT), torch.zeros_like(ratio_BT), advantage_BT, 0.2, 0.2)
    loss = (token_weights(x.mask_BT, "seq_mean_token_mean") * token_BT).sum()
    a, b, c = (v / 3891**0.5 for v in (46, 25, -71))
    assert float(loss) == pytest.approx(((-1.2 * a - 0.5 * b) / 2 - 1.5 * c) / 2, rel=1e-6)


def test_at_the_start_the_normaliser_turns_noise_into_full_scale_rewards() -> None:
    """Log-ratios of rounding size still get returns near 1; a floor keeps them small."""
    x = TWO_SIBLINGS
    noise_BT = implicit_reward(1e-4 * x.reward_BT, 1e-4 * x.other_BT, x.mask_BT, beta=1.0)
    # Z = 6e-4 + 1e-6: the largest return is 600/601. With a floor of 6 it is 6e-4/6 (the eps is 2e-7 of the floor).
    for floor, largest in ((0.0, 600 / 601), (6.0, 1e-4)):
        scale = normaliser_scale(noise_BT, x.mask_BT, "max_return", floor=floor)
        assert float((noise_BT.sum(1) / scale).abs().max()) == pytest.approx(largest, rel=1e-6)
