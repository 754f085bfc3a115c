"""Rows that share a prompt are read as if each were read whole: the same outputs and gradients, with fewer tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from engine_models import random_model
from test_engine_plain import with_adapters
from torch import Tensor

from prmkit.config import OptimizerConfig
from prmkit.engines.local.language_model import LanguageModel
from prmkit.engines.local.learner import LocalLearner
from prmkit.engines.local.microbatches import Prompts, microbatches
from prmkit.engines.local.value_model import ValueModel, zero_head
from prmkit.ops.batch import Batch, LossSum, TokenOutputs

PROMPT_LENGTHS = (41, 30, 41)
ROWS_OF_PROMPT = (6, 4, 1)
RESPONSE_LENGTHS = (1, 7, 20, 3, 12, 20, 5, 31, 2, 9, 14)


def sibling_batch(gap: bool = False) -> Batch:
    """11 rows with 3 prompts, mixed; with `gap`, tokens in the midst of a response that are not its own (a tool's)."""
    generator = torch.Generator().manual_seed(0)
    prompts = [torch.randint(2, 19, (n,), generator=generator) for n in PROMPT_LENGTHS]
    of_row = [p for p, n in enumerate(ROWS_OF_PROMPT) for _ in range(n)]
    order = torch.randperm(len(of_row), generator=generator).tolist()
    rows = [
        (prompts[of_row[i]], torch.randint(1, 19, (length,), generator=generator))
        for i, length in zip(order, RESPONSE_LENGTHS, strict=True)
    ]
    width = max(len(prompt) + len(response) for prompt, response in rows)
    token_BT = torch.zeros(len(rows), width, dtype=torch.long)
    mask_BT = torch.zeros(len(rows), width, dtype=torch.bool)
    for i, (prompt, response) in enumerate(rows):
        token_BT[i, : len(prompt) + len(response)] = torch.cat([prompt, response])
        mask_BT[i, len(prompt) : len(prompt) + len(response)] = True
        if gap:
            mask_BT[i, len(prompt) + 2 : len(prompt) + 5] = False
    zeros_BT, zeros_B = torch.zeros(token_BT.shape), torch.zeros(len(rows))
    return Batch(
        token_BT=token_BT,
        length_B=torch.tensor([len(p) + len(r) for p, r in rows]),
        response_mask_BT=mask_BT,
        step_BT=mask_BT.long() - 1,
        behaviour_logp_BT=zeros_BT,
        outcome_B=zeros_B,
        group_B=torch.tensor([of_row[i] for i in order]),
        truncated_B=zeros_B.bool(),
    )


def alone(model: Any, batch: Batch, **options: Any) -> TokenOutputs:
    """Each row in a batch of its own, where nothing can be shared."""
    outputs = [model.outputs(one_row(batch, i), **options) for i in range(len(batch.length_B))]
    entropies = [o.entropy_BT for o in outputs if o.entropy_BT is not None]
    return TokenOutputs(
        output_BT=torch.cat([o.output_BT for o in outputs]), entropy_BT=torch.cat(entropies) if entropies else None
    )


def one_row(batch: Batch, i: int) -> Batch:
    return replace(batch, **{name: getattr(batch, name)[i : i + 1] for name in batch.__dataclass_fields__})


def gradients(model: Any, output_BT: Tensor) -> dict[str, Tensor]:
    weight_BT = torch.linspace(-1, 1, output_BT.numel()).view(output_BT.shape)
    parameters = dict(model.trainable())
    found = torch.autograd.grad((weight_BT * output_BT).sum(), list(parameters.values()), allow_unused=True)
    return {name: grad for name, grad in zip(parameters, found, strict=True) if grad is not None}


def tokens_read(model: LanguageModel, batch: Batch) -> int:
    """How many tokens the decoder is given for the batch, padding included."""
    seen: list[int] = []
    hook = model.causal_lm.get_input_embeddings().register_forward_hook(
        lambda _m, args, _o: seen.append(args[0].numel())
    )
    model.outputs(batch)
    hook.remove()
    return sum(seen)


@pytest.mark.parametrize("gap", [False, True])
@pytest.mark.parametrize(
    ("family", "adapters"),
    [("llama_biases", False), ("qwen2", False), ("qwen3", False), ("mistral", False), ("llama_scaled_rope", True)],
)
def test_outputs_and_gradients_are_those_of_rows_read_alone(family: str, adapters: bool, gap: bool) -> None:
    causal_lm, batch = random_model(family).double(), sibling_batch(gap)
    model = with_adapters(causal_lm) if adapters else LanguageModel(model=causal_lm)
    model.model.double()
    for _, parameter in model.trainable():
        parameter.requires_grad_(True)
    shared, single = model.outputs(batch, entropy=True), alone(model, batch, entropy=True)
    torch.testing.assert_close(shared.output_BT, single.output_BT, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(shared.entropy_BT, single.entropy_BT, rtol=1e-6, atol=1e-6)
    expected = gradients(model, single.output_BT)  # rounded: norms compute in float32 whatever the weights are in
    assert len(expected) > 8
    for name, grad in gradients(model, shared.output_BT).items():
        torch.testing.assert_close(grad, expected[name], rtol=1e-4, atol=1e-5, msg=lambda m, n=name: f"{n}: {m}")


def test_each_prompt_is_read_once() -> None:
    model, batch = LanguageModel(model=random_model()), sibling_batch()
    # Three prompts padded to 41; eleven responses padded to 31, the last token of which predicts nothing.
    assert tokens_read(model, batch) == 3 * 41 + 11 * 30
    different = replace(batch, token_BT=batch.token_BT.clone())
    different.token_BT[:, 0] = torch.arange(11) + 2
    assert tokens_read(model, different) == batch.token_BT.numel()


def test_values_are_shared_too() -> None:
    model = ValueModel(body=LanguageModel(model=random_model()), head=zero_head(32, torch.device("cpu")))
    torch.nn.init.normal_(model.head.weight)
    batch = sibling_batch()
    torch.testing.assert_close(model.outputs(batch).output_BT, alone(model, batch).output_BT, rtol=1e-5, atol=1e-5)


def test_responses_of_one_token() -> None:
    model, batch = LanguageModel(model=random_model()), sibling_batch()
    first = batch.response_mask_BT.int().argmax(1, keepdim=True)
    mask_BT = torch.zeros_like(batch.response_mask_BT).scatter(1, first, True)
    width = int(first.max()) + 1
    batch = replace(batch, token_BT=batch.token_BT[:, :width], response_mask_BT=mask_BT[:, :width])
    torch.testing.assert_close(model.outputs(batch).output_BT, alone(model, batch).output_BT, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("why", ["sliding window", "another family", "moving rope", "checkpointing", "little to save"])
def test_where_rows_are_read_whole(why: str) -> None:
    family = {"sliding window": "mistral_sliding", "another family": "gpt_neox"}.get(why, "llama")
    causal_lm, batch = random_model(family), sibling_batch()
    if why == "moving rope":
        causal_lm.config.rope_parameters["rope_type"] = "dynamic"
    if why == "checkpointing":
        causal_lm.gradient_checkpointing_enable()
        assert LanguageModel(model=causal_lm).shares_prompts  # it acts in train mode only
        causal_lm.train()
    if why == "little to save":  # prompts of 12, 1 and 12 tokens: 5 * 12 + 3 is less than two micro-batches may pad
        batch = replace(batch, token_BT=batch.token_BT[:, 29:], response_mask_BT=batch.response_mask_BT[:, 29:])
    model = LanguageModel(model=causal_lm)
    assert model.shares_prompts == (why == "little to save")
    if why != "moving rope":
        assert tokens_read(model, batch) == batch.token_BT.numel()


def test_a_row_without_a_prompt_keeps_the_others_from_sharing() -> None:
    model, batch = LanguageModel(model=random_model()), sibling_batch()
    mask_BT = batch.response_mask_BT.clone()
    mask_BT[3] = False
    assert tokens_read(model, replace(batch, response_mask_BT=mask_BT)) == batch.token_BT.numel()


def parts(lengths: Sequence[int], of_row: Sequence[int], prompt_lengths: Sequence[int], budget: int) -> list[list[int]]:
    prompts = Prompts(of_row=of_row, lengths=[prompt_lengths[p] for p in of_row])
    return [part.tolist() for part in microbatches(torch.tensor(lengths), budget, 10, prompts)]


def test_siblings_go_together_where_fewer_tokens_are_read_so() -> None:
    # Two prompts of 50 tokens; responses of 10 and 4. By length: [0, 2, 1, 3], 4 * 60 - 12 padded, which is beyond 10, so
    # [0, 2] and [1, 3] cost 10 + 2 * 60 and 10 + 2 * 54. Together: [0, 1] and [2, 3], 10 + 2 * 60 - 50 + 2 * 10 each.
    assert parts([60, 54, 60, 54], [0, 0, 1, 1], [50, 50], 120) == [[0, 1], [2, 3]]
    # With prompts of 30 tokens a part saves 30 - 20 by sharing and reads 6 more of padding: still fewer, 200 and not 216.
    assert parts([40, 34, 40, 34], [0, 0, 1, 1], [30, 30], 80) == [[0, 1], [2, 3]]
    # With 20 there is nothing to be had, and rows of one length stand together.
    assert parts([30, 24, 30, 24], [0, 0, 1, 1], [20, 20], 60) == [[0, 2], [1, 3]]


def test_every_row_is_in_one_part_within_the_budget() -> None:
    generator = torch.Generator().manual_seed(0)
    for trial in range(50):
        of_row = torch.randint(0, 5, (24,), generator=generator).tolist()
        prompt_lengths = torch.randint(1, 80, (5,), generator=generator).tolist()
        responses = torch.randint(1, 60, (24,), generator=generator).tolist()
        lengths = [prompt_lengths[p] + r for p, r in zip(of_row, responses, strict=True)]
        found = parts(lengths, of_row, prompt_lengths, budget=300)
        assert sorted(row for part in found for row in part) == list(range(24)), trial
        assert all(len(part) == 1 or len(part) * max(lengths[i] for i in part) <= 300 for part in found), trial


def test_an_update_does_not_depend_on_what_is_shared() -> None:
    batch = sibling_batch()

    def weights(train: bool) -> dict[str, Tensor]:
        causal_lm = random_model().train(train)  # in train mode rows are read whole; there is no dropout
        config = OptimizerConfig(learning_rate=1e-3, tokens_per_microbatch=300, eps=1e-3)
        learner = LocalLearner(LanguageModel(model=causal_lm), config, role="policy")
        learner.update([batch], lambda outputs, _: LossSum(loss=-outputs.output_BT.sum(), metrics={}))
        return dict(causal_lm.state_dict())

    torch.testing.assert_close(weights(train=False), weights(train=True), rtol=1e-5, atol=1e-6)
