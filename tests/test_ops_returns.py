"""Returns-to-go and generalised advantage estimation: derived numbers, and the sums of their definitions."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st
from strategies import QUICK, Ragged, ragged
from torch import Tensor

from prmkit.ops.returns import discounted_return, gae

# Row 0 answers after one prompt token, row 1 at once and shortly.
REWARD_BT = torch.tensor([[0.0, 1.0, 2.0, 4.0], [3.0, 5.0, 0.0, 0.0]], dtype=torch.float64)
MASK_BT = torch.tensor([[False, True, True, True], [True, True, False, False]])
VALUE_BT = torch.tensor([[9.0, 1.0, 3.0, 2.0], [4.0, 1.0, 9.0, 9.0]], dtype=torch.float64)

discounts = st.sampled_from([0.0, 0.3, 0.9, 1.0])


def close(actual: Tensor, expected: object) -> None:
    torch.testing.assert_close(actual, torch.as_tensor(expected, dtype=actual.dtype), rtol=1e-6, atol=1e-12)


def test_undiscounted_return() -> None:
    # row 0: 4; 2 + 4 = 6; 1 + 6 = 7; the prompt token has none. row 1: 5; 3 + 5 = 8
    close(discounted_return(REWARD_BT, MASK_BT), [[0.0, 7.0, 6.0, 4.0], [8.0, 5.0, 0.0, 0.0]])


def test_discounted_return() -> None:
    # row 0: 4; 2 + 4 / 2 = 4; 1 + 4 / 2 = 3. row 1: 5; 3 + 5 / 2 = 5.5
    close(discounted_return(REWARD_BT, MASK_BT, 0.5), [[0.0, 3.0, 4.0, 4.0], [5.5, 5.0, 0.0, 0.0]])


def test_discount_0_leaves_the_rewards() -> None:
    close(discounted_return(REWARD_BT, MASK_BT, 0.0), REWARD_BT)


def test_gae() -> None:
    # discount 1/2, lambda 1/2; values off the mask are not seen, and V after the last token is 0.
    # row 0: delta = 1 + 3/2 - 1 = 1.5; 2 + 2/2 - 3 = 0; 4 + 0 - 2 = 2
    #        A = 2; 0 + 2/4 = 0.5; 1.5 + 0.5/4 = 1.625
    # row 1: delta = 3 + 1/2 - 4 = -0.5; 5 - 1 = 4;  A = 4; -0.5 + 4/4 = 0.5
    close(gae(REWARD_BT, VALUE_BT, MASK_BT, 0.5, 0.5), [[0.0, 1.625, 0.5, 2.0], [0.5, 4.0, 0.0, 0.0]])


def test_gae_with_lambda_0_is_the_one_step_error() -> None:
    # the deltas of the test above
    close(gae(REWARD_BT, VALUE_BT, MASK_BT, 0.5, 0.0), [[0.0, 1.5, 0.0, 2.0], [-0.5, 4.0, 0.0, 0.0]])


@given(x=ragged(min_group=1), discount=discounts)
@QUICK
def test_gae_with_lambda_1_is_the_return_less_the_value(x: Ragged, discount: float) -> None:
    expected_BT = discounted_return(x.reward_BT, x.mask_BT, discount) - x.other_BT
    close(gae(x.reward_BT, x.other_BT, x.mask_BT, discount, 1.0), torch.where(x.mask_BT, expected_BT, 0.0))


@given(x=ragged(min_group=1), discount=discounts)
@QUICK
def test_return_is_the_sum_of_its_definition(x: Ragged, discount: float) -> None:
    for i, row in enumerate(discounted_return(x.reward_BT, x.mask_BT, discount).tolist()):
        kept = torch.nonzero(x.mask_BT[i]).flatten().tolist()
        for t in range(len(row)):
            terms = [discount ** (s - t) * float(x.reward_BT[i, s]) for s in kept if s >= t]
            assert abs(row[t] - (sum(terms) if t in kept else 0.0)) < 1e-12


@given(x=ragged(min_group=1), discount=discounts, gae_lambda=discounts)
@QUICK
def test_gae_is_the_sum_of_its_definition(x: Ragged, discount: float, gae_lambda: float) -> None:
    for i, row in enumerate(gae(x.reward_BT, x.other_BT, x.mask_BT, discount, gae_lambda).tolist()):
        kept = torch.nonzero(x.mask_BT[i]).flatten().tolist()
        delta = {}
        for t in kept:
            after = float(x.other_BT[i, t + 1]) if t + 1 in kept else 0.0
            delta[t] = float(x.reward_BT[i, t]) + discount * after - float(x.other_BT[i, t])
        for t in range(len(row)):
            terms = [(discount * gae_lambda) ** (s - t) * delta[s] for s in kept if s >= t]
            assert abs(row[t] - (sum(terms) if t in kept else 0.0)) < 1e-12
