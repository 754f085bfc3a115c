"""Advantage estimators: derived numbers, identities, and the loops that they stand for."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from strategies import QUICK, Ragged, ragged
from torch import Tensor

from prmkit.ops.advantages import STD_EPS, outcome_advantage, position_baseline, process_baseline
from prmkit.ops.masked import masked_mean
from prmkit.ops.returns import discounted_return

# Rows 0, 1 and 3 are siblings, so are rows 2 and 4.
GROUP_B = torch.tensor([7, 7, 3, 7, 3])
OUTCOME_B = torch.tensor([1.0, 0.0, 1.0, 0.5, 0.0], dtype=torch.float64)

# Three siblings with 2, 1 and 3 tokens, whose mean rewards are 2, 5 and 3.
REWARD_BT = torch.tensor([[1.0, 3.0, 0.0], [5.0, 0.0, 0.0], [0.0, 2.0, 7.0]], dtype=torch.float64)
MASK_BT = torch.tensor([[True, True, False], [True, False, False], [True, True, True]])
SIBLINGS_B = torch.tensor([4, 4, 4])


def close(actual: Tensor, expected: object) -> None:
    torch.testing.assert_close(actual, torch.as_tensor(expected, dtype=actual.dtype), rtol=1e-6, atol=1e-12)


def test_rloo() -> None:
    # group 7: 1 - (0 + 0.5)/2 = 0.75; 0 - (1 + 0.5)/2 = -0.75; 0.5 - (1 + 0)/2 = 0. group 3: 1 - 0 and 0 - 1
    close(outcome_advantage(OUTCOME_B, GROUP_B, "rloo"), [0.75, -0.75, 1.0, 0.0, -1.0])


def test_dr_grpo() -> None:
    # group 7: mean 0.5; group 3: mean 0.5
    close(outcome_advantage(OUTCOME_B, GROUP_B, "dr_grpo"), [0.5, -0.5, 0.5, 0.0, -0.5])


def test_grpo_divides_by_the_unbiased_standard_deviation() -> None:
    # group 7: squares 0.25 + 0.25 + 0, over 2: std 0.5. group 3: squares 0.25 + 0.25, over 1: std sqrt(0.5)
    three, two = 0.5 / (0.5 + 1e-6), 0.5 / (0.5**0.5 + 1e-6)
    close(outcome_advantage(OUTCOME_B, GROUP_B, "grpo"), [three, -three, two, 0.0, -two])


@pytest.mark.parametrize("estimator", ["reinforce", "reinforce_pp"])
def test_reinforce_has_no_baseline(estimator: str) -> None:
    close(outcome_advantage(OUTCOME_B, GROUP_B, estimator), OUTCOME_B)


def test_remax_subtracts_the_greedy_reward() -> None:
    greedy_B = torch.tensor([1.0, 1.0, 0.0, 1.0, 0.0], dtype=torch.float64)
    close(outcome_advantage(OUTCOME_B, GROUP_B, "remax", greedy_B), [0.0, -1.0, 1.0, -0.5, 0.0])


@given(x=ragged())
@QUICK
def test_rloo_is_dr_grpo_scaled_by_n_over_n_minus_1(x: Ragged) -> None:
    size_B = (x.group_B[:, None] == x.group_B[None, :]).sum(1)
    expected_B = outcome_advantage(x.outcome_B, x.group_B, "dr_grpo") * size_B / (size_B - 1)
    close(outcome_advantage(x.outcome_B, x.group_B, "rloo"), expected_B)


@pytest.mark.parametrize("estimator", ["grpo", "dr_grpo"])
def test_a_group_of_one_teaches_nothing(estimator: str) -> None:
    close(outcome_advantage(torch.tensor([1.0, 0.5]), torch.tensor([0, 1]), estimator), [0.0, 0.0])


@pytest.mark.parametrize(
    ("baseline", "expected_BT"),
    [
        # 3/2 r - (2 + 5 + 3)/2 = 1.5 r - 5
        ("prime", [[-3.5, -0.5, 0.0], [2.5, 0.0, 0.0], [-5.0, -2.0, 5.5]]),
        # the others' mean of means: (5 + 3)/2 = 4, (2 + 3)/2 = 2.5, (2 + 5)/2 = 3.5
        ("leave_one_out", [[-3.0, -1.0, 0.0], [2.5, 0.0, 0.0], [-3.5, -1.5, 3.5]]),
        # all tokens: (1 + 3 + 5 + 0 + 2 + 7)/6 = 3
        ("group", [[-2.0, 0.0, 0.0], [2.0, 0.0, 0.0], [-3.0, -1.0, 4.0]]),
        ("none", [[1.0, 3.0, 0.0], [5.0, 0.0, 0.0], [0.0, 2.0, 7.0]]),
    ],
)
def test_process_baselines(baseline: str, expected_BT: list[list[float]]) -> None:
    close(process_baseline(REWARD_BT, MASK_BT, SIBLINGS_B, baseline), expected_BT)


def test_process_rewards_standardised_in_the_group() -> None:
    # less 3: -2, 0, 2, -3, -1, 4; squares 4 + 0 + 4 + 9 + 1 + 16 = 34, over 6 - 1 tokens 6.8
    std = 6.8**0.5 + STD_EPS
    expected = [[-2 / std, 0.0, 0.0], [2 / std, 0.0, 0.0], [-3 / std, -1 / std, 4 / std]]
    close(process_baseline(REWARD_BT, MASK_BT, SIBLINGS_B, "group_std"), expected)


def test_position_baseline() -> None:
    # position 0: 1 - (5 + 0)/2, 5 - (1 + 0)/2, 0 - (1 + 5)/2; position 1: 3 - 2, 2 - 3; position 2: nobody else, 7
    close(position_baseline(REWARD_BT, MASK_BT, SIBLINGS_B), [[-1.5, 1.0, 0.0], [4.5, 0.0, 0.0], [-3.0, -1.0, 7.0]])


@given(x=ragged())
@QUICK
def test_position_baseline_is_the_loop_over_siblings(x: Ragged) -> None:
    actual_BT = position_baseline(x.reward_BT, x.mask_BT, x.group_B)
    B, T = x.mask_BT.shape
    for i in range(B):
        for t in range(T):
            siblings = [j for j in range(B) if j != i and x.group_B[j] == x.group_B[i] and x.mask_BT[j, t]]
            mean = sum(float(x.reward_BT[j, t]) for j in siblings) / len(siblings) if siblings else 0.0
            expected = float(x.reward_BT[i, t]) - mean if x.mask_BT[i, t] else 0.0
            assert float(actual_BT[i, t]) == pytest.approx(expected, abs=1e-12)


@given(x=ragged())
@QUICK
def test_prime_is_leave_one_out_plus_amplified_deviations(x: Ragged) -> None:
    """prime = leave_one_out + (r_it - m_i) / (n - 1)."""
    size_B = (x.group_B[:, None] == x.group_B[None, :]).sum(1)
    deviation_BT = x.reward_BT - masked_mean(x.reward_BT, x.mask_BT, dim=1)[:, None]
    expected_BT = process_baseline(x.reward_BT, x.mask_BT, x.group_B, "leave_one_out")
    expected_BT = expected_BT + torch.where(x.mask_BT, deviation_BT / (size_B - 1)[:, None], 0.0)
    close(process_baseline(x.reward_BT, x.mask_BT, x.group_B, "prime"), expected_BT)


@given(x=ragged())
@QUICK
def test_process_return_of_a_response_grows_with_its_length(x: Ragged) -> None:
    """With discount 1 the first return is T_i (m_i - mean of the others' m_j), for both leave-one-out baselines."""
    mean = [float(row[kept].mean()) for row, kept in zip(x.reward_BT, x.mask_BT, strict=True)]
    for baseline in ("leave_one_out", "prime"):
        left_BT = process_baseline(x.reward_BT, x.mask_BT, x.group_B, baseline)
        return_BT = discounted_return(left_BT, x.mask_BT)
        for i, kept in enumerate(x.mask_BT):
            others = [mean[j] for j in range(len(mean)) if j != i and x.group_B[j] == x.group_B[i]]
            first = float(return_BT[i][kept][0])
            assert first == pytest.approx(int(kept.sum()) * (mean[i] - sum(others) / len(others)), abs=1e-12)


@pytest.mark.parametrize("baseline", ["prime", "leave_one_out"])
def test_baselines_from_siblings_refuse_a_group_of_one(baseline: str) -> None:
    with pytest.raises(ValueError, match="needs at least 2 samples per prompt, found a group of 1"):
        process_baseline(REWARD_BT, MASK_BT, torch.tensor([0, 0, 1]), baseline)


def test_rloo_refuses_a_group_of_one() -> None:
    with pytest.raises(ValueError, match="needs at least 2 samples per prompt, found a group of 1"):
        outcome_advantage(OUTCOME_B, torch.tensor([0, 0, 1, 2, 1]), "rloo")


def test_missing_or_unknown_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="remax needs the reward of a greedy response for each row"):
        outcome_advantage(OUTCOME_B, GROUP_B, "remax")
    with pytest.raises(ValueError, match="no outcome advantage named 'a2c'"):
        outcome_advantage(OUTCOME_B, GROUP_B, "a2c")
    with pytest.raises(ValueError, match="no process baseline named 'median'"):
        process_baseline(REWARD_BT, MASK_BT, SIBLINGS_B, "median")
