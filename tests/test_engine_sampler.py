"""The local sampler: what it draws, what it says of it, and what nothing may depend on."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from engine_models import FAMILIES, QUESTIONS, TOKENIZER, logprobs_of_rollout, own_logprobs, question, random_model
from tokenizers import Tokenizer
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from torch import Tensor
from transformers import PreTrainedTokenizerFast
from transformers.convert_slow_tokenizer import bytes_to_unicode

from prmkit.data.types import Group, Rollout, SamplingParams
from prmkit.engines.local.language_model import LanguageModel
from prmkit.engines.local.sampler import LocalSampler, draw, nucleus
from prmkit.errors import SamplingError
from prmkit.ops.batch import TokenOutputs
from prmkit.train.sft import Encoded, sft_batch

EOS = 1


def sampler(model: Any, **options: Any) -> LocalSampler:
    temperature = options.pop("temperature", 1.0)
    return LocalSampler(LanguageModel(model=model, temperature=temperature), TOKENIZER, **options)


def rollouts(groups: list[Group[Rollout]]) -> list[Rollout]:
    return [rollout for group in groups for rollout in group.members]


def learner_outputs(model: LanguageModel, sampled: list[Rollout]) -> tuple[TokenOutputs, Tensor, Tensor]:
    """The learner's outputs, the sampler's log-probs in the same places, and the mask."""
    batch = sft_batch([Encoded(prompt_token_ids=r.prompt_token_ids, token_ids=r.token_ids) for r in sampled])
    behaviour_BT = torch.zeros(batch.token_BT.shape)
    behaviour_BT[batch.response_mask_BT] = torch.tensor([lp for r in sampled for lp in r.logprobs])
    with torch.no_grad():
        return model.outputs(batch), behaviour_BT, batch.response_mask_BT


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_log_probs_are_the_models_own(family: str, temperature: float) -> None:
    """For prompts of different lengths, and after ended rows have left the batch."""
    model = random_model(family)
    params = SamplingParams(max_tokens=24, temperature=temperature)
    sampled = rollouts(sampler(model).sample(QUESTIONS, n=6, params=params, seed=3))
    assert len({len(r.token_ids) for r in sampled}) > 3
    for rollout in sampled:
        own_T = logprobs_of_rollout(model, rollout, temperature)
        assert (own_T - torch.tensor(rollout.logprobs)).abs().max() < 1e-5
    language_model = LanguageModel(model=model, temperature=temperature)
    outputs, behaviour_BT, mask_BT = learner_outputs(language_model, sampled)
    assert (outputs.output_BT - behaviour_BT)[mask_BT].abs().max() < 1e-5


@pytest.mark.parametrize("family", ["llama_grouped_query_tied", "gpt_neox"])
def test_bfloat16_log_probs_are_near_the_learners(family: str) -> None:
    model = random_model(family)
    narrow = LanguageModel(model=model, compute_dtype=torch.bfloat16)
    sampled = rollouts(LocalSampler(narrow, TOKENIZER).sample(QUESTIONS, n=4, params=SamplingParams(), seed=3))
    outputs, behaviour_BT, mask_BT = learner_outputs(narrow, sampled)
    exact, _, _ = learner_outputs(LanguageModel(model=model), sampled)
    # bfloat16 keeps 8 bits; logits here reach about 8, so one rounding alone moves them by up to 2^-5.
    for other in (behaviour_BT, exact.output_BT):
        gap_N = (outputs.output_BT - other)[mask_BT].abs()
        assert float(gap_N.mean()) < 0.04
        assert float(gap_N.max()) < 0.5


@pytest.mark.parametrize("family", ["llama", "llama_grouped_query_tied", "gemma", "mistral_sliding", "gpt_neox"])
def test_greedy_is_transformers_greedy(family: str) -> None:
    model = random_model(family)
    greedy = sampler(model).sample(QUESTIONS, n=1, params=SamplingParams(temperature=0, max_tokens=24), seed=0)
    for rollout in rollouts(greedy):
        prompt = torch.tensor([rollout.prompt_token_ids])
        theirs = model.generate(
            prompt, attention_mask=torch.ones_like(prompt), do_sample=False, max_new_tokens=24, eos_token_id=EOS
        )
        assert list(rollout.token_ids) == theirs[0, prompt.shape[1] :].tolist()
        # log-probs of a greedy rollout are of the distribution at temperature 1
        assert torch.allclose(logprobs_of_rollout(model, rollout), torch.tensor(rollout.logprobs), atol=1e-5)


def test_the_same_seed_gives_the_same_rollouts_and_no_random_state_is_touched() -> None:
    model = random_model()
    before = torch.get_rng_state()
    a, b, c = (sampler(model).sample(QUESTIONS, n=3, params=SamplingParams(), seed=s) for s in (5, 5, 6))
    assert torch.equal(torch.get_rng_state(), before)
    assert a == b
    assert [r.token_ids for r in rollouts(a)] != [r.token_ids for r in rollouts(c)]
    assert len({r.token_ids for r in a[0].members}) == 3  # siblings are samples of their own


def tokens(groups: list[Group[Rollout]]) -> list[tuple[int, ...]]:
    return [r.token_ids for r in rollouts(groups)]


@pytest.mark.parametrize("max_rows", [1, 3, 7])
def test_rollouts_do_not_depend_on_how_many_rows_are_decoded_at_once(max_rows: int) -> None:
    model, params = random_model(), SamplingParams(max_tokens=24)
    whole = sampler(model).sample(QUESTIONS, n=3, params=params, seed=2)
    parts = sampler(model, max_rows=max_rows).sample(QUESTIONS, n=3, params=params, seed=2)
    assert tokens(whole) == tokens(parts)
    for a, b in zip(rollouts(whole), rollouts(parts), strict=True):
        assert torch.allclose(torch.tensor(a.logprobs), torch.tensor(b.logprobs), atol=1e-5)


@pytest.mark.parametrize("share", [1e-9, 2.0])  # ended rows leave at once, or never
def test_rollouts_do_not_depend_on_when_ended_rows_leave(share: float, monkeypatch: pytest.MonkeyPatch) -> None:
    model, params = random_model(), SamplingParams(max_tokens=24)
    usual = sampler(model).sample(QUESTIONS, n=6, params=params, seed=4)
    monkeypatch.setattr("prmkit.engines.local.sampler.LEAVING_SHARE", share)
    assert tokens(sampler(model).sample(QUESTIONS, n=6, params=params, seed=4)) == tokens(usual)


def test_a_rollout_does_not_depend_on_its_siblings_lengths() -> None:
    """Some rows end early at a stop string; the others go on as if nothing had happened."""
    model = random_model()
    free = rollouts(sampler(model).sample(QUESTIONS, n=6, params=SamplingParams(max_tokens=24), seed=4))
    stopped = sampler(model).sample(QUESTIONS, n=6, params=SamplingParams(max_tokens=24, stop=("=",)), seed=4)
    cut = 0
    for a, b in zip(free, rollouts(stopped), strict=True):
        assert a.token_ids[: len(b.token_ids)] == b.token_ids
        cut += len(b.token_ids) < len(a.token_ids)
    assert 0 < cut < len(free)


def test_no_prompts_are_no_error() -> None:
    assert sampler(random_model()).sample([], n=2, params=SamplingParams(), seed=0) == []


def test_rollouts_carry_their_prompt_text_and_version() -> None:
    local = sampler(random_model(), version=lambda: 7)
    (group,) = local.sample([question("3+8=?")], n=2, params=SamplingParams(max_tokens=8), seed=0)
    assert group.prompt == question("3+8=?")
    for rollout in group.members:
        assert (rollout.prompt_id, rollout.policy_version) == ("q/3+8=?", 7)
        assert TOKENIZER.decode(rollout.prompt_token_ids) == "3+8=?"
        assert rollout.text == TOKENIZER.decode(rollout.token_ids, skip_special_tokens=True)
        assert rollout.token_ends[-1] == len(rollout.text)
        assert len(rollout.token_ids) == len(rollout.logprobs) == len(rollout.token_ends)


def test_the_end_token_ends_a_response_and_belongs_to_it() -> None:
    sampled = rollouts(sampler(random_model()).sample(QUESTIONS, n=8, params=SamplingParams(max_tokens=40), seed=1))
    ended = [r for r in sampled if r.finish == "stop"]
    cut = [r for r in sampled if r.finish == "length"]
    assert ended
    assert cut
    for rollout in ended:
        assert rollout.token_ids.index(EOS) == len(rollout.token_ids) - 1
    for rollout in cut:
        assert len(rollout.token_ids) == 40
        assert EOS not in rollout.token_ids


def test_an_end_token_on_the_last_place_is_a_stop() -> None:
    params = SamplingParams(max_tokens=6)
    full = rollouts(sampler(random_model()).sample(QUESTIONS, n=64, params=params, seed=1))
    at_limit = [r for r in full if len(r.token_ids) == 6 and r.token_ids[-1] == EOS]
    assert at_limit
    assert {r.finish for r in at_limit} == {"stop"}


def test_end_tokens_of_the_generation_config_count_too() -> None:
    model = random_model()
    model.generation_config.eos_token_id = [1, 5]
    sampled = rollouts(sampler(model).sample(QUESTIONS, n=8, params=SamplingParams(max_tokens=40), seed=1))
    last = {r.token_ids[-1] for r in sampled if r.finish == "stop"}
    assert last == {1, 5}
    assert not any({1, 5} & set(r.token_ids[:-1]) for r in sampled)


@pytest.mark.parametrize("stop", [("=",), ("4", "+7"), ("12",)])
def test_a_stop_string_ends_the_response_and_stays_in_it(stop: tuple[str, ...]) -> None:
    params = SamplingParams(max_tokens=40, stop=stop)
    sampled = rollouts(sampler(random_model()).sample(QUESTIONS, n=16, params=params, seed=1))
    by_string = [r for r in sampled if r.token_ids[-1] != EOS and r.finish == "stop"]
    assert by_string
    for rollout in sampled:
        found = [rollout.text.index(s) + len(s) for s in stop if s in rollout.text]
        assert bool(found) == (rollout in by_string)
        assert not found or min(found) == len(rollout.text)  # nothing comes after it


def byte_level_tokenizer() -> Any:
    """One token for each byte, as byte-level BPE falls back to for rare characters, and a special token beside the end."""
    letters = sorted(bytes_to_unicode().values())
    own = Tokenizer(BPE(vocab={letter: i for i, letter in enumerate(letters)}, merges=[]))
    own.pre_tokenizer, own.decoder = ByteLevel(add_prefix_space=False), ByteLevelDecoder()
    made = PreTrainedTokenizerFast(tokenizer_object=own, eos_token="<eos>", chat_template="{{ messages[0].content }}")
    made.add_special_tokens({"additional_special_tokens": ["<turn>"]})
    return made


@pytest.mark.parametrize("stop", ["答案", "✅", "∎", "Ответ", "\n\n", "<turn>", "so <turn>"])
def test_a_stop_string_is_seen_whatever_tokens_it_is_made_of(stop: str) -> None:
    tokenizer = byte_level_tokenizer()
    made = LocalSampler(LanguageModel(model=random_model()), tokenizer)
    ids = tokenizer("é 42. " + stop, add_special_tokens=False)["input_ids"]
    params = SamplingParams(stop=("never", stop))
    assert [made._has_ended(ids[: k + 1], params) for k in range(len(ids))] == [False] * (len(ids) - 1) + [True]


def test_a_prompt_that_does_not_fit_is_named_before_anything_is_sampled() -> None:
    # context 96: 90 tokens of prompt and 7 to come
    long = question("1+" * 45)
    message = r"prompt 'q/1\+.*' has 90 tokens; with max_tokens = 7 it exceeds the model's context of 96"
    with pytest.raises(SamplingError, match=message):
        sampler(random_model()).sample([QUESTIONS[0], long], n=2, params=SamplingParams(max_tokens=7), seed=0)
    sampler(random_model()).sample([long], n=1, params=SamplingParams(max_tokens=6), seed=0)


LOGITS = torch.tensor([0.5, 0.05, 0.25, 0.15, 0.05]).log()
"""Five tokens with probabilities 0.5, 0.05, 0.25, 0.15, 0.05."""


def counts(params: SamplingParams, num: int = 20000) -> list[int]:
    uniform_B = torch.rand(num, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    token_B, _ = draw(LOGITS.expand(num, 5), uniform_B, params)
    return torch.bincount(token_B, minlength=5).tolist()


def chi_square(seen: list[int], p: list[float]) -> float:
    expected = [sum(seen) * x for x in p]
    return sum((s - e) ** 2 / e for s, e in zip(seen, expected, strict=True) if e)


def test_draws_follow_the_distribution() -> None:
    # chi-square with 4 degrees of freedom: 18.5 at p = 0.001
    assert chi_square(counts(SamplingParams()), [0.5, 0.05, 0.25, 0.15, 0.05]) < 18.5
    # temperature 1/2 squares: 0.25, 0.0025, 0.0625, 0.0225, 0.0025, which sum to 0.34
    squares = [x / 0.34 for x in (0.25, 0.0025, 0.0625, 0.0225, 0.0025)]
    assert chi_square(counts(SamplingParams(temperature=0.5)), squares) < 18.5


def test_top_p_draws_from_the_nucleus_alone() -> None:
    # 0.5 + 0.25 = 0.75 < 0.8, so 0.15 joins: 0.9 in all. The two tokens of 0.05 are never drawn.
    seen = counts(SamplingParams(top_p=0.8))
    assert (seen[1], seen[4]) == (0, 0)
    assert chi_square(seen, [0.5 / 0.9, 0, 0.25 / 0.9, 0.15 / 0.9, 0]) < 13.8  # 2 degrees of freedom, p = 0.001
    # the nucleus is cut after the temperature: squares 0.735, ., 0.184, 0.066, .: 0.735 + 0.184 >= 0.8
    assert [bool(s) for s in counts(SamplingParams(top_p=0.8, temperature=0.5))] == [True, False, True, False, False]
    assert [bool(s) for s in counts(SamplingParams(top_p=0.01))] == [True, False, False, False, False]


def test_nucleus_is_the_smallest_set() -> None:
    p_BV = LOGITS.exp()[None]
    # 0.5 alone reaches 0.5 (the set of mass >= top_p), so nothing joins it
    assert nucleus(p_BV, 0.4999).count_nonzero() == 1
    assert nucleus(p_BV, 0.51).count_nonzero() == 2
    assert torch.equal(nucleus(p_BV, 0.76), p_BV * torch.tensor([1.0, 0, 1, 1, 0]))


def test_behaviour_log_probs_are_of_the_whole_distribution() -> None:
    uniform_B = torch.linspace(0, 0.999, 50, dtype=torch.float64)
    logits_BV = LOGITS.expand(50, 5)
    for top_p in (1.0, 0.8):
        token_B, logp_B = draw(logits_BV, uniform_B, SamplingParams(top_p=top_p))
        torch.testing.assert_close(logp_B, LOGITS[token_B])
        token_B, logp_B = draw(logits_BV, uniform_B, SamplingParams(top_p=top_p, temperature=0.5))
        torch.testing.assert_close(logp_B, (2 * LOGITS).log_softmax(-1)[token_B])


@pytest.mark.parametrize("params", [SamplingParams(), SamplingParams(top_p=0.8), SamplingParams(temperature=0.3)])
def test_a_token_of_probability_0_is_never_drawn(params: SamplingParams) -> None:
    logits_BV = torch.tensor([[-torch.inf, 1.0, -torch.inf, 1.0, -torch.inf]]).expand(4, 5)
    uniform_B = torch.tensor([0.0, 0.4999999, 0.5, 1 - 2**-53], dtype=torch.float64)
    token_B, _ = draw(logits_BV, uniform_B, params)
    assert token_B.tolist() == [1, 1, 3, 3]


def test_log_probs_of_a_sharp_distribution_stay_finite() -> None:
    logits_BV = torch.tensor([[1e4, 0.0, 0.0]])
    token_B, logp_B = draw(logits_BV, torch.tensor([0.999999], dtype=torch.float64), SamplingParams())
    assert (token_B.tolist(), logp_B.tolist()) == ([0], [0.0])


def test_sampled_frequencies_are_the_models_distribution() -> None:
    """End to end: first tokens of many siblings against the model's own probabilities."""
    model = random_model(spread=4.0)
    prompt = question("3+8=?")
    (group,) = sampler(model).sample([prompt], n=4000, params=SamplingParams(max_tokens=1), seed=0)
    ids = TOKENIZER("3+8=?")["input_ids"]
    p_V = own_logprobs(model, ids)[-1].exp()
    seen_V = torch.bincount(torch.tensor([r.token_ids[0] for r in group.members]), minlength=19)
    # 18 degrees of freedom: 42.3 at p = 0.001
    assert chi_square(seen_V.tolist(), p_V.tolist()) < 42.3
