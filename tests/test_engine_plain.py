"""The short ways that speed takes: each gives what the long way gives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from engine_models import FAMILIES, QUESTIONS, TOKENIZER, random_batch, random_model
from peft import get_peft_model

from prmkit.config import ModelConfig
from prmkit.data.types import SamplingParams
from prmkit.engines.local.attention import NAME, SHORT, attend, attend_in_float32_when_short
from prmkit.engines.local.language_model import LanguageModel
from prmkit.engines.local.plain_decoder import PlainDecoder, attend_one, is_plain
from prmkit.engines.local.roles import local_roles, lora_config
from prmkit.engines.local.sampler import LocalSampler
from prmkit.models.tiny import make_tiny
from prmkit.rl.algorithm import Algorithm
from prmkit.rl.config import RLConfig
from prmkit.tasks.arithmetic import SPLIT

PLAIN = {"llama", "llama_grouped_query_tied", "llama_biases", "llama_scaled_rope", "qwen2", "qwen3", "mistral"}


def both_ways(model: LanguageModel, max_tokens: int = 80) -> list[list[Any]]:
    """Rollouts of the short and of the long way."""
    sampler = LocalSampler(model, TOKENIZER)
    assert sampler.plain
    groups = []
    for plain in (True, False):
        sampler.plain = plain
        sampled = sampler.sample(QUESTIONS, n=4, params=SamplingParams(max_tokens=max_tokens), seed=3)
        groups.append([r for g in sampled for r in g.members])
    return groups


def with_adapters(model: Any) -> LanguageModel:
    """A model with two adapters, both away from 0; `policy` speaks."""
    settings = lora_config(ModelConfig(lora_rank=4))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        wrapped = get_peft_model(model.requires_grad_(False), settings, adapter_name="prm")
        wrapped.add_adapter("policy", settings)
        for name, parameter in wrapped.named_parameters():
            if "lora_B" in name:
                parameter.data.normal_(std=0.1)  # at 0.5 the model makes a rounding error a hundred times as large
    return LanguageModel(model=wrapped, adapter="policy")


def test_which_families_are_plain() -> None:
    models = {family: LanguageModel(model=random_model(family)) for family in FAMILIES}
    assert {family for family, model in models.items() if LocalSampler(model, TOKENIZER).plain} == PLAIN
    moving = random_model("llama")
    moving.config.rope_parameters["rope_type"] = "dynamic"
    assert not is_plain(LanguageModel(model=moving))
    quantised = random_model("llama")
    quantised.model.layers[1].mlp.up_proj = torch.nn.Sequential(quantised.model.layers[1].mlp.up_proj)
    assert not is_plain(LanguageModel(model=quantised))


@pytest.mark.parametrize("adapters", [False, True])
@pytest.mark.parametrize("family", sorted(PLAIN))
def test_the_short_way_to_decode_gives_the_same_rollouts(family: str, adapters: bool) -> None:
    """80 tokens outgrow the buffers; prompts differ in length; rows leave."""
    model = random_model(family)
    short, long = both_ways(with_adapters(model) if adapters else LanguageModel(model=model))
    assert len({len(r.token_ids) for r in long}) > 3
    for a, b in zip(short, long, strict=True):
        assert a.token_ids == b.token_ids
        torch.testing.assert_close(torch.tensor(a.logprobs), torch.tensor(b.logprobs), rtol=1e-5, atol=2e-5)


def test_adapters_off_decode_as_the_base_does() -> None:
    adapted = with_adapters(random_model())
    off = LanguageModel(model=adapted.model, adapters_off=True)
    short, long = both_ways(off)
    plain, _ = both_ways(LanguageModel(model=random_model()))
    assert [r.token_ids for r in short] == [r.token_ids for r in long] == [r.token_ids for r in plain]


@pytest.mark.parametrize("weights", [torch.float32, torch.bfloat16])
def test_in_bfloat16_the_short_way_is_as_near_to_float32_as_the_long_way(weights: torch.dtype) -> None:
    exact = random_model("llama_grouped_query_tied")
    if weights == torch.float32:  # autocast
        narrow = LanguageModel(model=random_model("llama_grouped_query_tied"), compute_dtype=torch.bfloat16)
    else:
        narrow = LanguageModel(model=random_model("llama_grouped_query_tied").to(torch.bfloat16))
    gaps = []
    for sampled in both_ways(narrow, max_tokens=24):
        gap = []
        for rollout in sampled:
            ids = torch.tensor([[*rollout.prompt_token_ids, *rollout.token_ids]])
            with torch.no_grad():
                logp_TV = exact(input_ids=ids).logits[0].log_softmax(-1)[len(rollout.prompt_token_ids) - 1 : -1]
            own_T = logp_TV.gather(1, torch.tensor(rollout.token_ids)[:, None]).squeeze(1)
            gap.append((own_T - torch.tensor(rollout.logprobs)).abs())
        gaps.append(float(torch.cat(gap).mean()))
    assert 0 < gaps[0] < 1.5 * gaps[1]
    assert gaps[0] < 0.05


@pytest.mark.parametrize("padded", [False, True])
def test_both_forms_of_attention_agree(padded: bool) -> None:
    """In bfloat16 (on a GPU) the fused kernel attends, in float32 two products do."""
    generator = torch.Generator().manual_seed(0)
    q_BKGE, keys_BKTE, values_BKTE = (torch.randn(3, 2, n, 8, generator=generator).bfloat16() for n in (2, 7, 7))
    unseen_BP = torch.tensor([[True, True], [True, False], [False, False]]) if padded else None
    fused = attend_one(q_BKGE, keys_BKTE, values_BKTE, unseen_BP, 0.3)
    plain = attend_one(q_BKGE.float(), keys_BKTE.float(), values_BKTE.float(), unseen_BP, 0.3)
    assert fused.dtype == torch.bfloat16
    torch.testing.assert_close(fused.float(), plain, rtol=2**-6, atol=2**-6)
    if padded:  # row 0 sees positions 2 to 6 alone
        seen_keys, seen_values = keys_BKTE[:1, :, 2:].float(), values_BKTE[:1, :, 2:].float()
        torch.testing.assert_close(plain[:1], attend_one(q_BKGE[:1].float(), seen_keys, seen_values, None, 0.3))


def test_the_decoder_copies_no_weights_that_have_the_right_precision() -> None:
    model = random_model("qwen2")
    decoder = PlainDecoder(LanguageModel(model=model))
    assert decoder.layers[0].q.weight.data_ptr() == model.model.layers[0].self_attn.q_proj.weight.data_ptr()
    assert decoder.head.weight.data_ptr() == model.lm_head.weight.data_ptr()


def attended(model: Any, dtype: torch.dtype, length: int) -> torch.Tensor:
    batch = random_batch([(4, length - 4), (2, length // 2)])
    with torch.no_grad():
        return LanguageModel(model=model, compute_dtype=dtype).outputs(batch).output_BT


@pytest.mark.parametrize("family", sorted(set(FAMILIES) - {"mistral_sliding"}))
def test_attention_in_float32_is_at_least_as_near_to_float32(family: str) -> None:
    exact = attended(random_model(family), torch.float32, 90)
    narrow = attended(random_model(family), torch.bfloat16, 90)
    short = random_model(family)
    attend_in_float32_when_short(short)
    assert short.config._attn_implementation == NAME
    gap, usual = ((other - exact).abs().mean() for other in (attended(short, torch.bfloat16, 90), narrow))
    assert 0 < float(gap) < 1.2 * float(usual)
    torch.testing.assert_close(attended(short, torch.float32, 90), exact, rtol=1e-5, atol=1e-5)


def test_long_sequences_attend_in_their_own_precision() -> None:
    module: Any = random_model().model.layers[0].self_attn
    for length, rounded in ((SHORT, False), (SHORT + 1, True)):
        q, k, v = torch.randn(3, 1, 4, length, 8, generator=torch.Generator().manual_seed(0)).to(torch.bfloat16)
        got, _ = attend(module, q, k, v, None, scaling=0.3, is_causal=True)
        wide = torch.nn.functional.scaled_dot_product_attention(
            q.float(), k.float(), v.float(), is_causal=True, scale=0.3
        )
        assert got.dtype == torch.bfloat16
        assert torch.equal(got, wide.to(torch.bfloat16).transpose(1, 2)) != rounded


def test_roles_use_it_for_bfloat16_on_cpu_alone_and_do_not_save_it(tmp_path: Path) -> None:
    base = make_tiny(tmp_path / "base", seed=0, size="micro")
    for dtype, name in (("bfloat16", NAME), ("float32", "sdpa")):
        config = RLConfig(model=ModelConfig(path=str(base), dtype=dtype, device="cpu"), algorithm=Algorithm())  # type: ignore[arg-type]
        policy: Any = local_roles(config, None, SPLIT, tmp_path).roles.policy  # type: ignore[arg-type]
        assert policy.model.model.config._attn_implementation == name
        policy.save(tmp_path / dtype)
        assert NAME not in (tmp_path / dtype / "config.json").read_text(encoding="utf-8")
