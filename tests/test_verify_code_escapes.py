"""Programs that try to break out, or to look right without being right. Each case says what happened to it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from code_setup import benchmark_module, bubblewrap_verifier

from prmkit.verify.code import CodeConfig, CodeVerifier

escapes = benchmark_module("_escapes")
TIME_S = 1.0


@pytest.fixture(scope="module")
def outside() -> Iterator[Any]:
    with escapes.world() as world:
        yield world


@pytest.fixture(scope="module")
def verifier() -> Iterator[CodeVerifier]:
    with bubblewrap_verifier(reward="fraction", time_s=TIME_S, memory_mb=256, workers=1) as made:
        yield made


def cases(group: Any, slow: bool) -> list[Any]:
    marks = [pytest.mark.slow] if slow else []
    return [pytest.param(escape, id=escape.name, marks=marks) for escape in group]


@pytest.mark.parametrize(
    "escape",
    [
        *cases(escapes.LOOKS_RIGHT, slow=False),
        *cases(escapes.REACHES_OUT, slow=False),
        *cases(escapes.TAKES_TOO_MUCH, slow=True),
    ],
)
def test_what_a_hostile_program_can_do(escape: Any, verifier: CodeVerifier, outside: Any) -> None:
    outcome = escapes.run_escape(verifier, escape, outside, TIME_S)
    assert outcome.escapes == (), outcome
    assert outcome.status in {*escape.statuses, "timeout"}, outcome  # on a busy machine anything may run into the limit


@pytest.mark.filterwarnings("ignore:sandbox = 'unsafe'")
@pytest.mark.parametrize(
    "name", ["connects to this machine", "reads /etc/passwd", "reads the canary", "sees home folders"]
)
def test_the_same_attempts_succeed_without_a_sandbox(name: str, outside: Any) -> None:
    """What is above would mean nothing if the attempts could not work."""
    escape = next(each for each in escapes.ESCAPES if each.name == name)
    with CodeVerifier(CodeConfig(sandbox="unsafe", time_s=60.0, reward="fraction")) as verifier:
        outcome = escapes.run_escape(verifier, escape, outside, 60.0)
    assert outcome.status == "passed"
    assert outcome.escapes[0] == "test 1 passed"


def test_a_right_program_passes_the_tests_that_hostile_ones_fail() -> None:
    right = [
        (escapes.ADD, "def add(a, b): return a + b"),
        (escapes.FIND, f"def find(n): return {escapes.SECRET}"),
        (escapes.CALL, f"def find(n): return {escapes.SECRET}"),
        (escapes.ESCAPED, "print('escaped')"),
    ]
    with bubblewrap_verifier(reward="fraction", time_s=60.0, memory_mb=256, workers=1) as verifier:
        verdicts = verifier.verify([(escapes.as_prompt(tests), program) for tests, program in right])
    assert [verdict.reward for verdict in verdicts] == [1.0] * 4


def test_many_hostile_programs_at_once_do_not_disturb_right_ones(outside: Any) -> None:
    names = ("kills everything", "forks more processes than allowed", "fills the memory", "leaves a daemon")
    hostile = [each for each in escapes.ESCAPES if each.name in names]
    right = (escapes.as_prompt(escapes.ADD), "def add(a, b): return a + b")
    work = []
    for escape in hostile:
        work += [(escapes.as_prompt(escape.tests), escape.program), right]
    with bubblewrap_verifier(time_s=60.0, workers=4) as verifier:
        assert [verdict.reward for verdict in verifier.verify(work)] == [0.0, 1.0] * 4
