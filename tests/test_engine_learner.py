"""The local learner: what may not change a loss, what stops it, how it goes on."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from engine_models import own_logprobs, random_batch, random_model
from torch import Tensor, nn

from prmkit.config import OptimizerConfig
from prmkit.engines.local.language_model import LanguageModel
from prmkit.engines.local.learner import LocalLearner, learning_rate_factor
from prmkit.engines.local.microbatches import microbatches
from prmkit.engines.local.value_model import ValueModel, zero_head
from prmkit.errors import TrainingError
from prmkit.ops.batch import Batch, LossSum, TokenOutputs, take
from prmkit.ops.masked import masked_sum
from prmkit.train.sft import SFTBatch, sft_loss

LENGTHS = [(3, 5), (7, 9), (1, 14), (5, 5), (2, 2), (6, 11), (4, 1), (9, 3)]


def learner(model: Any | None = None, **options: Any) -> LocalLearner:
    speaker = LanguageModel(
        model=random_model() if model is None else model,
        compute_dtype=options.pop("compute_dtype", torch.float32),
        temperature=options.pop("temperature", 1.0),
    )
    config = OptimizerConfig(**{"learning_rate": 1e-2, "max_grad_norm": 0.0, **options})
    return LocalLearner(speaker, config, role="policy")


def weights(made: LocalLearner) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in made.parameters}


def gradients(made: LocalLearner, batch: SFTBatch) -> dict[str, Tensor]:
    """Of one mini-batch, as the optimizer would see them."""
    seen: dict[str, Tensor] = {}

    def keep(*_: Any) -> None:
        seen.update({name: p.grad.clone() for name, p in made.parameters if p.grad is not None})

    made.optimizer.register_step_pre_hook(keep)
    made.update([batch], sft_loss)
    return seen


def assert_same(a: dict[str, Tensor], b: dict[str, Tensor], atol: float = 1e-6) -> None:
    assert a.keys() == b.keys()
    torch.testing.assert_close(a, b, rtol=1e-5, atol=atol)  # a mismatch names its key


def test_micro_batches_fill_the_budget_without_exceeding_it() -> None:
    length_B = torch.tensor([8, 16, 15, 10, 4, 17, 5, 12])
    # longest first: 17, 16 | 15, 12 | 10, 8, 5 | 4: 2 * 17, 2 * 15, 3 * 10, 1 * 4 of 36; one more row would exceed it
    parts = [part.tolist() for part in microbatches(length_B, 36)]
    assert parts == [[5, 1], [2, 7], [3, 0, 6], [4]]
    assert [part.tolist() for part in microbatches(length_B, 1)] == [[i] for i in (5, 1, 2, 7, 3, 0, 6, 4)]
    assert len(list(microbatches(length_B, 10**6))) == 1


def test_micro_batches_are_cut_where_padding_costs_more() -> None:
    # padding adds up to 0, 2, 2 + 6 of 20 in the first part; the next row would add 40 - 10 = 30
    length_B = torch.tensor([40, 38, 34, 10, 9])
    assert [part.tolist() for part in microbatches(length_B, 10**6, 20)] == [[0, 1, 2], [3, 4]]
    assert len(list(microbatches(length_B, 10**6, 100))) == 1
    assert [len(part) for part in microbatches(length_B, 10**6, 0)] == [1] * 5


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_eight_micro_batches_of_one_are_one_of_eight(weight_decay: float) -> None:
    batch = random_batch(LENGTHS)
    whole = learner(tokens_per_microbatch=10**6, weight_decay=weight_decay)
    single = learner(tokens_per_microbatch=1, weight_decay=weight_decay)
    assert len(list(microbatches(batch.length_B, 1))) == 8
    for _ in range(2):
        a, b = whole.update([batch], sft_loss), single.update([batch], sft_loss)
        assert a.metrics == pytest.approx(b.metrics, rel=1e-5)
        torch.testing.assert_close(a.output_BT[0], b.output_BT[0], rtol=1e-5, atol=1e-6)
    assert_same(gradients(whole, batch), gradients(single, batch))
    assert_same(weights(whole), weights(single), atol=1e-5)


def test_the_loss_and_its_outputs_are_the_models_own() -> None:
    model, batch = random_model(), random_batch(LENGTHS)
    expected = torch.zeros(batch.token_BT.shape)
    for i, (num_prompt, num_response) in enumerate(LENGTHS):
        length = num_prompt + num_response
        ids = batch.token_BT[i, :length]
        own_T = own_logprobs(model, ids.tolist(), 0.7)[:-1].gather(1, ids[1:, None]).squeeze(1)
        expected[i, num_prompt:length] = own_T[num_prompt - 1 :]
    made = learner(model, temperature=0.7)
    result = made.update([batch], sft_loss)
    torch.testing.assert_close(result.output_BT[0], expected, rtol=1e-5, atol=1e-5)
    # the loss is the mean over all response tokens
    assert result.metrics["loss"] == pytest.approx(-float(expected.sum()) / sum(r for _, r in LENGTHS), rel=1e-5)


def test_padding_and_row_order_do_not_matter() -> None:
    batch = random_batch(LENGTHS)
    wide = random_batch([*LENGTHS, (30, 30)])
    padded = replace(take(batch, torch.arange(8)), **widened(batch, wide.token_BT.shape[1]))
    turned = take(batch, torch.arange(7, -1, -1))
    base = learner().update([batch], sft_loss)
    for other in (padded, turned):
        result = learner().update([other], sft_loss)
        assert result.metrics == pytest.approx(base.metrics, rel=1e-5)
    outputs = learner().outputs(padded).output_BT
    torch.testing.assert_close(outputs[:, : batch.token_BT.shape[1]], base.output_BT[0], rtol=1e-5, atol=1e-6)
    assert not outputs[~padded.response_mask_BT].any()


def widened(batch: SFTBatch, width: int) -> dict[str, Tensor]:
    """Every `_BT` tensor with more padding on the right; token 9 there, which must not be seen."""
    more = width - batch.token_BT.shape[1]
    fill = {"token_BT": 9, "step_BT": -1}
    names = ("token_BT", "response_mask_BT", "step_BT", "behaviour_logp_BT", "weight_BT")
    return {n: nn.functional.pad(getattr(batch, n), (0, more), value=fill.get(n, 0)) for n in names}


def test_tokens_outside_the_mask_get_no_gradient() -> None:
    """The embeddings of a token that only occurs in padding, and the outputs off the mask, stay where they are."""
    model, batch = random_model(), random_batch([(3, 5), (2, 2)])
    batch = replace(batch, token_BT=batch.token_BT.clamp(max=17))
    batch.token_BT[1, 4:] = 18  # padding of the short row
    outputs = LanguageModel(model=model).outputs(batch)
    embedding = model.model.embed_tokens.weight
    (grad_VD,) = torch.autograd.grad(outputs.output_BT[batch.response_mask_BT].sum(), embedding)
    assert not grad_VD[18].any()
    # the last token of a response is predicted, but predicts nothing
    grad_TD = input_gradient(random_model(), batch, row=0)
    assert grad_TD[:7].any(dim=1).all()
    assert not grad_TD[7].any()


def input_gradient(model: Any, batch: Batch, row: int) -> Tensor:
    """Gradient of the row's summed log-probs for each of its token embeddings."""
    kept: list[Tensor] = []

    def keep(_module: Any, _inputs: Any, output: Tensor) -> None:
        kept.append(output.requires_grad_())

    hook = model.get_input_embeddings().register_forward_hook(keep)
    output_BT = LanguageModel(model=model).outputs(batch).output_BT
    hook.remove()
    (grad_BTD,) = torch.autograd.grad(output_BT[row].sum(), kept)
    return grad_BTD[row]


def test_a_loss_that_weighs_some_tokens_0_ignores_them() -> None:
    batch = random_batch([(3, 5), (7, 9)])
    half = replace(batch, weight_BT=torch.cat([batch.weight_BT[:1], torch.zeros_like(batch.weight_BT[1:])]))
    alone = replace(take(batch, torch.tensor([0])), weight_BT=batch.weight_BT[:1, :8])
    assert_same(gradients(learner(), half), gradients(learner(), alone))


def broken_loss(value: float) -> Any:
    """Not finite in the second micro-batch only."""

    def loss(outputs: TokenOutputs, part: SFTBatch) -> LossSum:
        good = sft_loss(outputs, part)
        return good if int(part.length_B.max()) > 8 else LossSum(loss=good.loss * value, metrics={})

    return loss


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_stops_and_changes_nothing(value: float) -> None:
    made = learner(tokens_per_microbatch=16)
    batch = random_batch([(7, 9), (3, 5)])
    made.update([batch], sft_loss)
    before, state = weights(made), made.state_dict()["optimizer"]["state"]
    moments = {k: v["exp_avg"].clone() for k, v in state.items()}
    with pytest.raises(
        TrainingError, match=r"policy: the loss is (nan|-?inf) at optimizer step 2, which was not taken"
    ):
        made.update([batch], broken_loss(value))
    assert all(torch.equal(before[name], p) for name, p in made.parameters)
    assert all(torch.equal(moments[k], v["exp_avg"]) for k, v in made.state_dict()["optimizer"]["state"].items())
    assert made.step == 1


def test_a_gradient_that_is_not_finite_stops_and_changes_nothing() -> None:
    def loss(outputs: TokenOutputs, part: SFTBatch) -> LossSum:
        # sqrt(x - x) is 0, its gradient is infinite
        total = masked_sum(outputs.output_BT, part.response_mask_BT)
        return LossSum(loss=(total - total.detach()).sqrt(), metrics={})

    made = learner()
    before = weights(made)
    with pytest.raises(
        TrainingError, match=r"policy: the gradient norm is (nan|inf) at optimizer step 1, which was not taken"
    ):
        made.update([random_batch(LENGTHS)], loss)
    assert all(torch.equal(before[name], p) for name, p in made.parameters)


def test_gradients_left_by_a_failed_update_do_not_leak_into_the_next() -> None:
    batch = random_batch([(7, 9), (3, 5)])
    made, clean = learner(tokens_per_microbatch=16), learner(tokens_per_microbatch=16)
    with pytest.raises(TrainingError):
        made.update([batch], broken_loss(math.nan))
    made.update([batch], sft_loss)
    clean.update([batch], sft_loss)
    assert_same(weights(made), weights(clean), atol=0)


def test_clipping_scales_the_gradient_to_the_norm() -> None:
    batch = random_batch(LENGTHS)
    free = learner()
    full = gradients(free, batch)
    norm = math.sqrt(sum(float(g.square().sum()) for g in full.values()))
    made = learner(max_grad_norm=norm / 4)
    clipped = gradients(made, batch)
    assert_same(clipped, {name: g / 4 for name, g in full.items()})
    # what is reported is the norm before clipping
    assert learner(max_grad_norm=norm / 4).update([batch], sft_loss).metrics["grad_norm"] == pytest.approx(norm)
    assert_same(gradients(learner(max_grad_norm=norm * 2), batch), full)


def test_metrics_are_means_over_the_mini_batches() -> None:
    a, b = random_batch(LENGTHS[:4]), random_batch(LENGTHS[4:])
    both = learner().update([a, b], sft_loss)
    made = learner()
    parts = [made.update([batch], sft_loss) for batch in (a, b)]
    for name in ("loss", "grad_norm"):
        assert both.metrics[name] == pytest.approx(sum(p.metrics[name] for p in parts) / 2, rel=1e-6)
    assert [o.shape for o in both.output_BT] == [a.token_BT.shape, b.token_BT.shape]


def test_the_first_step_of_adam_moves_by_the_rate() -> None:
    # Adam's first step is rate * g / (|g| + eps): every weight with a gradient moves by the rate.
    made = learner(learning_rate=1e-3)
    before = weights(made)
    grads = gradients(made, random_batch(LENGTHS))
    for name, parameter in made.parameters:
        moved = (parameter.detach() - before[name]).abs()
        large = grads[name].abs() > 1e-4
        torch.testing.assert_close(moved[large], torch.full_like(moved[large], 1e-3), rtol=1e-2, atol=0)


def rates(total_steps: int, num: int, **options: Any) -> list[float]:
    config = OptimizerConfig(**options)
    return [learning_rate_factor(step, config, total_steps) for step in range(num)]


def test_schedules_by_hand() -> None:
    # warm-up of 4: 1/4, 2/4, 3/4, 4/4; the first step is never at rate 0
    assert rates(8, 6, warmup_steps=4) == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]
    # linear over the 4 steps after a warm-up of 2, to 0.2: progress 0, 1/4, 2/4, 3/4, 1, and then on at 0.2
    linear = rates(6, 8, warmup_steps=2, schedule="linear", min_rate_ratio=0.2)
    assert linear == pytest.approx([0.5, 1.0, 1.0, 0.8, 0.6, 0.4, 0.2, 0.2])
    # cosine over 4 steps to 0: (1 + cos(pi * progress)) / 2
    cosine = rates(4, 6, schedule="cosine")
    half = math.sqrt(0.5)
    assert cosine == pytest.approx([1.0, (1 + half) / 2, 0.5, (1 - half) / 2, 0.0, 0.0], abs=1e-12)
    assert rates(100, 3, schedule="constant") == [1.0, 1.0, 1.0]
    # nothing left after the warm-up
    assert rates(2, 4, warmup_steps=2, schedule="linear") == [0.5, 1.0, 1.0, 1.0]


def test_the_schedule_acts() -> None:
    batch = random_batch(LENGTHS)
    made = learner(learning_rate=1e-3, warmup_steps=2, schedule="linear", total_steps=4)
    seen = []
    for _ in range(5):
        made.update([batch], sft_loss)
        seen.append(made.optimizer.param_groups[0]["lr"])
    # warm-up 1/2, 2/2, then progress 0, 1/2, 1 of the 2 steps left
    assert seen == pytest.approx([0.5e-3, 1e-3, 1e-3, 0.5e-3, 0.0])


def test_total_steps_come_from_the_configuration_or_from_the_run() -> None:
    model = LanguageModel(model=random_model())
    for configured, given, used in ((0, 7, 7), (5, 7, 5)):
        config = OptimizerConfig(total_steps=configured)
        assert LocalLearner(model, config, role="x", total_steps=given).total_steps == used


def test_state_goes_round_and_goes_on_with_the_same_bytes(tmp_path: Path) -> None:
    batches = [random_batch(LENGTHS, seed=s) for s in range(4)]
    options = {"warmup_steps": 3, "schedule": "cosine", "total_steps": 6, "weight_decay": 0.01}
    straight = learner(**options)
    straight.update(batches, sft_loss)
    first = learner(**options)
    first.update(batches[:2], sft_loss)
    torch.save(first.state_dict(), tmp_path / "state.pt")
    second = learner(random_model(seed=1), **options)
    second.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert second.step == 2
    second.update(batches[2:], sft_loss)
    for (name, a), (_, b) in zip(straight.parameters, second.parameters, strict=True):
        assert torch.equal(a, b), name


def test_bfloat16_is_near_float32_and_keeps_float32_weights() -> None:
    batch = random_batch(LENGTHS)
    exact, narrow = learner(random_model(spread=1.0)), learner(random_model(spread=1.0), compute_dtype=torch.bfloat16)
    a, b = exact.outputs(batch), narrow.outputs(batch)
    assert b.output_BT.dtype == torch.float32
    assert 0 < float((a.output_BT - b.output_BT).abs().max()) < 0.05
    grads = gradients(exact, batch), gradients(narrow, batch)
    for name in grads[0]:
        assert grads[1][name].dtype == torch.float32
        gap = float((grads[0][name] - grads[1][name]).norm() / grads[0][name].norm())
        assert gap < 0.05, name
    assert all(p.dtype == torch.float32 for _, p in narrow.parameters)


def test_gradient_checkpointing_changes_no_gradient() -> None:
    batch = random_batch(LENGTHS)
    checkpointed = random_model()
    checkpointed.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    checkpointed.train()
    passes = []
    checkpointed.model.layers[0].mlp.register_forward_pre_hook(lambda *_: passes.append(1))
    assert_same(gradients(learner(checkpointed), batch), gradients(learner(), batch), atol=0)
    assert len(passes) == 2  # once forwards, once again on the way back


def test_outputs_have_no_gradient_and_entropy_by_hand() -> None:
    model, batch = random_model(), random_batch([(3, 5)])
    outputs = learner(model).outputs(batch, entropy=True)
    assert not outputs.output_BT.requires_grad
    logp_TV = own_logprobs(model, batch.token_BT[0].tolist())[2:7]
    assert outputs.entropy_BT is not None
    torch.testing.assert_close(outputs.entropy_BT[0, 3:], -(logp_TV.exp() * logp_TV).sum(-1), rtol=1e-5, atol=1e-6)
    assert not outputs.entropy_BT[0, :3].any()
    assert learner(model).outputs(batch).entropy_BT is None  # not asked for


@pytest.mark.parametrize("entropy", [False, True])
def test_losses_are_given_the_entropy_where_the_learner_says_so(entropy: bool) -> None:
    seen = []

    def loss(outputs: TokenOutputs, part: SFTBatch) -> LossSum:
        seen.append(outputs.entropy_BT is not None)
        return sft_loss(outputs, part)

    LocalLearner(LanguageModel(model=random_model()), OptimizerConfig(), role="policy", entropy=entropy).update(
        [random_batch(LENGTHS)], loss
    )
    assert seen == [entropy]


def test_saving_without_a_way_to_save_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="policy: this learner was made without a way to save"):
        learner().save(tmp_path)


def value_learner(model: Any, **options: Any) -> LocalLearner:
    body = LanguageModel(model=model)
    config = OptimizerConfig(**{"learning_rate": 3e-3, **options})
    return LocalLearner(ValueModel(body=body, head=zero_head(32, body.device)), config, role="critic")


def constant_loss(outputs: TokenOutputs, part: SFTBatch) -> LossSum:
    """Mean squared distance to 0.7 on the response tokens."""
    squared_BT = (outputs.output_BT - 0.7).square() * part.weight_BT
    return LossSum(loss=masked_sum(squared_BT, part.response_mask_BT), metrics={})


@pytest.mark.parametrize("family", ["llama", "llama_grouped_query_tied"])
def test_a_value_model_starts_at_0_and_learns_a_constant(family: str) -> None:
    batch = random_batch(LENGTHS)
    critic = value_learner(random_model(family))
    assert not critic.outputs(batch).output_BT.any()
    for _ in range(60):
        last = critic.update([batch], constant_loss)
    assert last.metrics["loss"] < 0.01
    values = critic.outputs(batch).output_BT
    assert not values[~batch.response_mask_BT].any()
    assert float((values[batch.response_mask_BT] - 0.7).abs().mean()) < 0.1


def test_a_value_model_trains_no_output_layer_that_it_does_not_use() -> None:
    separate = {name for name, _ in value_learner(random_model("llama")).parameters}
    tied = {name for name, _ in value_learner(random_model("llama_grouped_query_tied")).parameters}
    assert "lm_head.weight" not in separate
    assert {"value_head.weight", "value_head.bias", "model.embed_tokens.weight"} <= separate & tied
