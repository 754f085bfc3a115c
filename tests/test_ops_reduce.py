"""Weights of token losses: derived numbers and what each of them sums to."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from strategies import QUICK, Ragged, ragged
from torch import Tensor

from prmkit.ops.reduce import token_weights

# 3, 1 and 0 kept tokens: N = 2 sequences, 4 tokens.
MASK_BT = torch.tensor([[False, True, True, True], [True, False, False, False], [False] * 4])


@pytest.mark.parametrize(
    ("how", "long", "short"),
    [
        ("token_mean", 1 / 4, 1 / 4),
        ("seq_mean_token_mean", 1 / (2 * 3), 1 / (2 * 1)),
        ("seq_mean_token_sum", 1 / 2, 1 / 2),
        ("seq_mean_token_sum_norm", 1 / (2 * 5), 1 / (2 * 5)),
    ],
)
def test_weights(how: str, long: float, short: float) -> None:
    expected_BT = torch.tensor([[0.0, long, long, long], [short, 0.0, 0.0, 0.0], [0.0] * 4])
    torch.testing.assert_close(token_weights(MASK_BT, how, max_tokens=5), expected_BT, rtol=1e-6, atol=0.0)


@given(x=ragged(min_group=1))
@QUICK
def test_what_the_weights_sum_to(x: Ragged) -> None:
    def sums_B(how: str) -> Tensor:
        return token_weights(x.mask_BT, how, max_tokens=6).sum(1)

    B, length_B = len(x.mask_BT), x.mask_BT.sum(1).float()
    torch.testing.assert_close(sums_B("token_mean"), length_B / length_B.sum())
    torch.testing.assert_close(sums_B("seq_mean_token_mean"), torch.full((B,), 1 / B))
    torch.testing.assert_close(sums_B("seq_mean_token_sum"), length_B / B)
    torch.testing.assert_close(sums_B("seq_mean_token_sum_norm"), length_B / (6 * B))


@pytest.mark.parametrize("max_tokens", [None, 0])
def test_a_constant_length_must_be_given(max_tokens: int | None) -> None:
    with pytest.raises(ValueError, match="seq_mean_token_sum_norm needs max_tokens, the longest response allowed"):
        token_weights(MASK_BT, "seq_mean_token_sum_norm", max_tokens)


def test_unknown_names_are_refused() -> None:
    message = (
        "reduce must be token_mean, seq_mean_token_mean, seq_mean_token_sum or seq_mean_token_sum_norm, got 'mean'"
    )
    with pytest.raises(ValueError, match=message):
        token_weights(MASK_BT, "mean")
