"""Masked reductions and reductions over siblings: derived numbers."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from prmkit.ops.groups import group_mean, group_size, group_std, group_sum, others_mean
from prmkit.ops.masked import masked_mean, masked_sum, whiten

VALUE_BT = torch.tensor([[1.0, 2.0, 9.0], [6.0, 9.0, 9.0]], dtype=torch.float64)
MASK_BT = torch.tensor([[True, True, False], [True, False, False]])
# Rows 0, 2 and 3 are siblings (label 5), so are rows 1 and 4 (label -1).
GROUP_B = torch.tensor([5, -1, 5, 5, -1])
REWARD_B = torch.tensor([1.0, 4.0, 2.0, 6.0, 8.0], dtype=torch.float64)


def close(actual: Tensor, expected: object) -> None:
    torch.testing.assert_close(actual, torch.as_tensor(expected, dtype=actual.dtype), rtol=1e-6, atol=0.0)


def test_masked_sum() -> None:
    # row 0: 1 + 2 = 3; row 1: 6; all: 9; column 0: 1 + 6 = 7, column 1: 2, column 2: nothing
    close(masked_sum(VALUE_BT, MASK_BT), 9.0)
    close(masked_sum(VALUE_BT, MASK_BT, dim=1), [3.0, 6.0])
    close(masked_sum(VALUE_BT, MASK_BT, dim=0), [7.0, 2.0, 0.0])


def test_masked_mean() -> None:
    # all: (1 + 2 + 6) / 3 = 3, not the mean of row means (1.5 + 6) / 2; rows: 3 / 2 and 6 / 1
    close(masked_mean(VALUE_BT, MASK_BT), 3.0)
    close(masked_mean(VALUE_BT, MASK_BT, dim=1), [1.5, 6.0])
    close(masked_mean(VALUE_BT, MASK_BT, dim=0), [3.5, 2.0, 0.0])


def test_whiten_uses_the_unbiased_variance_of_the_kept_tokens() -> None:
    # kept 1, 2, 6: mean 3, deviations -2, -1, 3, squares 4 + 1 + 9 = 14, variance 14 / 2 = 7 (eps 1e-8 is below 1e-8 of it)
    close(whiten(VALUE_BT, MASK_BT), [[-2 / 7**0.5, -1 / 7**0.5, 0.0], [3 / 7**0.5, 0.0, 0.0]])


def test_whiten_adds_eps_to_the_variance() -> None:
    # variance 7 and eps 2 under the root: sqrt(9) = 3
    close(whiten(VALUE_BT, MASK_BT, eps=2.0), [[-2 / 3, -1 / 3, 0.0], [1.0, 0.0, 0.0]])


def test_whitening_one_token_gives_0() -> None:
    close(whiten(VALUE_BT, torch.tensor([[False, True, False], [False, False, False]])), torch.zeros(2, 3))


def test_masked_tokens_get_no_gradient_even_where_they_are_not_finite() -> None:
    value_BT = torch.tensor([[1.0, 2.0, math.inf], [6.0, math.nan, 9.0]], dtype=torch.float64, requires_grad=True)
    for function in (masked_sum, masked_mean, lambda v, m: whiten(v, m).square().square().sum()):
        (grad_BT,) = torch.autograd.grad(function(value_BT, MASK_BT), value_BT)
        assert bool(torch.isfinite(grad_BT).all())
        assert not grad_BT[~MASK_BT].any()
        assert bool((grad_BT[MASK_BT] != 0).all())


def test_group_reductions() -> None:
    # label 5: 1 + 2 + 6 = 9, mean 3, squared deviations 4 + 1 + 9 = 14, std sqrt(14 / 2)
    # label -1: 4 + 8 = 12, mean 6, squared deviations 4 + 4 = 8, std sqrt(8 / 1)
    close(group_sum(REWARD_B, GROUP_B), [9.0, 12.0, 9.0, 9.0, 12.0])
    close(group_size(GROUP_B), [3.0, 2.0, 3.0, 3.0, 2.0])
    close(group_mean(REWARD_B, GROUP_B), [3.0, 6.0, 3.0, 3.0, 6.0])
    close(group_std(REWARD_B, GROUP_B), [7**0.5, 8**0.5, 7**0.5, 7**0.5, 8**0.5])
    # row 0: (2 + 6) / 2; row 1: 8; row 2: (1 + 6) / 2; row 3: (1 + 2) / 2; row 4: 4
    close(others_mean(REWARD_B, GROUP_B), [4.0, 8.0, 3.5, 1.5, 4.0])


def test_a_group_of_one_has_no_spread() -> None:
    close(group_std(torch.tensor([3.0, 5.0]), torch.tensor([0, 1])), [0.0, 0.0])


def test_no_rows_are_no_error() -> None:
    empty_B, no_group_B = torch.zeros(0), torch.zeros(0, dtype=torch.long)
    for function in (group_sum, group_mean, group_std, others_mean):
        assert function(empty_B, no_group_B).shape == (0,)


def test_group_means_of_equal_float32_values_are_exact() -> None:
    # 0.9 is no binary fraction: summed 16 times in float32 and divided by 16 it comes out one unit in the last place off.
    reward_B, group_B = torch.full((16,), 0.9), torch.zeros(16, dtype=torch.long)
    assert torch.equal(group_mean(reward_B, group_B), reward_B)
    assert torch.equal(others_mean(reward_B, group_B), reward_B)
    assert not group_std(reward_B, group_B).any()


@pytest.mark.parametrize("function", [group_sum, group_mean, group_std, others_mean])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_group_reductions_keep_the_dtype(function: Callable[[Tensor, Tensor], Tensor], dtype: torch.dtype) -> None:
    assert function(REWARD_B.to(dtype), GROUP_B).dtype == dtype


def test_leave_one_out_refuses_a_group_of_one() -> None:
    message = (
        r"needs at least 2 samples per prompt, found a group of 1; raise group_size or use the advantage `reinforce`"
    )
    with pytest.raises(ValueError, match=message):
        others_mean(torch.tensor([1.0, 0.0, 1.0]), torch.tensor([0, 0, 1]))


def test_group_means_pass_gradients_to_every_sibling() -> None:
    # d/dv sum_i i * others_mean_i for rows 0, 1, 2 of one group with weights 1, 2, 4: row k gets the others' weights / 2
    value_B = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    weight_B = torch.tensor([1.0, 2.0, 4.0], dtype=torch.float64)
    (grad_B,) = torch.autograd.grad((weight_B * others_mean(value_B, torch.tensor([8, 8, 8]))).sum(), value_B)
    close(grad_B, [3.0, 2.5, 1.5])
