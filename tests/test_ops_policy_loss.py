"""Policy, KL and value losses: derived numbers, gradients, and what each KL estimator is good for."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from strategies import QUICK
from torch import Tensor

from prmkit.ops.policy_loss import clipped_policy_loss, clipped_value_loss, kl_estimate

OLD_LOGP_BT = torch.tensor([[-1.0, -2.0, -0.5], [-3.0, -0.25, -1.0]], dtype=torch.float64)
RATIO_BT = torch.tensor([[1.5, 0.5, 1.5], [0.5, 1.1, 1.5]], dtype=torch.float64)
ADVANTAGE_BT = torch.tensor([[2.0, 2.0, -2.0], [-2.0, 2.0, 0.0]], dtype=torch.float64)


def double(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def close(actual: Tensor, expected: object) -> None:
    torch.testing.assert_close(actual, torch.as_tensor(expected, dtype=actual.dtype), rtol=1e-6, atol=1e-12)


def test_clipped_policy_loss() -> None:
    # bounds 0.8 and 1.3
    # A = 2:  ratio 1.5: max(-3, -2 * 1.3) = -2.6, held; 0.5: max(-1, -2 * 0.8) = -1; 1.1: -2.2
    # A = -2: ratio 1.5: max(3, 2 * 1.3) = 3; 0.5: max(1, 2 * 0.8) = 1.6, held
    # A = 0:  0, and never held
    loss_BT, held_BT = clipped_policy_loss(OLD_LOGP_BT + RATIO_BT.log(), OLD_LOGP_BT, ADVANTAGE_BT, 0.2, 0.3)
    close(loss_BT, [[-2.6, -1.0, 3.0], [1.6, -2.2, 0.0]])
    assert held_BT.tolist() == [[True, False, False], [True, False, False]]


def test_the_gradient_is_minus_a_times_ratio_and_0_where_the_clip_holds() -> None:
    logp_BT = (OLD_LOGP_BT + RATIO_BT.log()).requires_grad_()
    loss_BT, held_BT = clipped_policy_loss(logp_BT, OLD_LOGP_BT, ADVANTAGE_BT, 0.2, 0.3)
    (grad_BT,) = torch.autograd.grad(loss_BT.sum(), logp_BT)
    close(grad_BT, [[0.0, -1.0, 3.0], [0.0, -2.2, 0.0]])
    assert not grad_BT[held_BT].any()


def test_on_policy_the_gradient_is_that_of_reinforce() -> None:
    logp_BT = OLD_LOGP_BT.clone().requires_grad_()
    loss_BT, _ = clipped_policy_loss(logp_BT, OLD_LOGP_BT, ADVANTAGE_BT, 0.2, 0.2)
    (grad_BT,) = torch.autograd.grad(loss_BT.sum(), logp_BT)
    close(grad_BT, -ADVANTAGE_BT)


def test_tokens_without_weight_get_exactly_no_gradient() -> None:
    weight_BT = double(0.5, 0.0, 0.25, 0.0, 0.0, 1.0).view(2, 3)
    logp_BT = (OLD_LOGP_BT + 0.05).requires_grad_()
    value_BT = (OLD_LOGP_BT + 0.05).requires_grad_()
    loss = (weight_BT * clipped_policy_loss(logp_BT, OLD_LOGP_BT, ADVANTAGE_BT - 3, 0.2, 0.2)[0]).sum()
    loss = loss + (weight_BT * clipped_value_loss(value_BT, OLD_LOGP_BT, ADVANTAGE_BT, 0.5)).sum()
    for grad_BT in torch.autograd.grad(loss, [logp_BT, value_BT]):
        assert not grad_BT[weight_BT == 0].any()
        assert bool((grad_BT[weight_BT > 0] != 0).all())


def test_losses_pass_gradcheck_away_from_their_kinks() -> None:
    def policy(logp_BT: Tensor, advantage_BT: Tensor) -> Tensor:
        return clipped_policy_loss(logp_BT, OLD_LOGP_BT, advantage_BT, 0.2, 0.3)[0]

    # No ratio at 0.8 or 1.3, no advantage at 0.
    logp_BT = (OLD_LOGP_BT + RATIO_BT.log()).requires_grad_()
    assert torch.autograd.gradcheck(policy, (logp_BT, (ADVANTAGE_BT + 0.5).requires_grad_()))
    for estimator in ("k1", "k2", "k3"):
        assert torch.autograd.gradcheck(lambda logp, name=estimator: kl_estimate(logp, OLD_LOGP_BT, name), (logp_BT,))
    # Values 3 and 1 beside an old value of 2 with clip 0.5, and 2.25 within it.
    value_B, old_B = double(3.0, 1.0, 2.25).requires_grad_(), double(2.0, 2.0, 2.0)
    assert torch.autograd.gradcheck(lambda value: clipped_value_loss(value, old_B, torch.zeros(3), 0.5), (value_B,))


def test_kl_estimates() -> None:
    # pi is 2x and 1/2 x as likely as the reference: d = log 2 and -log 2
    logp, reference = double(0.0, 0.0), double(-math.log(2), math.log(2))
    close(kl_estimate(logp, reference, "k1"), [0.6931471806, -0.6931471806])
    # d^2 / 2 = 0.4804530139 / 2
    close(kl_estimate(logp, reference, "k2"), [0.2402265070, 0.2402265070])
    # 1/2 - 1 + 0.6931471806 and 2 - 1 - 0.6931471806
    close(kl_estimate(logp, reference, "k3"), [0.1931471806, 0.3068528194])


def _distributions() -> tuple[Tensor, Tensor]:
    logits_V = double(0.3, -1.0, 0.8, 0.0).requires_grad_()
    return logits_V, double(1.0, 0.5, -0.5, 0.2).log_softmax(-1)


@pytest.mark.parametrize("estimator", ["k1", "k3"])
def test_k1_and_k3_have_the_kl_as_their_mean(estimator: str) -> None:
    """Over a whole vocabulary the expectation is a sum: sum_v pi_v k(v) = sum_v pi_v (log pi_v - log ref_v)."""
    logits_V, reference_V = _distributions()
    logp_V = logits_V.log_softmax(-1)
    kl = (logp_V.exp() * (logp_V - reference_V)).sum()
    close((logp_V.exp() * kl_estimate(logp_V, reference_V, estimator)).sum(), kl)


def test_expected_gradients_of_the_kl_estimates_as_losses() -> None:
    """k2: that of the KL itself. k1: none, so it cannot be a loss."""
    logits_V, reference_V = _distributions()
    logp_V = logits_V.log_softmax(-1)
    sampled_V = logp_V.exp().detach()
    (kl_grad_V,) = torch.autograd.grad((logp_V.exp() * (logp_V - reference_V)).sum(), logits_V, retain_graph=True)
    grads = {}
    for estimator in ("k1", "k2"):
        expected = (sampled_V * kl_estimate(logp_V, reference_V, estimator)).sum()
        (grads[estimator],) = torch.autograd.grad(expected, logits_V, retain_graph=True)
    assert bool((kl_grad_V.abs() > 1e-3).all())
    close(grads["k2"], kl_grad_V)
    close(grads["k1"], torch.zeros(4))


@given(difference=st.floats(-20, 20))
@QUICK
def test_k3_is_never_negative(difference: float) -> None:
    assert float(kl_estimate(double(difference), double(0.0), "k3")) >= -1e-15  # one rounding of numbers around 1


def test_value_loss() -> None:
    # old value 2, clip 0.5, return 0:
    # V = 3: clipped 2.5, 0.5 * max(9, 6.25) = 4.5; V = 1: clipped 1.5, 0.5 * max(1, 2.25) = 1.125;
    # V = 2.25 is not clipped: 0.5 * 5.0625
    value_B = double(3.0, 1.0, 2.25)
    close(clipped_value_loss(value_B, torch.full_like(value_B, 2.0), torch.zeros(3), 0.5), [4.5, 1.125, 2.53125])


def test_unknown_estimators_are_refused() -> None:
    with pytest.raises(ValueError, match="KL estimator must be k1, k2 or k3, got 'k4'"):
        kl_estimate(OLD_LOGP_BT, OLD_LOGP_BT, "k4")
