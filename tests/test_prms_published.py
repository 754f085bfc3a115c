"""Published layouts of single models: each against the plain formula of its authors' own code, one solution at a time."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from prm_models import (
    CHATML,
    SOLUTIONS,
    byte_tokenizer,
    hidden_states,
    language_model,
    process_reward_model,
    skywork_model,
    solution,
)
from safetensors.torch import load_file, save_file

import prmkit
from prmkit.data.prm_spec import PRMSpec, write_spec
from prmkit.data.types import Message, Prompt, Solution, StepRewards
from prmkit.errors import ModelError
from prmkit.protocols import Unscored

QWEN_SYSTEM = r"Please reason step by step, and put your final answer within \boxed{}."


def scored(folder: Path, items: list[Solution] = SOLUTIONS, **settings: Any) -> list[list[float]]:
    results = prmkit.load_prm(folder, device="cpu", **settings).score_all(items)
    bad = [result for result in results if isinstance(result, Unscored) or result.kind != "probability"]
    assert bad == []
    return [list(result.values) for result in results if isinstance(result, StepRewards)]


def test_qwen_process_reward_model(tmp_path: Path) -> None:
    """Model card: system, user, assistant with <extra_0> after each step, as one text; softmax[1] at <extra_0>."""
    model, score = process_reward_model(tmp_path)
    tokenizer = byte_tokenizer()
    for item, values in zip(SOLUTIONS, scored(tmp_path), strict=True):
        messages = [
            {"role": "system", "content": QWEN_SYSTEM},
            {"role": "user", "content": item.prompt.messages[0].content},
            {"role": "assistant", "content": "<extra_0>".join(item.steps) + "<extra_0>"},
        ]
        ids = tokenizer.encode(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=False))
        at = [i for i, token in enumerate(ids) if token == tokenizer.convert_tokens_to_ids("<extra_0>")]
        inner = (hidden_states(model, ids) @ score["score.0.weight"].T + score["score.0.bias"]).relu()
        logits = inner @ score["score.2.weight"].T + score["score.2.bias"]
        assert values == pytest.approx(logits[at].softmax(-1)[:, 1].tolist(), abs=1e-6)


def test_a_prompts_own_system_turn_stays_the_only_one(tmp_path: Path) -> None:
    process_reward_model(tmp_path)
    prm = prmkit.load_prm(tmp_path, device="cpu")
    asked = [Message(role="system", content="Be brief."), Message(role="user", content="1+1?")]
    text = byte_tokenizer().decode(
        prm.head.lay_out(Solution(id="s", prompt=Prompt(id="p", messages=tuple(asked), answer=""), steps=("2",)))[
            0
        ].token_ids
    )
    assert text == "<im_start>system\nBe brief.<im_end>\n<im_start>user\n1+1?<im_end>\n<im_start>assistant\n2<extra_0>"
    assert prm.score(asked, ["2"]) != prm.score("1+1?", ["2"])


@pytest.mark.parametrize("architecture", ["Qwen2ForPrmModel", "Qwen2ForRewardModel"])
def test_skywork_value_head(tmp_path: Path, architecture: str) -> None:
    """skywork-o1-prm-inference: bos + problem + newline, then each step and a newline; sigmoid of the value at the newline."""
    model, head_D1 = skywork_model(tmp_path, architecture=architecture)
    tokenizer = byte_tokenizer(begin=True)
    for item, values in zip(SOLUTIONS, scored(tmp_path), strict=True):
        ids = tokenizer.encode(tokenizer.bos_token + item.prompt.messages[0].content + "\n")
        flags = []
        for step in item.steps:
            ids += [*tokenizer.encode(step), tokenizer.encode("\n")[-1]]
            flags.append(len(ids) - 1)
        value = hidden_states(model, ids)[flags] @ head_D1[:-1] + head_D1[-1]
        assert values == pytest.approx(value.sigmoid().tolist(), abs=1e-6)


def test_own_outcome_folder(tmp_path: Path) -> None:
    """A causal LM, value_head.safetensors and prm.json, as `prmkit train outcome` writes them."""
    model = language_model(tmp_path)
    head = {"weight": torch.randn(1, 32, generator=torch.Generator().manual_seed(3)), "bias": torch.tensor([0.25])}
    save_file(head, tmp_path / "value_head.safetensors")
    write_spec(tmp_path, PRMSpec(family="value_head", separator="\n\n", chat=False))
    tokenizer = byte_tokenizer()
    for item, values in zip(SOLUTIONS, scored(tmp_path), strict=True):
        ids = tokenizer.encode(item.prompt.messages[0].content)
        ends = []
        for step in item.steps:
            ids += tokenizer.encode(step + "\n\n")
            ends.append(len(ids) - 1)
        value = hidden_states(model, ids)[ends] @ head["weight"][0] + 0.25
        assert values == pytest.approx(value.sigmoid().tolist(), abs=1e-6)


def test_math_shepherd(tmp_path: Path) -> None:
    """Model card: tokenizer.encode(f"{question} {output}"), softmax over the logits of + and - at the tag."""
    model = language_model(tmp_path, begin=True, template=None)
    tokenizer = byte_tokenizer(begin=True)
    labels = [tokenizer.convert_tokens_to_ids("+"), tokenizer.convert_tokens_to_ids("-")]
    for item, values in zip(SOLUTIONS, scored(tmp_path, spec="math-shepherd"), strict=True):
        output = "\n".join(f"{step} ки" for step in item.steps)
        text = f"{item.prompt.messages[0].content} {output}"
        ids = [tokenizer.bos_token_id, *tokenizer.encode(text)]
        with torch.no_grad():
            p_TC = model(torch.tensor([ids])).logits[0][:, labels].softmax(-1)
        at = [i for i, token in enumerate(ids) if token == tokenizer.convert_tokens_to_ids("ки")]
        assert values == pytest.approx(p_TC[at, 0].tolist(), abs=1e-6)


def test_a_solution_that_holds_the_tag_is_unscored(tmp_path: Path) -> None:
    language_model(tmp_path)
    prm = prmkit.load_prm(tmp_path, spec="math-shepherd", device="cpu")
    bad, good = prm.score_all([solution("Which жуки are these?", "bugs", id="bugs"), SOLUTIONS[0]])
    assert isinstance(bad, Unscored)
    assert "'ки' is found 2 times for 1 steps" in bad.reason
    assert isinstance(good, StepRewards)


def test_a_tag_of_several_tokens_is_refused(tmp_path: Path) -> None:
    language_model(tmp_path, added=())
    with pytest.raises(ModelError, match=r"the step tag 'ки' is 4 tokens .* and must be one"):
        prmkit.load_prm(tmp_path, spec="math-shepherd", device="cpu")


@pytest.mark.parametrize("neutral_is_right", [True, False])
def test_label_tokens_by_the_separators_rule_with_neutral(tmp_path: Path, neutral_is_right: bool) -> None:
    model = language_model(tmp_path)
    spec = PRMSpec(
        family="label_tokens", separator="\n\n", labels=("+", "-", "="), chat=False, neutral_is_right=neutral_is_right
    )
    tokenizer = byte_tokenizer()
    labels = [tokenizer.convert_tokens_to_ids(label) for label in "+-="]
    for item, values in zip(SOLUTIONS, scored(tmp_path, spec=spec), strict=True):
        ids = tokenizer.encode(item.prompt.messages[0].content)
        ends = []
        for step in item.steps:
            ids += tokenizer.encode(step + "\n\n")
            ends.append(len(ids) - 1)
        with torch.no_grad():
            p_KC = model(torch.tensor([ids])).logits[0][ends][:, labels].softmax(-1)
        expected = p_KC[:, 0] + (p_KC[:, 2] if neutral_is_right else 0)
        assert values == pytest.approx(expected.tolist(), abs=1e-6)


LAST_QUESTION_MARKED = (
    "{% set ns = namespace(last=-1) %}"
    "{% for m in messages %}{% if m['role'] == 'user' %}{% set ns.last = loop.index0 %}{% endif %}{% endfor %}"
    "{% for m in messages %}<im_start>{{ m['role'] }}\n{% if loop.index0 == ns.last %}Now: {% endif %}{{ m['content'] }}"
    "<im_end>\n{% endfor %}{% if add_generation_prompt %}<im_start>assistant\n{% endif %}"
)
"""Writes the last user turn in another way, as some put the system prompt there, so no prefix is stable."""


@pytest.mark.parametrize("template", [CHATML, LAST_QUESTION_MARKED], ids=["stable", "unstable"])
def test_rlhflow_turns(tmp_path: Path, template: str) -> None:
    """math-rm/prm_evaluate.py: a conversation per step, all answers so far "+"; the logits that predict the last answer."""
    model = language_model(tmp_path, template=template)
    tokenizer = byte_tokenizer(template=template)
    labels = [tokenizer.convert_tokens_to_ids(label) for label in "+-"]
    prm = prmkit.load_prm(tmp_path, spec="rlhflow", device="cpu")
    assert [len(prm.head.lay_out(item)) for item in SOLUTIONS] == ([1] * 4 if template == CHATML else [3, 1, 2, 4])
    for item, values in zip(SOLUTIONS, scored(tmp_path, spec="rlhflow"), strict=True):
        conversation: list[dict[str, str]] = []
        expected = []
        for k, step in enumerate(item.steps):
            text = f"{item.prompt.messages[0].content} {step}" if k == 0 else step
            conversation.append({"role": "user", "content": text})
            ids = tokenizer.apply_chat_template(conversation, add_generation_prompt=True, return_dict=False)
            with torch.no_grad():
                expected.append(model(torch.tensor([ids])).logits[0, -1, labels].softmax(-1)[0].item())
            conversation.append({"role": "assistant", "content": "+"})
        assert values == pytest.approx(expected, abs=1e-6)


def test_turns_need_an_answer_of_one_token(tmp_path: Path) -> None:
    language_model(tmp_path)
    spec = PRMSpec(family="label_turns", labels=("yes", "no"), after_prompt=" ")
    with pytest.raises(ModelError, match="does not write the answer 'yes' as one token"):
        prmkit.load_prm(tmp_path, spec=spec, device="cpu")


def test_a_plain_causal_lm_asks_for_its_spec(tmp_path: Path) -> None:
    language_model(tmp_path)
    with pytest.raises(ModelError, match=r"does not say what kind of PRM it is.*Give spec.*math-shepherd.*label_turns"):
        prmkit.load_prm(tmp_path)


def test_a_reward_model_of_whole_responses_is_named(tmp_path: Path) -> None:
    language_model(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"architectures": ["Qwen2ForRewardModel"]}))
    with pytest.raises(ModelError, match="It scores whole responses, and has no number for a step"):
        prmkit.load_prm(tmp_path)


def test_missing_tensors_are_named(tmp_path: Path) -> None:
    process_reward_model(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    del tensors["score.2.bias"]
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(
        ModelError, match=r"the weights lack 1 of the tensors of Qwen2ForProcessRewardModel, such as score\.2\.bias"
    ):
        prmkit.load_prm(tmp_path)


def test_a_value_head_of_another_width_is_refused(tmp_path: Path) -> None:
    language_model(tmp_path)
    save_file({"weight": torch.zeros(1, 16), "bias": torch.zeros(1)}, tmp_path / "value_head.safetensors")
    with pytest.raises(ModelError, match=r"should be weight \(1, 32\) and bias \(1,\).*but is \{.*16"):
        prmkit.load_prm(tmp_path, spec=PRMSpec(family="value_head"))


def test_a_tokenizer_that_belongs_to_a_larger_model_is_refused(tmp_path: Path) -> None:
    language_model(tmp_path)
    byte_tokenizer(added=[f"<{i}>" for i in range(20)]).save_pretrained(tmp_path)
    with pytest.raises(ModelError, match=r"the tokenizer has 2\d\d tokens, the model knows 269"):
        prmkit.load_prm(tmp_path, spec="log-prob")


def test_of_a_run_the_last_checkpoints_prm_is_loaded(tmp_path: Path) -> None:
    for step, seed in (("step_000010", 1), ("step_000020", 2)):
        process_reward_model(tmp_path / "checkpoints" / step / "prm", seed=seed)
    last = scored(tmp_path / "checkpoints" / "step_000020" / "prm")
    assert scored(tmp_path) == last


def test_score_takes_text_turns_or_a_prompt(tmp_path: Path) -> None:
    process_reward_model(tmp_path)
    prm = prmkit.load_prm(tmp_path, device="cpu")
    turns = [Message(role="user", content="1+1?")]
    one = prm.score("1+1?", ["2", "So 2."])
    assert one == prm.score(turns, ["2", "So 2."])
    assert one == prm.score(Prompt(id="p", messages=tuple(turns), answer="2"), ["2", "So 2."])
    assert len(one.values) == 2


def test_smollm2_is_found_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRMKIT_CACHE", str(tmp_path))
    language_model(tmp_path / "smollm2-135m-instruct")  # as if it had been converted before
    prm = prmkit.load_prm("smollm2", spec=PRMSpec(family="log_prob"), device="cpu")
    prompt = Prompt(id="", messages=(Message(role="user", content="w1"),), answer="")
    assert isinstance(prm.score_all([Solution(id="", prompt=prompt, steps=("w2 w3",))])[0], StepRewards)
