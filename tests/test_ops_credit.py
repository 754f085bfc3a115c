"""Returns counted in steps, and advantages that change the tokens that carry them."""

from __future__ import annotations

import math

import pytest
import torch

from prmkit.ops.advantages import redistributed
from prmkit.ops.returns import discounted_return, step_return

STEP_BT = torch.tensor([[-1, 0, 0, 1, 1, 2], [-1, -1, 0, 0, 0, 1]])
MASK_BT = STEP_BT >= 0


def test_step_return_discounts_only_between_steps() -> None:
    reward_BT = torch.tensor([[9.0, 1, 2, 4, 0, 8], [9, 9, 1, 1, 1, 5]], dtype=torch.float64)
    # Row 0: step sums 3, 4, 8; discount 1/2: G2 = 8, G1 = 4 + 8/2 = 8, G0 = 3 + 8/2 = 7. Row 1: sums 3, 5: G1 = 5, G0 = 5.5.
    expected = torch.tensor([[0, 7, 7, 8, 8, 8], [0, 0, 5.5, 5.5, 5.5, 5]], dtype=torch.float64)
    torch.testing.assert_close(step_return(reward_BT, STEP_BT, 0.5), expected)


def test_step_return_at_discount_0_is_each_steps_own_sum() -> None:
    reward_BT = torch.tensor([[0.0, 1, 2, 4, 0, 8], [0, 0, 1, 1, 1, 5]])
    expected = torch.tensor([[0.0, 3, 3, 4, 4, 8], [0, 0, 3, 3, 3, 5]])
    torch.testing.assert_close(step_return(reward_BT, STEP_BT, 0.0), expected)


def test_step_return_without_discount_is_the_token_return_at_each_steps_first_token() -> None:
    reward_BT = torch.randn(2, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * MASK_BT
    token_BT = discounted_return(reward_BT, MASK_BT)
    step_BT = step_return(reward_BT, STEP_BT)
    for row, first in ((0, 1), (0, 3), (0, 5), (1, 2), (1, 5)):
        torch.testing.assert_close(step_BT[row, first], token_BT[row, first])


def test_step_return_of_no_response_is_zero() -> None:
    assert step_return(torch.ones(1, 3), torch.full((1, 3), -1)).tolist() == [[0, 0, 0]]


def test_redistributed_moves_blame_to_low_credit_and_praise_to_high() -> None:
    # Credits ln 3 and 0: softmax (3/4, 1/4), times T = 2: (1.5, 0.5). A negative advantage turns the signs of the credits.
    credit_BT = torch.tensor([[7.0, math.log(3), 0.0], [7.0, math.log(3), 0.0]], dtype=torch.float64)
    advantage_BT = torch.tensor([[0.0, 2.0, 2.0], [0.0, -2.0, -2.0]], dtype=torch.float64)
    mask_BT = torch.tensor([[False, True, True]] * 2)
    expected = torch.tensor([[0.0, 3.0, 1.0], [0.0, -1.0, -3.0]], dtype=torch.float64)
    torch.testing.assert_close(redistributed(advantage_BT, credit_BT, mask_BT), expected)


@pytest.mark.parametrize("credit", [0.0, -3.5, 40.0])
def test_equal_credit_changes_nothing(credit: float) -> None:
    advantage_BT = torch.tensor([[0.5, 0.5, 0.5, 0.0]], dtype=torch.float64)
    mask_BT = torch.tensor([[True, True, True, False]])
    credit_BT = torch.full((1, 4), credit, dtype=torch.float64)
    torch.testing.assert_close(redistributed(advantage_BT, credit_BT, mask_BT), advantage_BT)


def test_redistributed_keeps_signs_and_sums() -> None:
    generator = torch.Generator().manual_seed(1)
    credit_BT = torch.randn(5, 7, generator=generator, dtype=torch.float64)
    mask_BT = torch.arange(7) < torch.tensor([1, 3, 7, 4, 6])[:, None]
    advantage_BT = torch.randn(5, 1, generator=generator, dtype=torch.float64) * mask_BT
    result_BT = redistributed(advantage_BT, credit_BT, mask_BT)
    torch.testing.assert_close(result_BT.sum(1), advantage_BT.sum(1))
    assert bool((torch.sign(result_BT) == torch.sign(advantage_BT)).all())
