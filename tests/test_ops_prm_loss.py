"""Losses of the implicit PRM: derived numbers, gradients, and the loops over siblings that they stand for."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from strategies import QUICK, Ragged, ragged
from torch import Tensor

from prmkit.ops.prm_loss import (
    best_of_n_weight,
    cross_entropy,
    group_log_odds,
    margin_loss,
    opponent_mean,
    pairwise_accuracy,
)

# Rows 0, 1, 3 and 5 are siblings; rows 2 and 4, of another prompt, are both right.
GROUP_B = torch.tensor([9, 9, 2, 9, 2, 9])
OUTCOME_B = torch.tensor([1.0, 0.0, 1.0, 0.5, 1.0, 0.0], dtype=torch.float64)
Q_B = torch.tensor([4.0, 1.0, 7.0, 2.0, 8.0, 3.0], dtype=torch.float64)


def double(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def close(actual: Tensor, expected: object) -> None:
    torch.testing.assert_close(actual, torch.as_tensor(expected, dtype=actual.dtype), rtol=1e-6, atol=0.0)


def test_cross_entropy() -> None:
    # sigmoid(log 3) = 3/4: -log(3/4) for outcome 1, -log(1/4) for 0, half of each for 1/2; sigmoid(0) = 1/2: log 2 always
    right, wrong = math.log(4 / 3), math.log(4)
    q_B = double(math.log(3), math.log(3), math.log(3), 0.0, 0.0)
    close(
        cross_entropy(q_B, double(1.0, 0.0, 0.5, 1.0, 0.25)),
        [right, wrong, (right + wrong) / 2, math.log(2), math.log(2)],
    )


def test_cross_entropy_does_not_overflow() -> None:
    # log(1 + exp(1000)) = 1000, and log(1 + exp(-1000)) = 0; as probabilities both would be log(0)
    close(cross_entropy(double(1000.0, -1000.0, 1000.0), double(0.0, 0.0, 1.0)), [1000.0, 0.0, 0.0])


def test_cross_entropy_pulls_by_the_error_of_the_probability() -> None:
    # d/dQ = sigmoid(Q) - outcome: 3/4 - 1, 3/4 - 0, 3/4 - 1/2
    q_B = double(math.log(3), math.log(3), math.log(3)).requires_grad_()
    (grad_B,) = torch.autograd.grad(cross_entropy(q_B, double(1.0, 0.0, 0.5)).sum(), q_B)
    close(grad_B, [-0.25, 0.75, 0.25])


def test_margin_loss() -> None:
    # -log sigmoid(+-log 3) = log(4/3) or log 4. Right: Q - Qbar; wrong: Qbar - Q; an outcome above 0 counts as right
    three = math.log(3)
    q_B, opponent_B = double(three, 0.0, 0.0, three), double(0.0, three, three, 0.0)
    right, wrong = math.log(4 / 3), math.log(4)
    close(margin_loss(q_B, opponent_B, double(1.0, 1.0, 0.0, 0.25)), [right, wrong, right, right])


def test_losses_pass_gradcheck() -> None:
    q_B = Q_B.clone().sub_(3.5).requires_grad_()
    assert torch.autograd.gradcheck(lambda q: cross_entropy(q, OUTCOME_B), (q_B,))
    assert torch.autograd.gradcheck(lambda q: margin_loss(q, Q_B.flip(0) - 4, OUTCOME_B), (q_B,))


def test_opponent_mean() -> None:
    # row 0 (1): all the others are lower: (1 + 2 + 3)/3 = 2; row 3 (0.5): rows 1 and 5: (1 + 3)/2 = 2
    # rows 1 and 5 (0): rows 0 and 3 are higher: (4 + 2)/2 = 3; rows 2 and 4 have no opponent
    close(opponent_mean(Q_B, OUTCOME_B, GROUP_B), [2.0, 3.0, 0.0, 2.0, 0.0, 3.0])


def test_group_log_odds() -> None:
    # 1 + 0 + 0.5 + 0 of 4: p = 2/5, odds 2/3; 2 of 2: p = 2.5/3, odds 5
    four, two = math.log(2 / 3), math.log(5)
    close(group_log_odds(OUTCOME_B, GROUP_B), [four, four, two, four, two, four])


def test_group_log_odds_are_finite_and_odd_in_the_outcome() -> None:
    # none of 3: p = 0.5/4, odds 1/7; all of 3: 7; so for outcomes turned round the sign turns
    group_B = torch.zeros(3, dtype=torch.long)
    close(group_log_odds(double(0.0, 0.0, 0.0), group_B), [-math.log(7)] * 3)
    close(group_log_odds(1 - OUTCOME_B, GROUP_B), -group_log_odds(OUTCOME_B, GROUP_B))


def test_best_of_n_weight() -> None:
    # n = 4: by outcome 4 of 4, 2 of 4, 3 of 4, 2 of 4 are at most as good: 4 * 1, 4 / 8, 4 * 27/64, 4 / 8
    # n = 2, both equal: 2 * 1
    close(best_of_n_weight(OUTCOME_B, GROUP_B), [4.0, 0.5, 2.0, 1.6875, 2.0, 0.5])
    # by Q: 4 of 4, 1 of 4, 2 of 4, 3 of 4; the others 1 of 2 and 2 of 2: 2 * 1/2
    close(best_of_n_weight(Q_B, GROUP_B), [4.0, 0.0625, 1.0, 0.5, 2.0, 1.6875])


def test_a_single_response_has_weight_1() -> None:
    close(best_of_n_weight(double(0.3), torch.tensor([4])), [1.0])


def test_pairwise_accuracy() -> None:
    # pairs that differ: 1 > 0 twice (gap 1, Q 4 > 1 and 4 > 3), 1 > 0.5 (gap 0.5, 4 > 2), 0.5 > 0 twice (gap 0.5, 2 > 1 but
    # 2 < 3): (1 + 1 + 0.5 + 0.5)/(1 + 1 + 0.5 + 0.5 + 0.5) = 6/7
    close(pairwise_accuracy(Q_B, OUTCOME_B, GROUP_B), 6 / 7)


def test_equal_scores_count_half() -> None:
    close(pairwise_accuracy(torch.zeros(6, dtype=torch.float64), OUTCOME_B, GROUP_B), 0.5)


def test_without_a_pair_to_order_accuracy_is_a_half() -> None:
    accuracy = pairwise_accuracy(Q_B, torch.ones(6, dtype=torch.float64), GROUP_B)
    assert (float(accuracy), accuracy.dtype) == (0.5, torch.float64)


@given(x=ragged(min_group=1))
@QUICK
def test_vectorised_is_the_loop_over_siblings(x: Ragged) -> None:
    q, outcome, group = x.score_B.tolist(), x.outcome_B.tolist(), x.group_B.tolist()
    opponent, weight, right, total = [], [], 0.0, 0.0
    for i in range(len(q)):
        siblings = [j for j in range(len(q)) if group[j] == group[i]]
        better = [q[j] for j in siblings if (outcome[j] < outcome[i] if outcome[i] > 0 else outcome[j] > outcome[i])]
        opponent.append(sum(better) / len(better) if better else 0.0)
        n = len(siblings)
        weight.append(n * (sum(q[j] <= q[i] for j in siblings) / n) ** (n - 1))
        for j in siblings:
            if outcome[i] > outcome[j]:
                gap = outcome[i] - outcome[j]
                total += gap
                right += gap * (1.0 if q[i] > q[j] else 0.5 if q[i] == q[j] else 0.0)
    assert opponent_mean(x.score_B, x.outcome_B, x.group_B).tolist() == pytest.approx(opponent, rel=1e-9, abs=1e-12)
    assert best_of_n_weight(x.score_B, x.group_B).tolist() == pytest.approx(weight, rel=1e-6)  # counts are float32
    expected = right / total if total else 0.5
    assert float(pairwise_accuracy(x.score_B, x.outcome_B, x.group_B)) == pytest.approx(expected, rel=1e-9)
