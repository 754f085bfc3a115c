"""Exported folders: loaded by transformers' Auto classes and by load_prm, with the numbers of the PRM that was exported."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, TaskType, get_peft_model
from prm_models import (
    SOLUTIONS,
    byte_tokenizer,
    classifier,
    language_model,
    process_reward_model,
    skywork_model,
    write_layout,
)
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoModelForTokenClassification, AutoTokenizer

import prmkit
from prmkit.cli.main import main
from prmkit.data.prm_spec import PRMSpec, read_spec, write_spec
from prmkit.data.types import StepRewards
from prmkit.engines.local.prms.export import export_prm
from prmkit.errors import ConfigError, ModelError

SEPARATED = PRMSpec(family="token_classification", separator="\n", chat=False)


def scored(folder: Path, spec: PRMSpec | str | None = None) -> list[float]:
    results = prmkit.load_prm(folder, spec=spec, device="cpu").score_all(SOLUTIONS)
    assert all(isinstance(result, StepRewards) for result in results)
    return [value for result in results if isinstance(result, StepRewards) for value in result.values]


def classified(folder: Path, separator: str = "\n", begin: bool = False, after: str = "") -> list[float]:
    """softmax[1] of the folder's AutoModelForTokenClassification at each separator's last byte."""
    model = AutoModelForTokenClassification.from_pretrained(folder).eval()
    tokenizer = byte_tokenizer(begin=begin)
    values = []
    for item in SOLUTIONS:
        ids = [*([tokenizer.bos_token_id] if begin else []), *tokenizer.encode(item.prompt.messages[0].content + after)]
        for step in item.steps:
            ids += tokenizer.encode(step + separator)
            with torch.no_grad():  # what comes later cannot change it
                values.append(model(torch.tensor([ids])).logits[0, -1].softmax(-1)[1].item())
    return values


def test_a_classifiers_adapter_is_merged(tmp_path: Path) -> None:
    classifier(tmp_path / "base")
    settings = LoraConfig(
        r=4, task_type=TaskType.TOKEN_CLS, target_modules=["q_proj"], modules_to_save=["score"], init_lora_weights=False
    )
    adapted: Any = get_peft_model(AutoModelForTokenClassification.from_pretrained(tmp_path / "base"), settings)
    adapted.save_pretrained(str(tmp_path / "adapter"))
    byte_tokenizer().save_pretrained(tmp_path / "adapter")
    before = scored(tmp_path / "adapter")
    assert before != pytest.approx(scored(tmp_path / "base"), abs=1e-3)
    export_prm(tmp_path / "adapter", tmp_path / "out")
    assert scored(tmp_path / "out") == pytest.approx(before, abs=1e-6)
    assert classified(tmp_path / "out") == pytest.approx(before, abs=1e-6)
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["architectures"] == ["LlamaForTokenClassification"]
    assert config["id2label"] == {"0": "wrong", "1": "right"}


def test_a_value_head_becomes_two_classes(tmp_path: Path) -> None:
    """sigmoid(v) = e^v / (e^0 + e^v) = softmax(0, v)[1]."""
    skywork_model(tmp_path / "skywork")
    before = scored(tmp_path / "skywork")
    export_prm(tmp_path / "skywork", tmp_path / "out")
    assert scored(tmp_path / "out") == pytest.approx(before, abs=1e-6)
    assert classified(tmp_path / "out", begin=True, after="\n") == pytest.approx(before, abs=1e-6)


@pytest.mark.parametrize("form", ["token_classification", "process_reward"])
def test_label_tokens_become_classes(tmp_path: Path, form: Any) -> None:
    language_model(tmp_path / "lm")
    spec = PRMSpec(family="label_tokens", separator="\n", labels=("+", "-"), chat=False)
    write_spec(tmp_path / "lm", spec)
    before = scored(tmp_path / "lm")
    export_prm(tmp_path / "lm", tmp_path / "out", form)
    assert scored(tmp_path / "out") == pytest.approx(before, abs=1e-6)


@pytest.mark.parametrize("names", [{}, {"id2label": {0: "correct", 1: "incorrect"}}], ids=["unnamed", "right_first"])
def test_a_qwen2_classifier_as_process_reward_model(tmp_path: Path, names: dict[str, Any]) -> None:
    """One linear layer is Linear, ReLU, Linear exactly: x = relu(x) - relu(-x)."""
    language_model(tmp_path / "qwen2")
    model = AutoModelForTokenClassification.from_pretrained(tmp_path / "qwen2", **names).eval()
    with torch.no_grad():
        model.score.weight.normal_(generator=torch.Generator().manual_seed(0))
        model.score.bias.copy_(torch.tensor([0.5, -0.25]))
    model.save_pretrained(tmp_path / "qwen2")
    before = scored(tmp_path / "qwen2", None if names else "trl")
    export_prm(tmp_path / "qwen2", tmp_path / "out", "process_reward")
    assert scored(tmp_path / "out") == pytest.approx(before, abs=1e-5)
    assert json.loads((tmp_path / "out" / "config.json").read_text())["architectures"] == ["Qwen2ForProcessRewardModel"]
    heads = {
        name: tuple(t.shape) for name, t in load_file(tmp_path / "out" / "model.safetensors").items() if "score" in name
    }
    assert heads == {"score.0.weight": (32, 32), "score.0.bias": (32,), "score.2.weight": (2, 32), "score.2.bias": (2,)}


def test_a_process_reward_model_stays_one(tmp_path: Path) -> None:
    process_reward_model(tmp_path / "qwen")
    export_prm(tmp_path / "qwen", tmp_path / "out")
    assert scored(tmp_path / "out") == pytest.approx(scored(tmp_path / "qwen"), abs=1e-6)
    before, after = (load_file(tmp_path / name / "model.safetensors") for name in ("qwen", "out"))
    assert set(after) == set(before) - {"lm_head.weight"}
    tag = AutoTokenizer.from_pretrained(tmp_path / "out").convert_tokens_to_ids("<extra_0>")
    assert json.loads((tmp_path / "out" / "pooler_config.json").read_text()) == {
        "pooling_type": "STEP",
        "step_tag_id": tag,
    }


@pytest.mark.parametrize("reference", ["base", "../other", ""])
def test_an_implicit_prm_is_written_with_its_reference(tmp_path: Path, reference: str) -> None:
    language_model(tmp_path / "base")
    language_model(tmp_path / "other", seed=5)
    settings = LoraConfig(r=4, target_modules=["q_proj"], init_lora_weights=False)
    adapted: Any = get_peft_model(AutoModelForCausalLM.from_pretrained(tmp_path / "base"), settings)
    adapted.save_pretrained(str(tmp_path / "adapter"))
    byte_tokenizer().save_pretrained(tmp_path / "adapter")
    write_spec(tmp_path / "adapter", PRMSpec(family="implicit", reference=reference, beta=0.5))
    before = scored(tmp_path / "adapter")
    export_prm(tmp_path / "adapter", tmp_path / "out")
    (tmp_path / "out").rename(tmp_path / "moved")  # nothing points out of it
    assert scored(tmp_path / "moved") == pytest.approx(before, abs=1e-3)
    ids = torch.tensor([[60, 61, 62]])
    policy = AutoModelForCausalLM.from_pretrained(tmp_path / "moved").eval()
    with torch.no_grad():
        assert torch.allclose(policy(ids).logits, adapted.eval()(ids).logits, atol=1e-4)
    assert (tmp_path / "moved" / "reference" / "config.json").is_file() == bool(reference)


def test_math_shepherds_pooler_names_tag_and_labels(tmp_path: Path) -> None:
    language_model(tmp_path / "lm")
    write_spec(
        tmp_path / "lm", PRMSpec(family="label_tokens", separator=" ки\n", labels=("+", "-"), chat=False, one_text=True)
    )
    export_prm(tmp_path / "lm", tmp_path / "out")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert json.loads((tmp_path / "out" / "pooler_config.json").read_text()) == {
        "pooling_type": "STEP",
        "step_tag_id": tokenizer.convert_tokens_to_ids("ки"),
        "returned_token_ids": [tokenizer.convert_tokens_to_ids("+"), tokenizer.convert_tokens_to_ids("-")],
    }
    assert scored(tmp_path / "out") == pytest.approx(scored(tmp_path / "lm"), abs=1e-6)


def test_a_separator_of_several_tokens_cannot_be_a_step_tag(tmp_path: Path) -> None:
    classifier(tmp_path / "trl")
    write_spec(tmp_path / "trl", PRMSpec(family="token_classification", separator="\n\n", chat=False))
    export_prm(tmp_path / "trl", tmp_path / "out")
    assert json.loads((tmp_path / "out" / "pooler_config.json").read_text()) == {"pooling_type": "ALL"}
    assert "The separator is several tokens" in (tmp_path / "out" / "README.md").read_text()


def test_bfloat16_weights_stay_bfloat16(tmp_path: Path) -> None:
    classifier(tmp_path / "trl").to(torch.bfloat16).save_pretrained(tmp_path / "trl")
    export_prm(tmp_path / "trl", tmp_path / "out")
    before, after = (load_file(tmp_path / name / "model.safetensors") for name in ("trl", "out"))
    assert set(before) == set(after)
    assert all(torch.equal(before[name], after[name]) and after[name].dtype == torch.bfloat16 for name in before)


def stored_in_bfloat16(model: Any, folder: Path) -> None:
    model.to(torch.bfloat16).save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)


def test_an_adapter_on_a_bfloat16_base_is_not_rounded_to_it(tmp_path: Path) -> None:
    """A change smaller than half a unit in the last place of the base would be gone, and with it the rewards."""
    stored_in_bfloat16(language_model(tmp_path / "drawn"), tmp_path / "base")
    base = AutoModelForCausalLM.from_pretrained(tmp_path / "base", dtype=torch.float32)
    adapted: Any = get_peft_model(base, LoraConfig(r=4, target_modules="all-linear", task_type=TaskType.CAUSAL_LM))
    generator = torch.Generator().manual_seed(0)
    for name, parameter in adapted.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter, std=2e-4 if "lora_B" in name else 0.1, generator=generator)
    adapted.save_pretrained(str(tmp_path / "adapter"))
    byte_tokenizer().save_pretrained(tmp_path / "adapter")
    write_spec(tmp_path / "adapter", PRMSpec(family="implicit", reference="base"))
    before = torch.tensor(scored(tmp_path / "adapter"))
    export_prm(tmp_path / "adapter", tmp_path / "out")
    assert before.std() > 1e-4
    assert torch.allclose(torch.tensor(scored(tmp_path / "out")), before, atol=2e-5)
    stored = {
        where: {tensor.dtype for tensor in load_file(tmp_path / "out" / where / "model.safetensors").values()}
        for where in (".", "reference")
    }
    assert stored == {".": {torch.float32}, "reference": {torch.bfloat16}}


def test_a_float32_head_on_a_bfloat16_body_is_not_rounded(tmp_path: Path) -> None:
    model, head_D1 = skywork_model(tmp_path / "skywork")
    added = {"v_head.summary.weight": head_D1[None, :-1].clone(), "v_head.summary.bias": head_D1[-1:].clone()}
    model.config.dtype = "bfloat16"
    write_layout(tmp_path / "skywork", model.to(torch.bfloat16), added, "Qwen2ForPrmModel", "modeling_qwen2_rm")
    export_prm(tmp_path / "skywork", tmp_path / "out")
    assert scored(tmp_path / "out") == pytest.approx(scored(tmp_path / "skywork"), abs=1e-6)


def a_plain(folder: Path) -> PRMSpec:
    language_model(folder)
    return PRMSpec(family="implicit")


def a_classifier(folder: Path) -> PRMSpec:
    classifier(folder)
    return SEPARATED


def three_classes(folder: Path) -> PRMSpec:
    language_model(folder)
    return PRMSpec(family="label_tokens", separator="\n", labels=("+", "-", "="), chat=False)


def math_shepherd(folder: Path) -> PRMSpec:
    language_model(folder)
    return PRMSpec(family="label_tokens", separator=" ки\n", labels=("+", "-"), chat=False, one_text=True)


def qwen(folder: Path) -> PRMSpec:
    process_reward_model(folder)
    return PRMSpec(family="process_reward", separator="<extra_0>")


def outcome(folder: Path) -> PRMSpec:
    language_model(folder)
    save_file({"weight": torch.ones(1, 32), "bias": torch.zeros(1)}, folder / "value_head.safetensors")
    return PRMSpec(family="value_head", separator="\n", chat=False)


@pytest.mark.parametrize(
    ("make", "form", "reason"),
    [
        (a_plain, "token_classification", "reward is a log-ratio of two language models, which no head can give"),
        (a_plain, "process_reward", "reward is a log-ratio of two language models, which no head can give"),
        (a_classifier, "causal_lm", "reads its numbers from a head of its own, which a causal LM has no place for"),
        (outcome, "causal_lm", "reads its numbers from a head of its own"),
        (a_classifier, "process_reward", "has a Qwen2 body, this model is a llama"),
        (three_classes, "process_reward", r"has two classes, this head 3: P\(right\) \+ P\(neutral\) is no softmax"),
        (math_shepherd, "token_classification", "it is read in a chat's turns or in one text"),
        (qwen, "token_classification", "two layers with a ReLU between"),
    ],
)
def test_a_form_that_cannot_hold_the_model_is_refused(tmp_path: Path, make: Any, form: Any, reason: str) -> None:
    write_spec_to = make(tmp_path / "prm")
    write_spec(tmp_path / "prm", write_spec_to)
    with pytest.raises(ModelError, match=reason):
        export_prm(tmp_path / "prm", tmp_path / "out", form)
    assert not (tmp_path / "out").exists()


def test_nothing_is_written_over(tmp_path: Path) -> None:
    classifier(tmp_path / "trl")
    (tmp_path / "out").mkdir()
    with pytest.raises(ConfigError, match="is there already; give a new folder"):
        export_prm(tmp_path / "trl", tmp_path / "out")


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    classifier(tmp_path / "trl")
    assert main(["export", "--model", str(tmp_path / "trl"), "--out", str(tmp_path / "out")]) == 0
    assert "token_classification; how to load and serve it is in its README.md" in capsys.readouterr().out
    spec = read_spec(tmp_path / "out")
    assert spec is not None
    assert (spec.family, spec.separator, spec.chat) == ("token_classification", "\n", False)
    assert main(["export", "--model", str(tmp_path / "trl")]) == 2
    assert 'out = "" is empty; set --out to a folder' in capsys.readouterr().err
