"""Rollouts as tensors, and micro-batches that leave the loss as it is."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from strategies import QUICK, Ragged, ragged
from torch import Tensor

from prmkit.data.steps import split_lines
from prmkit.data.types import FinishReason, Group, Message, Prompt, Rollout, Verdict, Verified
from prmkit.ops.advantages import outcome_advantage
from prmkit.ops.batch import Batch, pack, take
from prmkit.ops.logprobs import token_logprobs
from prmkit.ops.masked import masked_sum
from prmkit.ops.policy_loss import clipped_policy_loss
from prmkit.ops.prm_loss import cross_entropy
from prmkit.ops.reduce import token_weights

OK = Verdict(status="ok", reward=1.0)


def member(
    *,
    prompt: tuple[int, ...] = (11, 12),
    tokens: tuple[int, ...] = (21, 22, 23),
    logprobs: tuple[float, ...] = (-0.5, -0.25, -0.125),
    ends: tuple[int, ...] = (2, 3, 3),
    text: str = "a\nb",
    finish: FinishReason = "stop",
    verdict: Verdict = OK,
) -> Verified:
    rollout = Rollout(
        prompt_id="sums/3",
        prompt_token_ids=prompt,
        token_ids=tokens,
        logprobs=logprobs,
        token_ends=ends,
        text=text,
        finish=finish,
    )
    return Verified(rollout=rollout, verdict=verdict)


def group(*members: Verified) -> Group[Verified]:
    prompt = Prompt(id="sums/3", messages=(Message(role="user", content="1+1=?"),), answer="2")
    return Group(prompt=prompt, members=members)


def two_groups() -> list[Group[Verified]]:
    """Two siblings of 3 and 1 tokens after a prompt of 2, and one response of 2 tokens after a prompt of 1."""
    cut = member(
        tokens=(24,), logprobs=(-1.5,), ends=(1,), text="a", finish="length", verdict=Verdict(status="ok", reward=0.0)
    )
    other = member(
        prompt=(13,),
        tokens=(25, 26),
        logprobs=(-2.0, 0.0),
        ends=(2, 4),
        text="x\ny\n",
        verdict=Verdict(status="ok", reward=0.25),
    )
    return [group(member(), cut), group(other)]


def test_pack() -> None:
    batch = pack(two_groups(), split_lines)
    # Widest row: 2 + 3 tokens. Text "a\nb": token 21 is "a\n" (step 0), 22 is "b" (step 1), 23 the end token (step 1).
    assert batch.token_BT.tolist() == [[11, 12, 21, 22, 23], [11, 12, 24, 0, 0], [13, 25, 26, 0, 0]]
    assert batch.length_B.tolist() == [5, 3, 3]
    assert batch.response_mask_BT.int().tolist() == [[0, 0, 1, 1, 1], [0, 0, 1, 0, 0], [0, 1, 1, 0, 0]]
    assert batch.step_BT.tolist() == [[-1, -1, 0, 1, 1], [-1, -1, 0, -1, -1], [-1, 0, 1, -1, -1]]
    assert batch.behaviour_logp_BT.tolist() == [
        [0.0, 0.0, -0.5, -0.25, -0.125],
        [0.0, 0.0, -1.5, 0.0, 0.0],
        [0.0, -2.0, 0.0, 0.0, 0.0],
    ]
    assert batch.outcome_B.tolist() == [1.0, 0.0, 0.25]
    assert batch.group_B.tolist() == [0, 0, 1]
    # the second is cut; the third stops without an end token: its last token is text
    assert batch.truncated_B.tolist() == [False, True, True]


def test_pack_gives_the_dtypes_that_the_batch_promises() -> None:
    batch = pack(two_groups(), split_lines)
    assert {f.name: getattr(batch, f.name).dtype for f in fields(batch)} == {
        "token_BT": torch.int64,
        "length_B": torch.int64,
        "response_mask_BT": torch.bool,
        "step_BT": torch.int64,
        "behaviour_logp_BT": torch.float32,
        "outcome_B": torch.float32,
        "group_B": torch.int64,
        "truncated_B": torch.bool,
    }


def test_groups_of_the_same_prompt_stay_apart() -> None:
    batch = pack([group(member()), group(member(), member())], split_lines)
    assert batch.group_B.tolist() == [0, 1, 1]


def test_a_response_without_tokens_is_an_empty_row() -> None:
    batch = pack([group(member(), member(tokens=(), logprobs=(), ends=(), text=""))], split_lines)
    assert batch.length_B.tolist() == [5, 2]
    assert not batch.response_mask_BT[1].any()
    assert batch.step_BT[1].tolist() == [-1] * 5


def test_a_response_without_text_is_step_0() -> None:
    batch = pack([group(member(tokens=(9,), logprobs=(-1.0,), ends=(0,), text=""))], split_lines)
    assert batch.step_BT.tolist() == [[-1, -1, 0]]


@pytest.mark.parametrize("status", ["unparsed", "timeout", "error"])
def test_pack_refuses_what_was_not_decided(status: str) -> None:
    undecided = Verdict(status=status, reward=None)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=rf"rollout of prompt 'sums/3' has no reward \({status}\)"):
        pack([group(member(), member(verdict=undecided))], split_lines)


@pytest.mark.parametrize("groups", [[], [group()]])
def test_pack_refuses_nothing(groups: list[Group[Verified]]) -> None:
    with pytest.raises(ValueError, match="pack needs at least one rollout"):
        pack(groups, split_lines)


def test_pack_refuses_logprobs_that_do_not_match_the_tokens() -> None:
    # A single log-prob would otherwise be spread over all tokens.
    with pytest.raises(ValueError, match="rollout of prompt 'sums/3' has 3 tokens, 1 logprobs and 3 token_ends"):
        pack([group(member(logprobs=(-0.5,)))], split_lines)


def test_take_cuts_to_the_longest_row_taken() -> None:
    batch = pack(two_groups(), split_lines)
    part = take(batch, torch.tensor([2, 1]))
    assert part.token_BT.tolist() == [[13, 25, 26], [11, 12, 24]]
    assert part.step_BT.tolist() == [[-1, 0, 1], [-1, -1, 0]]
    assert part.length_B.tolist() == [3, 3]
    assert part.group_B.tolist() == [1, 0]
    assert part.truncated_B.tolist() == [True, True]
    assert take(batch, torch.tensor([0, 1, 2])).token_BT.shape == (3, 5)


def test_take_of_one_row_gives_a_batch_of_one() -> None:
    part = take(pack(two_groups(), split_lines), torch.tensor([1]))
    alone = pack([group(two_groups()[0].members[1])], split_lines)
    for field in fields(part):
        assert torch.equal(getattr(part, field.name), getattr(alone, field.name)), field.name


@dataclass(frozen=True, kw_only=True)
class LossBatch(Batch):
    """A batch that carries what its losses need."""

    advantage_BT: Tensor
    weight_BT: Tensor
    weight_B: Tensor
    note: str


def loss_batch(x: Ragged, how: str, seed: int) -> LossBatch:
    generator = torch.Generator().manual_seed(seed)
    advantage_B = outcome_advantage(x.outcome_B, x.group_B, "rloo")
    return LossBatch(
        token_BT=torch.randint(0, 5, x.mask_BT.shape, generator=generator),
        length_B=(torch.arange(1, x.mask_BT.shape[1] + 1) * x.mask_BT).amax(1),
        response_mask_BT=x.mask_BT,
        step_BT=x.step_BT,
        behaviour_logp_BT=torch.where(x.mask_BT, -1.5 + 0.1 * x.other_BT, 0.0),
        outcome_B=x.outcome_B,
        group_B=x.group_B,
        truncated_B=torch.zeros(len(x.mask_BT), dtype=torch.bool),
        advantage_BT=x.mask_BT * advantage_B[:, None],
        weight_BT=token_weights(x.mask_BT, how, max_tokens=6),
        weight_B=torch.full((len(x.mask_BT),), 1 / len(x.mask_BT), dtype=torch.float64),
        note="kept as it is",
    )


def test_take_keeps_the_fields_of_a_larger_batch() -> None:
    whole = pack(two_groups(), split_lines)
    extra = {f.name: getattr(whole, f.name) for f in fields(whole)}
    weight_BT = token_weights(whole.response_mask_BT, "token_mean")
    batch = LossBatch(
        **extra, advantage_BT=weight_BT, weight_BT=weight_BT, weight_B=torch.tensor([1.0, 2.0, 3.0]), note="mine"
    )
    part = take(batch, torch.tensor([2]))
    assert isinstance(part, LossBatch)
    assert (part.weight_BT.shape, part.weight_B.tolist(), part.note) == ((1, 3), [3.0], "mine")


def losses(batch: LossBatch, embedding_VD: Tensor, head_VD: Tensor) -> Tensor:
    """Policy loss and PRM loss of a bigram model, summed with the weights that the batch carries."""
    before_BT = torch.cat([torch.zeros_like(batch.token_BT[:, :1]), batch.token_BT[:, :-1]], dim=1)
    mask_BT = batch.response_mask_BT
    logp_N, _ = token_logprobs(embedding_VD[before_BT[mask_BT]], head_VD, batch.token_BT[mask_BT])
    logp_BT = torch.zeros(mask_BT.shape, dtype=logp_N.dtype).masked_scatter(mask_BT, logp_N)
    loss_BT, _ = clipped_policy_loss(logp_BT, batch.behaviour_logp_BT, batch.advantage_BT, 0.2, 0.2)
    q_B = 0.05 * masked_sum(logp_BT - batch.behaviour_logp_BT, mask_BT, dim=1)
    return (batch.weight_BT * loss_BT).sum() + (batch.weight_B * cross_entropy(q_B, batch.outcome_B)).sum()


@given(
    x=ragged(),
    how=st.sampled_from(["token_mean", "seq_mean_token_mean", "seq_mean_token_sum", "seq_mean_token_sum_norm"]),
    data=st.data(),
)
@QUICK
def test_micro_batches_leave_the_loss_and_its_gradient_unchanged(x: Ragged, how: str, data: st.DataObject) -> None:
    batch = loss_batch(x, how, seed=1)
    generator = torch.Generator().manual_seed(2)
    leaves = [torch.randn(5, 3, generator=generator, dtype=torch.float64).requires_grad_() for _ in range(2)]
    loss = losses(batch, *leaves)
    grads = torch.autograd.grad(loss, leaves)

    order = data.draw(st.permutations(range(len(x.group_B))))
    size = data.draw(st.integers(1, len(order)))
    parts = [take(batch, torch.tensor(order[i : i + size])) for i in range(0, len(order), size)]
    parts = [replace(part, group_B=torch.zeros_like(part.group_B)) for part in parts]  # the losses need no siblings
    part_losses = [losses(part, *leaves) for part in parts]
    part_grads = [torch.autograd.grad(part_loss, leaves) for part_loss in part_losses]
    torch.testing.assert_close(torch.stack(part_losses).sum(), loss, rtol=1e-9, atol=1e-12)
    for i, grad in enumerate(grads):
        torch.testing.assert_close(sum(g[i] for g in part_grads), grad, rtol=1e-9, atol=1e-12)
