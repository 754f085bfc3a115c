"""Verifiers put together: by data source, as weighted means, and what becomes of an undecided part."""

from __future__ import annotations

import threading
import time
import tomllib
from collections.abc import Sequence
from typing import Any, Literal

import pytest

from prmkit.config import JudgeConfig, QAConfig, VerifierConfig, VerifierPart
from prmkit.config_io import from_dict, to_toml
from prmkit.data.types import Prompt, Verdict, VerdictStatus
from prmkit.errors import ConfigError
from prmkit.evaluate.config import EvalConfig
from prmkit.verify import ComposedVerifier, make_verifier
from prmkit.verify.code.bubblewrap import find_bubblewrap
from prmkit.verify.compose import Part, _Lazy


def prompt(task: str = "math", answer: str = "4", **meta: Any) -> Prompt:
    return Prompt(id="p", messages=(), answer=answer, task=task, meta=meta)


class Fixed:
    """Says what it was made with, and notes what it was asked."""

    def __init__(self, verdict: Verdict) -> None:
        self.verdict, self.asked, self.closed = verdict, [], False  # type: ignore[var-annotated]

    def verify(self, responses: Sequence[tuple[Prompt, str]]) -> list[Verdict]:
        self.asked.append([text for _, text in responses])
        return [self.verdict] * len(responses)

    def close(self) -> None:
        self.closed = True

    def __enter__(self) -> Fixed:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def ok(reward: float) -> Fixed:
    return Fixed(Verdict(status="ok", reward=reward))


def failed(status: VerdictStatus) -> Fixed:
    return Fixed(Verdict(status=status, reward=None, detail=f"it was {status}"))


def whole(
    *parts: tuple[Fixed, float], undecided: Literal["whole", "rest"] = "whole", texts: Sequence[str] = ("4",)
) -> list[Verdict]:
    made = [
        Part(name=f"part{i}", verifier=fixed, judges=lambda _: True, weight=weight)
        for i, (fixed, weight) in enumerate(parts)
    ]
    with ComposedVerifier(made, undecided=undecided) as verifier:
        verdicts = verifier.verify([(prompt(), text) for text in texts])
    assert all(fixed.closed for fixed, _ in parts)
    return verdicts


def test_rewards_are_averaged_by_weight() -> None:
    # (3 * 1 + 1 * 0.2) / (3 + 1) = 0.8
    verdict = whole((ok(1.0), 3.0), (ok(0.2), 1.0))[0]
    assert verdict.reward == pytest.approx(0.8)
    assert verdict.detail == "part0 1; part1 0.2"


def test_weights_are_shares_whatever_their_scale() -> None:
    a = whole((ok(1.0), 3e-9), (ok(0.2), 1e-9))[0].reward
    b = whole((ok(1.0), 3e200), (ok(0.2), 1e200))[0].reward
    assert a == pytest.approx(0.8)
    assert b == pytest.approx(0.8)
    assert whole(*[(ok(1.0), 0.1)] * 10)[0].reward == 1.0  # and never above 1 by rounding


def test_each_part_is_asked_once_for_all() -> None:
    first, second = ok(1.0), ok(0.0)
    assert [v.reward for v in whole((first, 1.0), (second, 1.0), texts=["a", "b", "c"])] == [0.5] * 3
    assert first.asked == second.asked == [["a", "b", "c"]]


@pytest.mark.parametrize(
    ("statuses", "expected"),
    [
        (["unparsed"], "unparsed"),
        (["unparsed", "timeout"], "timeout"),
        (["timeout", "error", "unparsed"], "error"),
    ],
)
def test_an_undecided_part_makes_the_whole_undecided(statuses: list[VerdictStatus], expected: str) -> None:
    verdict = whole((ok(1.0), 1.0), *((failed(status), 1.0) for status in statuses))[0]
    assert (verdict.status, verdict.reward) == (expected, None)
    assert verdict.detail == f"part{statuses.index(expected) + 1}: it was {expected}"  # type: ignore[arg-type]


def test_the_rest_may_decide_when_told_so() -> None:
    # the failed part's weight is left out: (1 * 1 + 3 * 0) / 4
    verdict = whole((ok(1.0), 1.0), (failed("timeout"), 100.0), (ok(0.0), 3.0), undecided="rest")[0]
    assert verdict.reward == pytest.approx(0.25)
    assert verdict.detail == "part0 1; part1 timeout (it was timeout); part2 0"
    assert whole((failed("error"), 1.0), (failed("unparsed"), 1.0), undecided="rest")[0].status == "error"


CONFIG = """
[verifier]
timeout_s = 30.0
[[verifier.parts]]
use = "math"
sources = ["math*", "amc"]
[[verifier.parts]]
use = "qa"
sources = ["hotpotqa"]
qa.metric = "f1"
[[verifier.parts]]
use = "function"
function = "verifier_functions:exact"
sources = ["exact", "amc"]
weight = 3.0
"""


def test_by_data_source_from_a_file() -> None:
    config = from_dict(EvalConfig, tomllib.loads(CONFIG), "x.toml")
    assert from_dict(EvalConfig, tomllib.loads(to_toml(config)), "again") == config
    asked = [
        (prompt("math500"), r"\boxed{4.0}"),
        (prompt("hotpotqa", "New York City"), "Answer: New York"),
        (prompt("math500", data_source="exact"), "4"),
        (prompt("amc"), r"\boxed{4}"),
        (prompt("bamboogle"), "4"),
    ]
    with make_verifier(config.verifier) as verifier:
        verdicts = verifier.verify(asked)
        assert isinstance(verifier, ComposedVerifier)
        verifier.check([prompt for prompt, _ in asked[:4]])
        with pytest.raises(ConfigError, match="no part of the verifier is for the data source 'bamboogle'"):
            verifier.check([prompt for prompt, _ in asked])
    assert verdicts[0].reward == 1.0
    assert verdicts[1].reward == pytest.approx(0.8)  # F1 of 2 words of 3 and 2 of 2
    assert verdicts[2].reward == 1.0  # the data source comes before the task
    assert verdicts[3].reward == pytest.approx(0.25)  # right as maths, weight 1; not the exact text, weight 3
    assert verdicts[3].detail == "math 1; verifier_functions:exact 0"
    assert verdicts[4].status == "error"
    assert verdicts[4].detail.startswith("no part of the verifier is for the data source 'bamboogle' (prompt 'p')")


def test_without_configuration_a_prompt_names_its_verifier() -> None:
    with make_verifier(VerifierConfig()) as verifier:
        assert isinstance(verifier, ComposedVerifier)
        words = prompt("hotpotqa", "Paris", verifier="qa")
        verdicts = verifier.verify(
            [(words, "It is\nparis"), (prompt(answer="4"), "#4"), (prompt(verifier="other"), "4")]
        )
        with pytest.raises(ConfigError, match=r"data source 'math' and the verifier 'other'"):
            verifier.check([prompt(verifier="other")])
    assert [verdict.reward for verdict in verdicts] == [1.0, 1.0, None]


def test_a_named_verifier_comes_before_the_prompts() -> None:
    words = prompt("hotpotqa", "4", verifier="code")
    with make_verifier(VerifierConfig(use="qa")) as verifier:
        assert verifier.verify([(words, "Answer: 4")])[0].reward == 1.0


def test_programs_are_refused_before_the_run_where_there_is_no_sandbox(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    find_bubblewrap.cache_clear()  # another test of this process may have found one
    with make_verifier(VerifierConfig()) as verifier:
        assert isinstance(verifier, ComposedVerifier)
        verifier.check([prompt()])  # no program: no sandbox is looked for
        with pytest.raises(ConfigError, match="bubblewrap"):
            verifier.check([prompt(verifier="code")])


def test_threads_make_a_late_verifier_once() -> None:
    """A second sandbox would be closed by nobody."""
    made: list[Fixed] = []
    together = threading.Barrier(4)

    def make() -> Fixed:
        time.sleep(0.05)
        made.append(ok(1.0))
        return made[-1]

    def ask() -> None:
        together.wait()
        late.verify([(prompt(), "4")])

    late = _Lazy(make)
    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    late.close()
    assert [fixed.closed for fixed in made] == [True]
    assert len(made[0].asked) == 4


def test_a_part_that_cannot_be_made_closes_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[str] = []
    monkeypatch.setattr("prmkit.verify.compose.QAVerifier.close", lambda self: closed.append("qa"))
    parts = (VerifierPart(use="qa"), VerifierPart(use="function", function="no_such_module:f"))
    with pytest.raises(ConfigError, match="No module named 'no_such_module'"):
        make_verifier(VerifierConfig(parts=parts))
    assert closed == ["qa"]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"use": "judge"}, 'use = "judge", but judge.url is empty'),
        ({"judge": JudgeConfig(url="http://x"), "parts": (VerifierPart(use="math"),)}, "with parts, set use, function"),
        ({"qa": QAConfig(metric="f1"), "parts": (VerifierPart(use="qa"),)}, "with parts, set use, function"),
        ({"function": "a:b", "parts": (VerifierPart(use="qa"),)}, "with parts, set use, function"),
    ],
)
def test_bad_configuration(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        VerifierConfig(**values)


@pytest.mark.parametrize("weight", [0.0, -1.0, float("nan"), float("inf")])
def test_bad_weights(weight: float) -> None:
    with pytest.raises(ConfigError, match=f"weight = {weight} is out of range"):
        VerifierPart(use="math", weight=weight)
