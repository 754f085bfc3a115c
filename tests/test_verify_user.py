"""A user's function as the verifier: signatures, async, what it may return."""

from __future__ import annotations

from typing import Any

import pytest
from user_rewards import compute_score, no_signature, ours_renamed, trl_chat, verl_bare

from prmkit.config import Signature, VerifierConfig
from prmkit.data.types import Message, Prompt, Verdict
from prmkit.errors import ConfigError
from prmkit.verify import FunctionVerifier, make_verifier
from prmkit.verify.user_function import adapt, load_function, reward_verdict

META = {"level": 3, "data_source": "amc", "extra_info": {"index": 7}}


def item(text: str, answer: str = "4", **meta: Any) -> tuple[Prompt, str]:
    messages = (Message(role="system", content="be brief"), Message(role="user", content="2 + 2?"))
    return Prompt(id="p", messages=messages[1:], answer=answer, meta=META | meta), text


def judged(name: str, *items: tuple[Prompt, str], signature: Signature = "auto", **options: Any) -> list[Verdict]:
    """In this process: the processes are another test's matter."""
    judge = load_function(f"user_rewards:{name}", signature, **options)
    return [judge(one) for one in items]


def test_trl_with_chat_turns() -> None:
    right, wrong, undecided = judged("trl_chat", item("4"), item("5"), item("?"))
    assert (right.reward, wrong.reward) == (1.0, 0.0)
    assert undecided.status == "unparsed"


def test_trl_with_plain_text_has_to_be_named() -> None:
    assert [v.reward for v in judged("trl_text", item("so 4"), item("so 5"), signature="trl_text")] == [1.0, 0.0]
    assert judged("trl_text", item("so 4"))[0].reward == 0.0  # a list of turns does not contain "4"


def test_trl_async_and_loggers() -> None:
    assert [v.reward for v in judged("trl_async", item("4"), item("5"))] == [1.0, 0.0]
    assert judged("trl_loggers", item("4"))[0].reward == 1.0


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("trl_two", "returned a list of 2 for 1 completion, not a list of 1 reward"),
        ("trl_scalar", "returned a float for 1 completion, not a list of 1 reward"),
        ("trl_wants", "the function asks for completion_ids, but prompt 'p' has only answer, completions, data_source"),
    ],
)
def test_trl_functions_that_do_not_fit(name: str, message: str) -> None:
    with pytest.raises(TypeError) as caught:
        judged(name, item("4"))
    assert message in str(caught.value)


def test_verl() -> None:
    right, wrong = judged("compute_score", item("amc/4/7"), item("4"))
    assert right == Verdict(status="ok", reward=1.0, detail="acc: True, pred: amc/4/7")
    assert wrong.reward == 0.0
    assert [v.reward for v in judged("verl_bare", item("4"), item("5"))] == [1.0, 0.0]
    no_score = judged("verl_no_score", item("4"))[0]
    assert (no_score.status, no_score.detail) == (
        "error",
        "the verifier function returned a dictionary without 'score', only acc",
    )


def test_verl_async() -> None:
    right, wrong = judged("verl_async", item("4"), item("5"))
    assert right == Verdict(status="ok", reward=1.0, detail="acc: True")
    assert wrong.reward == 0.0


def test_verl_without_its_own_fields_gets_the_task_and_the_meta() -> None:
    prompt = Prompt(id="p", messages=(), answer="4", task="math", meta={"index": 7})
    assert adapt(compute_score)(prompt, "math/4/7")["score"] == 1.0


def test_our_signature() -> None:
    assert [v.reward for v in judged("ours_renamed", item("4"), item("5"))] == [1.0, 0.0]
    # one loop for all: what an async function keeps open, such as a client, stays usable
    assert [v.reward for v in judged("ours_async", item("4"), item("4"), item("5"))] == [1.0, 1.0, 0.0]


def test_signatures_are_told_by_the_names_of_parameters() -> None:
    prompt, _ = item("")
    assert adapt(ours_renamed)(prompt, "4") == 1.0
    assert adapt(trl_chat)(prompt, "4") == 1.0
    assert adapt(verl_bare)(prompt, "4") is True
    for function in (no_signature, lambda: 1.0, lambda a, b, c: 1.0, lambda a, b, *, c: 1.0):
        with pytest.raises(TypeError, match=r"fit no signature: .*name one in verifier\.signature"):
            adapt(function)


def test_a_range_of_ones_own_becomes_zero_to_one() -> None:
    texts = ("good", "half", "bad", "beyond")
    verdicts = judged("trl_minus", *map(item, texts), value_range=(-1.0, 1.0))
    assert [v.reward for v in verdicts] == [1.0, 0.5, 0.0, None]
    assert verdicts[3].detail.startswith("the verifier function returned 2.0, not in [-1, 1]")
    assert judged("trl_minus", item("bad"))[0].status == "error"


def test_numbers_of_other_libraries() -> None:
    np = pytest.importorskip("numpy")
    assert reward_verdict(np.float32(0.5)).reward == 0.5
    assert reward_verdict(np.float64("nan")).status == "error"
    assert adapt(lambda completions: np.array([0.25]))(*item("4")) == 0.25


def test_in_workers_with_configuration() -> None:
    config = VerifierConfig(
        function="user_rewards:trl_minus", signature="trl", function_range=(-1.0, 1.0), timeout_s=30.0
    )
    with make_verifier(config) as verifier:
        assert [v.reward for v in verifier.verify([item("good"), item("bad")])] == [1.0, 0.0]


def test_an_async_function_that_hangs_is_killed() -> None:
    with FunctionVerifier("user_rewards:ours_hangs", workers=1, timeout_s=0.5) as verifier:
        assert verifier.verify([item("4")])[0].status == "timeout"


def test_a_function_that_fits_no_signature_is_refused_at_once() -> None:
    with pytest.raises(ConfigError, match=r"its parameters \(text\) fit no signature"):
        make_verifier(VerifierConfig(function="user_rewards:no_signature"))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"use": "function"}, 'use = "function", but function is empty'),
        ({"use": "math", "function": "a:b"}, "use = \"math\", but function = 'a:b' is set"),
        ({"function": "a:b", "function_range": (1.0, 0.0)}, r"function_range = \[1.0, 0.0\] is no range"),
        ({"function": "a:b", "function_range": (0.0, float("inf"))}, "is no range"),
        ({"recycle_after": -1}, "recycle_after = -1 is out of range"),
        ({"memory_mb": -1}, "memory_mb = -1 is out of range"),
    ],
)
def test_bad_configuration(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        VerifierConfig(**values)
