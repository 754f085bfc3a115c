"""What every layout makes of prompts, system turns and long texts."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from prm_models import byte_tokenizer, classifier, language_model, solution

from prmkit.data.layouts import LaidOut, as_response, one_text, separated, turns
from prmkit.data.prm_spec import PRMSpec, read_spec
from prmkit.data.types import Message, Solution
from prmkit.engines.local.prms.load import load_prm
from prmkit.errors import DataError, ModelError
from prmkit.protocols import Unscored


def chat_layout(tokenizer: Any, item: Solution, **more: Any) -> LaidOut:
    return separated(tokenizer, item, separator="\n", chat=True, **more)


def plain_layout(tokenizer: Any, item: Solution) -> LaidOut:
    return separated(tokenizer, item, separator="\n", chat=False)


def turns_layout(tokenizer: Any, item: Solution, **more: Any) -> LaidOut:
    return turns(tokenizer, item, after_prompt=" ", label="+", **more)[-1]


def one_text_layout(tokenizer: Any, item: Solution) -> LaidOut:
    (tag,) = tokenizer.encode("ки")
    return one_text(tokenizer, item, separator="ки\n", after_prompt=" ", tag=tag)


@pytest.fixture
def said() -> Iterator[list[str]]:
    """What transformers logs meanwhile."""
    messages: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: messages.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("transformers")
    logger.addHandler(handler)
    yield messages
    logger.removeHandler(handler)


@pytest.mark.parametrize("layout", [chat_layout, plain_layout, turns_layout, one_text_layout, as_response])
@pytest.mark.parametrize("item", [solution("1" * 600, "2"), solution("1+1?", "2" * 600)], ids=["prompt", "step"])
def test_a_long_text_is_no_matter_for_a_warning(
    layout: Callable[[Any, Solution], LaidOut], item: Solution, said: list[str]
) -> None:
    """Whoever asked for the tokens says what is too long; transformers would add that indexing errors will follow."""
    tokenizer = byte_tokenizer(context=512)
    assert len(layout(tokenizer, item).token_ids) > 512
    assert said == []
    tokenizer("1" * 600)
    assert "longer than the specified maximum" in said[0]  # the logger was listened to


def response_layout(tokenizer: Any, item: Solution, **more: Any) -> LaidOut:
    return as_response(tokenizer, item, **more)


@pytest.mark.parametrize("layout", [chat_layout, turns_layout, response_layout])
def test_a_system_turn_comes_before_a_prompt_that_has_none(layout: Callable[..., LaidOut]) -> None:
    tokenizer, item = byte_tokenizer(), solution("1+1?", "2")
    own = replace(item.prompt, messages=(Message(role="system", content="Own."), *item.prompt.messages))
    bare, told = (layout(tokenizer, item, system=system).token_ids for system in ("", "Judge."))
    assert tokenizer.decode(told) == "<im_start>system\nJudge.<im_end>\n" + tokenizer.decode(bare)
    kept = layout(tokenizer, replace(item, prompt=own), system="Judge.")
    assert tokenizer.decode(kept.token_ids) == "<im_start>system\nOwn.<im_end>\n" + tokenizer.decode(bare)


@pytest.mark.parametrize("layout", [plain_layout, one_text_layout])
def test_a_prompt_of_several_turns_has_no_plain_text(layout: Callable[[Any, Solution], LaidOut]) -> None:
    item = solution("1+1?", "2")
    asked = (Message(role="user", content="x=5"), Message(role="assistant", content="ok"), *item.prompt.messages)
    several = replace(item, prompt=replace(item.prompt, messages=asked))
    with pytest.raises(DataError, match=r"prompt 'p' has 3 turns \(user, assistant, user\), .* as one user turn"):
        layout(byte_tokenizer(), several)


SIGNS = {"labels": ("+", "-")}


@pytest.mark.parametrize(
    "spec",
    [
        PRMSpec(family="implicit", system="Judge."),
        PRMSpec(family="log_prob", system="Judge."),
        PRMSpec(family="label_turns", system="Judge.", **SIGNS),
        PRMSpec(family="label_tokens", separator="\n", system="Judge.", **SIGNS),
    ],
    ids=lambda spec: spec.family,
)
def test_the_specs_system_turn_changes_the_rewards(spec: PRMSpec, tmp_path: Path) -> None:
    language_model(tmp_path)
    told, bare = (load_prm(tmp_path, spec=s, device="cpu") for s in (spec, replace(spec, system="")))
    asked = [Message(role="system", content="Judge."), Message(role="user", content="1+1?")]
    assert told.score("1+1?", ["2"]).values == pytest.approx(bare.score(asked, ["2"]).values)
    assert told.score("1+1?", ["2"]).values != pytest.approx(bare.score("1+1?", ["2"]).values)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (
            PRMSpec(family="log_prob", chat=False),
            "the family log_prob always reads the prompt through the chat template",
        ),
        (
            PRMSpec(family="label_tokens", separator="ки", one_text=True, system="Judge.", **SIGNS),
            r"system = 'Judge\.' is set, but a label_tokens model with one_text = true",
        ),
        (PRMSpec(family="label_tokens", separator="\n", chat=False, system="J", **SIGNS), "with chat = false reads"),
        (
            PRMSpec(family="label_tokens", separator="ки", one_text=True, **SIGNS),
            "label_tokens model has chat = true, but one",
        ),
        (
            PRMSpec(family="label_tokens", separator="\n", after_prompt=" ", **SIGNS),
            "after_prompt = ' ', but a chat template",
        ),
        (
            PRMSpec(family="label_turns", separator="\n", **SIGNS),
            r"separator = '\\n', but each step is a turn of a chat",
        ),
        (PRMSpec(family="log_prob", **SIGNS), r"labels = \('\+', '-'\), but the family has none to read"),
        (PRMSpec(family="log_prob", one_text=True), "one_text = true, but only label_tokens reads"),
    ],
)
def test_what_a_family_does_not_do_is_refused(spec: PRMSpec, message: str, tmp_path: Path) -> None:
    language_model(tmp_path)
    with pytest.raises(ModelError, match=message):
        load_prm(tmp_path, spec=spec, device="cpu")


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("chat", "false", "chat is 'false', but it is true or false"),
        ("beta", -0.05, "beta is -0.05, but it is a positive number"),
        ("beta", "0.05", "beta is '0.05', but it is a positive number"),
        ("separator", None, "separator is None, but it is a text"),
        ("labels", "+-", r"labels is '\+-', but it is a list of texts"),
    ],
)
def test_a_prm_json_with_a_value_of_another_kind_is_refused(
    key: str, value: object, message: str, tmp_path: Path
) -> None:
    (tmp_path / "prm.json").write_text(json.dumps({"family": "implicit", key: value}))
    with pytest.raises(ModelError, match=rf"prm\.json: not a description of a reward model \({message}"):
        read_spec(tmp_path)


def test_a_plain_classifier_leaves_prompts_of_several_turns_unscored(tmp_path: Path) -> None:
    classifier(tmp_path)
    item = solution("1+1?", "2")
    system = Message(role="system", content="Be brief.")
    several = replace(item, id="several", prompt=replace(item.prompt, messages=(system, *item.prompt.messages)))
    unscored, scored = load_prm(tmp_path, device="cpu").score_all([several, item])
    assert isinstance(unscored, Unscored)
    assert "has 2 turns (system, user)" in unscored.reason
    assert not isinstance(scored, Unscored)
