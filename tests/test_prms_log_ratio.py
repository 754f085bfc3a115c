"""Implicit PRMs and log-probs, against the plain formula: one solution at a time, the model's own logits."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from prm_models import SOLUTIONS, byte_tokenizer, classifier, language_model, solution
from rl_setup import CPU
from transformers import AutoModelForCausalLM

import prmkit
from prmkit.data.prm_spec import PRMSpec, base_folder, read_spec, write_spec
from prmkit.data.types import Solution, StepRewards, TokenRewards
from prmkit.engines.local.prms import log_ratio
from prmkit.engines.local.prms.reading import read_merged
from prmkit.errors import ModelError
from prmkit.models.load import load_model
from prmkit.protocols import Unscored


def plain_steps(model: Any, item: Solution) -> list[float]:
    """log pi of every step, with its separator and, for the last one, the end token: bytes are tokens here."""
    return [sum(step) for step in plain_tokens(model, item)]


def plain_tokens(model: Any, item: Solution) -> list[list[float]]:
    """log pi of every token of every step."""
    tokenizer = byte_tokenizer()
    prompt = tokenizer.encode(f"<im_start>user\n{item.prompt.messages[0].content}<im_end>\n<im_start>assistant\n")
    pieces = [step + item.between for step in item.steps[:-1]] + [item.steps[-1] + "<eos>"]
    ids, found = list(prompt), []
    for piece in pieces:
        ids += tokenizer.encode(piece)
    with torch.no_grad():
        logp_TV = model(torch.tensor([ids])).logits[0].double().log_softmax(-1)
    at = len(prompt)
    for piece in pieces:
        end = at + len(tokenizer.encode(piece))
        found.append([logp_TV[i - 1, ids[i]].item() for i in range(at, end)])
        at = end
    assert at == len(ids)
    return found


def values(result: StepRewards | Unscored) -> list[float]:
    assert isinstance(result, StepRewards), result
    return list(result.values)


def test_implicit_is_beta_times_the_log_ratio_of_each_step(tmp_path: Path) -> None:
    policy = language_model(tmp_path / "policy", seed=1)
    reference = language_model(tmp_path / "reference", seed=2)
    write_spec(tmp_path / "policy", PRMSpec(family="implicit", reference="../reference", beta=0.05))
    prm = prmkit.load_prm(tmp_path / "policy", device="cpu")
    assert prm.kind == "log_ratio"
    for item, result in zip(SOLUTIONS, prm.score_all(SOLUTIONS), strict=True):
        expected = [
            0.05 * (a - b) for a, b in zip(plain_steps(policy, item), plain_steps(reference, item), strict=True)
        ]
        assert values(result) == pytest.approx(expected, abs=2e-5)


def test_log_prob_is_the_log_probability_of_each_step(tmp_path: Path) -> None:
    model = language_model(tmp_path / "lm")
    prm = prmkit.load_prm(tmp_path / "lm", spec=PRMSpec(family="log_prob"), device="cpu")
    for item, result in zip(SOLUTIONS, prm.score_all(SOLUTIONS), strict=True):
        assert values(result) == pytest.approx(plain_steps(model, item), abs=1e-3, rel=1e-5)


def tokens(result: StepRewards | Unscored) -> TokenRewards:
    assert isinstance(result, StepRewards), result
    assert result.tokens is not None
    return result.tokens


BYTES = [*SOLUTIONS, solution("Größe?", "2 € 50", "gut", id="bytes of one character")]


@pytest.mark.parametrize("family", ["implicit", "log_prob"])
def test_token_rewards_are_the_terms_of_the_steps_sums(tmp_path: Path, family: Any) -> None:
    policy = language_model(tmp_path / "policy", seed=1)
    reference = language_model(tmp_path / "reference", seed=2)
    spec = PRMSpec(family="log_prob")
    if family == "implicit":
        spec = PRMSpec(family="implicit", reference=str(tmp_path / "reference"), beta=0.05)
    plain = prmkit.load_prm(tmp_path / "policy", spec=spec, device="cpu").score_all(BYTES)
    prm = prmkit.load_prm(tmp_path / "policy", spec=spec, device="cpu", token_rewards=True)
    for item, without, result in zip(BYTES, plain, prm.score_all(BYTES), strict=True):
        assert isinstance(without, StepRewards)
        assert without.tokens is None
        found = tokens(result)
        expected = [
            (k, 0.05 * (a - b) if family == "implicit" else a)
            for k, steps in enumerate(zip(plain_tokens(policy, item), plain_tokens(reference, item), strict=True))
            for a, b in zip(*steps, strict=True)
        ]
        assert list(found.values) == pytest.approx([value for _, value in expected], abs=2e-5, rel=1e-5)
        assert list(found.step_of_token) == [k for k, _ in expected]
        assert values(result) == list(without.values)
        for k, value in enumerate(values(result)):
            terms = [v for v, step in zip(found.values, found.step_of_token, strict=True) if step == k]
            assert math.fsum(terms) == pytest.approx(value, abs=1e-9, rel=1e-9)
        assert "".join(found.texts) == item.text
        assert found.ends == tuple(accumulate(map(len, found.texts)))
        assert found.texts[-1] == ""  # the end token


def test_token_rewards_do_not_depend_on_what_comes_together(tmp_path: Path) -> None:
    """One at a time, all together, and with a prompt that sixty answers share."""
    language_model(tmp_path / "policy", seed=1)
    language_model(tmp_path / "reference", seed=2)
    spec = PRMSpec(family="implicit", reference=str(tmp_path / "reference"))
    load = partial(prmkit.load_prm, tmp_path / "policy", spec=spec, device="cpu", token_rewards=True)
    apart, together = load(tokens_per_batch=1), load()
    siblings = [solution("1+1?", *("7" * (1 + i % 9) for i in range(n % 4 + 1)), id=str(n)) for n in range(60)]
    head: Any = together.head
    assert head._sharing_pays(len(head.lay_out(siblings[0])[0].token_ids) - 2, len(siblings))
    items = [*SOLUTIONS, *siblings]
    for n, (item, both) in enumerate(zip(items, together.score_all(items), strict=True)):
        if n < len(SOLUTIONS) or n % 9 == 0:
            alone = apart.score_all([item])[0]
            assert list(tokens(alone).values) == pytest.approx(list(tokens(both).values), abs=2e-4)
            assert replace(tokens(alone), values=tokens(both).values) == tokens(both)


def test_families_without_log_probs_have_no_token_rewards(tmp_path: Path) -> None:
    classifier(tmp_path / "prm")
    with pytest.raises(
        ModelError, match="the family token_classification, which gives one number a step: leave token_"
    ):
        prmkit.load_prm(tmp_path / "prm", device="cpu", token_rewards=True)


def test_base_is_the_adapter_turned_off(tmp_path: Path) -> None:
    base = language_model(tmp_path / "base")
    adapted = get_peft_model(
        AutoModelForCausalLM.from_pretrained(tmp_path / "base"),
        LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "down_proj"], init_lora_weights=False),
    ).eval()
    adapted.save_pretrained(str(tmp_path / "adapter"))
    byte_tokenizer().save_pretrained(tmp_path / "adapter")
    write_spec(tmp_path / "adapter", PRMSpec(family="implicit", reference="base", beta=2.0))
    prm = prmkit.load_prm(tmp_path / "adapter", device="cpu")
    parts = prm.head
    assert parts.policy.model is parts.reference.model  # type: ignore[attr-defined]  # one base in memory
    result = prm.score_all(SOLUTIONS[:1])[0]
    expected = [
        2 * (a - b) for a, b in zip(plain_steps(adapted, SOLUTIONS[0]), plain_steps(base, SOLUTIONS[0]), strict=True)
    ]
    assert values(result) == pytest.approx(expected, abs=1e-3)
    alone = prmkit.load_prm(tmp_path / "adapter", spec=PRMSpec(family="log_prob"), device="cpu")
    assert values(alone.score_all(SOLUTIONS[:1])[0]) == pytest.approx(plain_steps(adapted, SOLUTIONS[0]), abs=1e-3)


def test_the_batch_makes_no_difference(tmp_path: Path) -> None:
    language_model(tmp_path / "policy", seed=1)
    language_model(tmp_path / "reference", seed=2)
    spec = PRMSpec(family="implicit", reference=str(tmp_path / "reference"))
    items = [*SOLUTIONS, *SOLUTIONS[::-1]]
    apart = prmkit.load_prm(tmp_path / "policy", spec=spec, device="cpu", tokens_per_batch=1)
    together = prmkit.load_prm(tmp_path / "policy", spec=spec, device="cpu")
    for a, b in zip(apart.score_all(items), together.score_all(items), strict=True):
        assert values(a) == pytest.approx(values(b), abs=2e-4)


def test_too_long_for_the_context_is_unscored_and_stops_nobody(tmp_path: Path) -> None:
    language_model(tmp_path / "lm")
    prm = prmkit.load_prm(tmp_path / "lm", spec=PRMSpec(family="log_prob"), device="cpu")
    # 17 + 1 + 7 + 11 + 500 + 1 tokens: "<im_start>user\n", "1", "<im_end>\n", ...
    long = solution("1", "1" * 500, id="long")
    before, unscored, after = prm.score_all([SOLUTIONS[1], long, SOLUTIONS[1]])
    assert isinstance(unscored, Unscored)
    assert unscored.id == "long"
    assert f"has {len(prm.head.lay_out(long)[0].token_ids)} tokens" in unscored.reason
    assert "is 512" in unscored.reason
    assert values(before) == pytest.approx(values(after))


def test_an_infinite_output_is_no_reward(tmp_path: Path) -> None:
    model = language_model(tmp_path / "lm")
    with torch.no_grad():
        model.lm_head.weight.mul_(float("nan"))
    model.save_pretrained(tmp_path / "lm")
    prm = prmkit.load_prm(tmp_path / "lm", spec=PRMSpec(family="log_prob"), device="cpu")
    result = prm.score_all(SOLUTIONS[:1])[0]
    assert isinstance(result, Unscored)
    assert "the reward of step 1 is nan" in result.reason


@pytest.mark.parametrize("lora", [False, True])
def test_a_prompt_that_is_read_once_for_many_solutions_makes_no_difference(tmp_path: Path, lora: bool) -> None:
    """60 answers to one prompt: reading it once saves more tokens than two batches may pad."""
    policy = language_model(tmp_path / "policy", seed=1)
    reference = language_model(tmp_path / "reference", seed=2)
    spec = PRMSpec(family="implicit", reference=str(tmp_path / "reference"))
    folder = tmp_path / "policy"
    if lora:
        settings = LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "down_proj"], init_lora_weights=False)
        reference = policy
        policy = get_peft_model(AutoModelForCausalLM.from_pretrained(folder), settings).eval()
        folder = tmp_path / "adapter"
        policy.save_pretrained(str(folder))
        byte_tokenizer().save_pretrained(folder)
        spec = PRMSpec(family="implicit", reference="base")
    prm = prmkit.load_prm(folder, spec=spec, device="cpu")
    items = [solution("1+1?", *("7" * (1 + i % 9) for i in range(n % 4 + 1)), id=str(n)) for n in range(60)]
    head: Any = prm.head
    assert head._sharing_pays(len(head.lay_out(items[0])[0].token_ids) - 2, len(items))
    for item, result in list(zip(items, prm.score_all(items), strict=True))[::7]:
        expected = [a - b for a, b in zip(plain_steps(policy, item), plain_steps(reference, item), strict=True)]
        assert values(result) == pytest.approx(expected, abs=1e-4)


def test_a_shared_prompts_keys_and_values_count_for_the_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each row of a forward pass holds the prompt's 23 tokens beside its own 2 to 5, so that three or four fit."""
    language_model(tmp_path / "lm")
    prm = prmkit.load_prm(tmp_path / "lm", spec=PRMSpec(family="log_prob"), device="cpu", tokens_per_batch=100)
    held: list[int] = []

    def watched(model: Any, token_BT: torch.Tensor, prompt: Any) -> torch.Tensor:
        rows, width = token_BT.shape
        held.append(rows * (prompt.keys_values[0][0].shape[2] + width))
        return after(model, token_BT, prompt)

    after = log_ratio._after
    monkeypatch.setattr(log_ratio, "_after", watched)
    items = [solution("1+1?", "7" * (1 + n % 4), id=str(n)) for n in range(60)]
    apart = prmkit.load_prm(tmp_path / "lm", spec=PRMSpec(family="log_prob"), device="cpu", tokens_per_batch=1)
    shared, alone = prm.score_all(items), [apart.score_all([item])[0] for item in items[:4]]
    assert 3 * (23 + 2) <= max(held) <= 100
    for a, b in zip(shared, alone, strict=False):
        assert values(a) == pytest.approx(values(b), abs=2e-4)


def test_run_and_reference_can_be_moved_together(tmp_path: Path) -> None:
    """A checkpoint is written aside and renamed, then the project that holds runs and models is moved."""
    project = tmp_path / "deep" / "project"
    language_model(project / "models" / "reference", seed=2)
    aside = project / "runs" / "a" / "checkpoints" / ".step_000002.part" / "prm"
    language_model(aside, seed=1)
    write_spec(aside, PRMSpec(family="implicit", reference=str(project / "models" / "reference")))
    aside.parent.rename(aside.parent.with_name("step_000002"))
    before = prmkit.load_prm(project / "runs" / "a", device="cpu").score_all(SOLUTIONS[:1])
    project.rename(tmp_path / "moved")
    assert prmkit.load_prm(tmp_path / "moved" / "runs" / "a", device="cpu").score_all(SOLUTIONS[:1]) == before


def lora(folder: Path, base: Path) -> None:
    """An adapter as the trainers save it: adapter_config.json names the base by its absolute path."""
    settings = LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "down_proj"], init_lora_weights=False)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        get_peft_model(AutoModelForCausalLM.from_pretrained(base), settings).save_pretrained(str(folder))
    byte_tokenizer().save_pretrained(folder)


@pytest.mark.parametrize("stays", [False, True], ids=["moved", "copied, and another base stands in the old place"])
def test_an_adapter_and_its_base_can_be_moved_together(tmp_path: Path, stays: bool) -> None:
    project = tmp_path / "deep" / "project"
    base, folder = project / "models" / "base", project / "runs" / "a" / "checkpoints" / "step_000002" / "prm"
    language_model(base, seed=1)
    lora(folder, base)
    assert json.loads((folder / "adapter_config.json").read_text())["base_model_name_or_path"] == str(base)
    write_spec(folder, PRMSpec(family="implicit", reference="base", beta=2.0))
    spec = read_spec(folder)
    assert spec is not None
    assert spec.base == "../../../../../models/base"
    before = prmkit.load_prm(project / "runs" / "a", device="cpu").score_all(SOLUTIONS[:1])
    project.rename(tmp_path / "moved")
    if stays:
        language_model(base, seed=7)
    moved = tmp_path / "moved" / folder.relative_to(project)
    assert prmkit.load_prm(tmp_path / "moved" / "runs" / "a", device="cpu").score_all(SOLUTIONS[:1]) == before
    assert base_folder(moved) == (tmp_path / "moved" / "models" / "base").resolve()
    merged, _ = load_model(replace(CPU, path=str(moved)), work_dir=tmp_path, seed=0)  # to go on training, or to sample
    asked = torch.tensor([[3, 4, 5]])
    adapted = read_merged(moved, AutoModelForCausalLM, torch.float32)
    assert torch.equal(merged(asked).logits, adapted(asked).logits)


def test_an_adapter_without_its_base_is_told_where_it_was(tmp_path: Path) -> None:
    """prm.json of before, which says nothing of the base, is read as it was."""
    base, folder = tmp_path / "base", tmp_path / "prm"
    language_model(base, seed=1)
    lora(folder, base)
    write_spec(folder, PRMSpec(family="implicit", reference="base"))
    spec = json.loads((folder / "prm.json").read_text())
    del spec["base"]
    (folder / "prm.json").write_text(json.dumps(spec))
    assert base_folder(folder) == base.resolve()
    base.rename(tmp_path / "elsewhere")
    with pytest.raises(ModelError, match=f"its base {base} is not there; put it back"):
        prmkit.load_prm(folder, device="cpu")


def test_a_reference_elsewhere_keeps_its_absolute_name(tmp_path: Path) -> None:
    """/cache/model is in no project with /home/me/project/runs/a; prm.json with absolute names is read as before."""
    policy, elsewhere = tmp_path / "home" / "me" / "project" / "runs" / "a", tmp_path / "cache" / "model"
    language_model(policy, seed=1)
    language_model(elsewhere, seed=2)
    write_spec(policy, PRMSpec(family="implicit", reference=str(elsewhere)))
    spec = read_spec(policy)
    assert spec is not None
    assert spec.reference == str(elsewhere)
    assert isinstance(prmkit.load_prm(policy, device="cpu").score_all(SOLUTIONS[:1])[0], StepRewards)


def test_what_stands_between_steps(tmp_path: Path) -> None:
    """A known text is kept, else the PRM's own separator is taken, and with keep_text = false it is taken always."""
    model = language_model(tmp_path / "lm")
    listed = solution("1+1?", "ab", "cd")
    known = replace(listed, separator="\n")

    def scored(keep_text: bool, item: Solution) -> list[float]:
        spec = PRMSpec(family="log_prob", separator=" ; ", keep_text=keep_text)
        prm = prmkit.load_prm(tmp_path / "lm", spec=spec, device="cpu")
        assert list(prm.score("1+1?", ["ab", "cd"]).values) == values(prm.score_all([listed])[0])
        return values(prm.score_all([item])[0])

    own, line = (plain_steps(model, replace(listed, separator=text)) for text in (" ; ", "\n"))
    assert abs(own[0] - line[0]) > 1
    for keep_text, item, expected in (
        (True, listed, own),
        (True, known, line),
        (False, listed, own),
        (False, known, own),
    ):
        assert scored(keep_text, item) == pytest.approx(expected, abs=1e-3)


def test_bfloat16_is_the_same_up_to_its_precision(tmp_path: Path) -> None:
    """bfloat16 has 8 bits: each of a step's log-probs is off by a few hundredths, not more."""
    language_model(tmp_path / "lm")
    spec = PRMSpec(family="log_prob")
    full, half = (prmkit.load_prm(tmp_path / "lm", spec=spec, device="cpu", dtype=d) for d in ("float32", "bfloat16"))
    head: Any = half.head
    assert {p.dtype for p in head.policy.model.parameters()} == {torch.bfloat16}
    for a, b, item in zip(full.score_all(SOLUTIONS), half.score_all(SOLUTIONS), SOLUTIONS, strict=True):
        per_token = [abs(x - y) / len(step) for x, y, step in zip(values(a), values(b), item.steps, strict=True)]
        assert max(per_token) < 0.15
        assert values(a) != values(b)
