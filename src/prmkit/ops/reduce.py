"""How token losses become one number: as weights, fixed for the whole mini-batch before the first backward pass.

A loss is sum(weight_BT * loss_BT). Because the weights are made from the global counts, cutting the mini-batch into
micro-batches, padding it or spreading it over ranks cannot change the loss.
"""

from __future__ import annotations

from torch import Tensor


def token_weights(mask_BT: Tensor, how: str, max_tokens: int | None = None) -> Tensor:
    """float32 weights, 0 off the mask. N sequences with T_i kept tokens each:

    token_mean: 1 / sum_i T_i                    every token counts the same (DAPO)
    seq_mean_token_mean: 1 / (N * T_i)           every sequence counts the same (GRPO; PRIME's released run, whose
                                                 micro-batch of one makes its token mean a sequence mean)
    seq_mean_token_sum: 1 / N                    long answers count more
    seq_mean_token_sum_norm: 1 / (N * max_tokens)    Dr. GRPO (arXiv:2503.20783): a constant in place of the length
    """
    mask_BT = mask_BT.float()
    length_B = mask_BT.sum(1, keepdim=True)
    num_sequences = (length_B > 0).sum().clamp(min=1)
    match how:
        case "token_mean":
            return mask_BT / mask_BT.sum().clamp(min=1)
        case "seq_mean_token_mean":
            return mask_BT / (length_B.clamp(min=1) * num_sequences)
        case "seq_mean_token_sum":
            return mask_BT / num_sequences
        case "seq_mean_token_sum_norm":
            if not max_tokens:
                raise ValueError("seq_mean_token_sum_norm needs max_tokens, the longest response allowed")
            return mask_BT / (num_sequences * max_tokens)
    raise ValueError(
        f"reduce must be token_mean, seq_mean_token_mean, seq_mean_token_sum or seq_mean_token_sum_norm, got {how!r}"
    )
