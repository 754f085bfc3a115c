"""Implicit process rewards: derived numbers, granularity, normalisers."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from strategies import QUICK, Ragged, ragged
from torch import Tensor

from prmkit.ops.rewards import (
    at_last_token,
    by_granularity,
    implicit_reward,
    last_token_mask,
    normaliser_scale,
    step_end_mask,
    step_sums,
)

MASK_BT = torch.tensor([[False, True, True, True], [True, True, False, False]])
STEP_BT = torch.tensor([[-1, 0, 0, 1], [0, 1, -1, -1]])
REWARD_BT = torch.tensor([[0.0, 1.0, -3.0, 0.5], [2.0, -0.5, 0.0, 0.0]], dtype=torch.float64)


def close(actual: Tensor, expected: object) -> None:
    torch.testing.assert_close(actual, torch.as_tensor(expected, dtype=actual.dtype), rtol=1e-6, atol=0.0)


def test_implicit_reward_is_beta_times_the_log_ratio_on_the_response() -> None:
    logp_BT = torch.tensor([[-1.0, -2.0, -0.5, -1.0], [-3.0, -1.0, -7.0, -7.0]], dtype=torch.float64)
    reference_BT = torch.tensor([[-9.0, -1.0, -2.5, -1.0], [-1.0, -4.0, -9.0, -9.0]], dtype=torch.float64)
    # row 0: 0.1 * (-2 + 1) = -0.1; 0.1 * (-0.5 + 2.5) = 0.2; 0. row 1: 0.1 * (-3 + 1) = -0.2; 0.1 * (-1 + 4) = 0.3
    close(implicit_reward(logp_BT, reference_BT, MASK_BT, 0.1), [[0.0, -0.1, 0.2, 0.0], [-0.2, 0.3, 0.0, 0.0]])
    # without a reference: 0.1 * log-prob
    close(implicit_reward(logp_BT, None, MASK_BT, 0.1), [[0.0, -0.2, -0.05, -0.1], [-0.3, -0.1, 0.0, 0.0]])


def test_implicit_reward_gives_masked_tokens_no_gradient() -> None:
    logp_BT = torch.full((2, 4), float("-inf"), dtype=torch.float64).masked_fill(MASK_BT, -1.0).requires_grad_()
    reward_BT = implicit_reward(logp_BT, torch.zeros_like(logp_BT), MASK_BT, 0.25)
    (grad_BT,) = torch.autograd.grad(reward_BT.sum(), logp_BT)
    close(grad_BT, 0.25 * MASK_BT.double())


def test_last_tokens_and_step_ends() -> None:
    assert last_token_mask(MASK_BT).tolist() == [[False, False, False, True], [False, True, False, False]]
    assert step_end_mask(STEP_BT).tolist() == [[False, False, True, True], [True, True, False, False]]


def test_the_outcome_sits_on_the_last_token() -> None:
    close(at_last_token(torch.tensor([0.25, 1.0]), MASK_BT), [[0.0, 0.0, 0.0, 0.25], [0.0, 1.0, 0.0, 0.0]])


def test_step_sums() -> None:
    # row 0: 1 - 3 = -2 and 0.5; row 1: 2 and -0.5
    close(step_sums(REWARD_BT, STEP_BT), [[-2.0, 0.5], [2.0, -0.5]])


def test_a_row_with_fewer_steps_is_filled_with_0() -> None:
    step_BT = torch.tensor([[-1, 0, 1, 2], [0, 0, -1, -1]])
    close(step_sums(REWARD_BT, step_BT), [[1.0, -3.0, 0.5], [1.5, 0.0, 0.0]])


def test_granularity() -> None:
    assert torch.equal(by_granularity(REWARD_BT, STEP_BT, MASK_BT, "token"), REWARD_BT)
    # steps: (1 - 3) on the second response token, 0.5 on the third; 2, then -0.5
    close(by_granularity(REWARD_BT, STEP_BT, MASK_BT, "step"), [[0.0, 0.0, -2.0, 0.5], [2.0, -0.5, 0.0, 0.0]])
    # whole: 1 - 3 + 0.5 = -1.5 and 2 - 0.5 = 1.5, on the last token
    close(by_granularity(REWARD_BT, STEP_BT, MASK_BT, "whole"), [[0.0, 0.0, 0.0, -1.5], [0.0, 1.5, 0.0, 0.0]])


def test_normalisers() -> None:
    # returns-to-go: row 0: -1.5, -2.5, 0.5; row 1: 1.5, -0.5. The largest in size is 2.5
    close(normaliser_scale(REWARD_BT, MASK_BT, "max_return"), 2.5 + 1e-6)
    # squares 2.25 + 6.25 + 0.25 + 2.25 + 0.25 = 11.25, over 5 tokens 2.25, root 1.5
    close(normaliser_scale(REWARD_BT, MASK_BT, "std"), 1.5 + 1e-6)
    close(normaliser_scale(REWARD_BT, MASK_BT, "none"), 1.0)


def test_the_floor_holds_the_normaliser_up() -> None:
    close(normaliser_scale(REWARD_BT, MASK_BT, "max_return", floor=4.0), 4.0 + 1e-6)
    close(normaliser_scale(REWARD_BT, MASK_BT, "max_return", floor=2.0), 2.5 + 1e-6)
    close(normaliser_scale(REWARD_BT, MASK_BT, "std", floor=1.75, eps=0.25), 2.0)


@given(x=ragged(min_group=1))
@QUICK
def test_returns_divided_by_the_largest_stay_within_1(x: Ragged) -> None:
    scale = float(normaliser_scale(x.reward_BT, x.mask_BT, "max_return"))
    largest = 0.0
    for i in range(len(x.mask_BT)):
        for t in torch.nonzero(x.mask_BT[i]).flatten().tolist():
            largest = max(largest, abs(float(x.reward_BT[i, t:][x.mask_BT[i, t:]].sum()) / scale))
    assert largest < 1.0
    assert largest == pytest.approx(1.0, rel=1e-2)  # the eps is 1e-6 of a scale that is seldom below 1e-4


@given(x=ragged(min_group=1))
@QUICK
def test_step_sums_are_the_loop_over_tokens(x: Ragged) -> None:
    num_steps = int(x.step_BT.max()) + 1
    expected = [[0.0] * num_steps for _ in x.step_BT]
    for i, row in enumerate(x.step_BT.tolist()):
        for t, step in enumerate(row):
            if step >= 0:
                expected[i][step] += float(x.reward_BT[i, t])
    torch.testing.assert_close(step_sums(x.reward_BT, x.step_BT), torch.tensor(expected, dtype=torch.float64))


@given(x=ragged(min_group=1), granularity=st.sampled_from(["token", "step", "whole"]))
@QUICK
def test_granularity_is_the_loop_over_tokens(x: Ragged, granularity: str) -> None:
    expected_BT = torch.zeros_like(x.reward_BT)
    for i in range(len(x.mask_BT)):
        carried = 0.0
        kept = torch.nonzero(x.mask_BT[i]).flatten().tolist()
        for t in kept:
            carried += float(x.reward_BT[i, t])
            last_of_step = t == kept[-1] or int(x.step_BT[i, t]) != int(x.step_BT[i, t + 1])
            if granularity == "token" or t == kept[-1] or (granularity == "step" and last_of_step):
                expected_BT[i, t], carried = carried, 0.0
    torch.testing.assert_close(by_granularity(x.reward_BT, x.step_BT, x.mask_BT, granularity), expected_BT)


@given(x=ragged(min_group=1))
@QUICK
def test_granularity_moves_rewards_but_keeps_each_response_total(x: Ragged) -> None:
    for granularity in ("token", "step", "whole"):
        moved_BT = by_granularity(x.reward_BT, x.step_BT, x.mask_BT, granularity)
        torch.testing.assert_close(moved_BT.sum(1), x.reward_BT.sum(1))


def test_unknown_names_are_refused() -> None:
    with pytest.raises(ValueError, match="granularity must be token, step or whole, got 'word'"):
        by_granularity(REWARD_BT, STEP_BT, MASK_BT, "word")
    with pytest.raises(ValueError, match="normaliser must be max_return, std or none, got 'batch_norm'"):
        normaliser_scale(REWARD_BT, MASK_BT, "batch_norm")
