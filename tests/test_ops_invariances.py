"""What must not change a result: padding, values off the mask, row order, labels, and the other groups of the batch."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from strategies import QUICK, Ragged, ragged
from torch import Tensor

from prmkit.ops.advantages import outcome_advantage, position_baseline, process_baseline
from prmkit.ops.groups import group_mean, group_size, group_std, group_sum, others_mean
from prmkit.ops.masked import masked_mean, masked_sum, whiten
from prmkit.ops.prm_loss import best_of_n_weight, group_log_odds, opponent_mean, pairwise_accuracy
from prmkit.ops.reduce import token_weights
from prmkit.ops.returns import discounted_return, gae
from prmkit.ops.rewards import at_last_token, by_granularity, implicit_reward, normaliser_scale, step_sums

Function = Callable[[Ragged], Tensor]

ROWWISE: dict[str, Function] = {  # a row's result depends on that row alone
    "masked_sum": lambda x: masked_sum(x.reward_BT, x.mask_BT, dim=1),
    "masked_mean": lambda x: masked_mean(x.reward_BT, x.mask_BT, dim=1),
    "implicit_reward": lambda x: implicit_reward(x.reward_BT, x.other_BT, x.mask_BT, 0.05),
    "implicit_reward, no reference": lambda x: implicit_reward(x.reward_BT, None, x.mask_BT, 0.05),
    "at_last_token": lambda x: at_last_token(x.outcome_B, x.mask_BT),
    "granularity step": lambda x: by_granularity(x.reward_BT, x.step_BT, x.mask_BT, "step"),
    "granularity whole": lambda x: by_granularity(x.reward_BT, x.step_BT, x.mask_BT, "whole"),
    "return": lambda x: discounted_return(x.reward_BT, x.mask_BT),
    "discounted return": lambda x: discounted_return(x.reward_BT, x.mask_BT, 0.9),
    "return with discount 0": lambda x: discounted_return(x.reward_BT, x.mask_BT, 0.0),
    "gae": lambda x: gae(x.reward_BT, x.other_BT, x.mask_BT, 0.9, 0.8),
    "no baseline": lambda x: process_baseline(x.reward_BT, x.mask_BT, x.group_B, "none"),
}
GROUPWISE: dict[str, Function] = {  # ... on its group alone
    **{
        f"process {name}": lambda x, name=name: process_baseline(x.reward_BT, x.mask_BT, x.group_B, name)
        for name in ("prime", "leave_one_out", "group", "group_std")
    },
    "position_baseline": lambda x: position_baseline(x.reward_BT, x.mask_BT, x.group_B),
    **{
        f"outcome {name}": lambda x, name=name: outcome_advantage(x.outcome_B, x.group_B, name, x.score_B)
        for name in ("rloo", "grpo", "dr_grpo", "reinforce", "reinforce_pp", "remax")
    },
    "group_sum": lambda x: group_sum(x.score_B, x.group_B),
    "group_mean": lambda x: group_mean(x.score_B, x.group_B),
    "group_std": lambda x: group_std(x.score_B, x.group_B),
    "group_size": lambda x: group_size(x.group_B),
    "others_mean": lambda x: others_mean(x.score_B, x.group_B),
    "opponent_mean": lambda x: opponent_mean(x.score_B, x.outcome_B, x.group_B),
    "group_log_odds": lambda x: group_log_odds(x.outcome_B, x.group_B),
    "best_of_n_weight": lambda x: best_of_n_weight(x.score_B, x.group_B),
}
BATCHWISE: dict[str, Function] = {  # ... on the whole batch
    "whiten": lambda x: whiten(x.reward_BT, x.mask_BT),
    **{
        f"weights {name}": lambda x, name=name: token_weights(x.mask_BT, name, max_tokens=6)
        for name in ("token_mean", "seq_mean_token_mean", "seq_mean_token_sum", "seq_mean_token_sum_norm")
    },
}
SCALAR: dict[str, Function] = {
    "total sum": lambda x: masked_sum(x.reward_BT, x.mask_BT),
    "total mean": lambda x: masked_mean(x.reward_BT, x.mask_BT),
    "max_return": lambda x: normaliser_scale(x.reward_BT, x.mask_BT, "max_return"),
    "std": lambda x: normaliser_scale(x.reward_BT, x.mask_BT, "std", floor=0.1),
    "pairwise_accuracy": lambda x: pairwise_accuracy(x.score_B, x.outcome_B, x.group_B),
}
PER_ROW = {**ROWWISE, **GROUPWISE, **BATCHWISE}
EVERY = {**PER_ROW, **SCALAR}


def close(actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(actual, expected, rtol=1e-9, atol=1e-12)


@given(x=ragged(), extra=st.integers(1, 3))
@QUICK
def test_padding_on_the_right_changes_nothing(x: Ragged, extra: int) -> None:
    T = x.mask_BT.shape[1]
    for function in EVERY.values():
        actual, expected = function(x.padded(extra)), function(x)
        if expected.ndim == 2:
            assert not actual[:, T:].any()
            actual = actual[:, :T]
        close(actual, expected)


@given(x=ragged())
@QUICK
def test_steps_have_the_same_sums_in_a_wider_batch(x: Ragged) -> None:
    close(step_sums(x.padded(2).reward_BT, x.padded(2).step_BT), step_sums(x.reward_BT, x.step_BT))


@given(x=ragged())
@QUICK
def test_values_off_the_mask_never_leak(x: Ragged) -> None:
    for function in EVERY.values():
        close(function(x.poisoned()), function(x))
    close(step_sums(x.poisoned().reward_BT, x.step_BT), step_sums(x.reward_BT, x.step_BT))


@given(x=ragged(), data=st.data())
@QUICK
def test_permuted_rows_give_permuted_results(x: Ragged, data: st.DataObject) -> None:
    order_B = torch.tensor(data.draw(st.permutations(range(len(x.group_B)))))
    for function in PER_ROW.values():
        close(function(x.rows(order_B)), function(x)[order_B])
    for function in SCALAR.values():
        close(function(x.rows(order_B)), function(x))


@given(x=ragged())
@QUICK
def test_groups_may_have_any_names(x: Ragged) -> None:
    renamed = x.relabelled(lambda group_B: torch.where(group_B % 2 == 0, -7 - group_B, group_B + 2**50))
    for function in EVERY.values():
        close(function(renamed), function(x))


@given(x=ragged())
@QUICK
def test_a_group_is_judged_without_the_other_groups(x: Ragged) -> None:
    row_B = torch.nonzero(x.group_B == x.group_B[0]).squeeze(1)
    for function in GROUPWISE.values():
        close(function(x.rows(row_B)), function(x)[row_B])


@given(x=ragged(min_group=1), data=st.data())
@QUICK
def test_a_batch_of_one_gives_the_row_that_it_has_among_others(x: Ragged, data: st.DataObject) -> None:
    row_B = torch.tensor([data.draw(st.integers(0, len(x.group_B) - 1))])
    for function in ROWWISE.values():
        close(function(x.rows(row_B)), function(x)[row_B])


@pytest.mark.parametrize("name", [*ROWWISE, *BATCHWISE, "process prime", "process leave_one_out", "process group"])
@given(x=ragged())
@QUICK
def test_an_empty_mask_gives_zeros(name: str, x: Ragged) -> None:
    result = PER_ROW[name](x.emptied().poisoned())
    assert not result.any()


@given(x=ragged())
@QUICK
def test_rewards_of_an_empty_mask_are_divided_by_something(x: Ragged) -> None:
    for how, scale in (("max_return", 1e-6), ("std", 1e-6), ("none", 1.0)):
        assert float(normaliser_scale(x.reward_BT, x.emptied().mask_BT, how)) == pytest.approx(scale, rel=1e-12)
    assert not position_baseline(x.reward_BT, x.emptied().mask_BT, x.group_B).any()
    assert not process_baseline(x.reward_BT, x.emptied().mask_BT, x.group_B, "group_std").any()
    assert step_sums(x.reward_BT, x.emptied().step_BT).shape == (len(x.group_B), 0)


@given(n=st.integers(2, 16), reward=st.floats(0, 1, width=32), estimator=st.sampled_from(["rloo", "grpo", "dr_grpo"]))
@QUICK
def test_equal_rewards_in_a_group_give_exactly_no_advantage(n: int, reward: float, estimator: str) -> None:
    reward_B, group_B = torch.full((n,), reward), torch.full((n,), 3)
    assert not outcome_advantage(reward_B, group_B, estimator).any()


@given(x=ragged())
@QUICK
def test_advantages_of_a_group_sum_to_zero(x: Ragged) -> None:
    for estimator in ("rloo", "grpo", "dr_grpo"):
        mean_B = group_mean(outcome_advantage(x.outcome_B, x.group_B, estimator), x.group_B)
        close(mean_B, torch.zeros_like(mean_B))


@given(x=ragged())
@QUICK
def test_process_rewards_less_a_baseline_have_no_mean_in_a_group(x: Ragged) -> None:
    """By response for leave-one-out (each response's mean counts once), by token for the group's baseline."""
    for baseline in ("prime", "leave_one_out"):
        left_BT = process_baseline(x.reward_BT, x.mask_BT, x.group_B, baseline)
        mean_B = group_mean(masked_mean(left_BT, x.mask_BT, dim=1), x.group_B)
        close(mean_B, torch.zeros_like(mean_B))
    for baseline in ("group", "group_std"):
        left_BT = process_baseline(x.reward_BT, x.mask_BT, x.group_B, baseline)
        total_B = group_sum(left_BT.sum(1), x.group_B)
        close(total_B, torch.zeros_like(total_B))
