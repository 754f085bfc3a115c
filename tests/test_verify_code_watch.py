"""The clock of a program's test: what this process loses (it was stopped, or late to look) is not lost to the program."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence

import pytest
from code_setup import bubblewrap_verifier, prompt

from prmkit.verify.code import CodeConfig, CodeVerifier, asserts, bubblewrap, calls, stdio, watch
from prmkit.verify.code.cell import Cell, start, wait_for
from prmkit.verify.code.watch import OutOfTime, Watch


@pytest.fixture(scope="module")
def verifier() -> Iterator[CodeVerifier]:
    with bubblewrap_verifier(time_s=60.0, workers=1) as made:
        yield made


@pytest.fixture(scope="module")
def cell() -> Iterator[Cell]:
    made = start(bubblewrap.bubblewrap(CodeConfig()))
    yield made
    made.kill()


class LateWatch(Watch):
    """A thread that looks at the clock only when the time of the test is over, long after what it waits for is there."""

    def wait(self, readable: Sequence[int], writable: Sequence[int] = ()) -> set[int]:
        wait_for(readable[:1], writable, 60.0)  # of a program on standard input: its end
        self._end = self.started
        return super().wait(readable, writable)


@pytest.mark.parametrize(
    ("tests", "program"),
    [
        ({"inputs": ["1\n", "2\n"], "outputs": ["1\n", "2\n"]}, "print(input())"),
        ({"fn_name": "f", "inputs": [[1], [2]], "outputs": [1, 2]}, "def f(x): return x"),
        ({"tests": ["assert f(1) == 1", "assert f(2) == 2"], "entry_point": "f"}, "def f(x): return x"),
    ],
    ids=["stdio", "calls", "asserts"],
)
def test_what_is_there_is_in_time_however_late_it_is_looked_at(
    verifier: CodeVerifier, monkeypatch: pytest.MonkeyPatch, tests: dict[str, object], program: str
) -> None:
    for module in (stdio, calls, asserts):
        monkeypatch.setattr(module, "Watch", LateWatch)
    assert [test.status for test in verifier.check(prompt(tests), program).tests] == ["passed", "passed"]


def test_a_program_that_always_has_more_to_say_is_out_of_time(cell: Cell) -> None:
    reader, writer = os.pipe()
    os.write(writer, b"more")
    clock = Watch(cell, 0.0, 512)
    assert clock.wait([reader]) == {reader}
    with pytest.raises(OutOfTime):
        clock.wait([reader])
    os.close(reader)
    os.close(writer)


def test_the_time_in_which_this_process_was_stopped_does_not_count(cell: Cell, monkeypatch: pytest.MonkeyPatch) -> None:
    reader, writer = os.pipe()
    stopped, looked_at = Watch(cell, 0.2, 512), Watch(cell, 0.2, 512)
    with pytest.raises(OutOfTime):
        looked_at.wait([reader])
    monkeypatch.setattr(watch, "_PAUSED_S", 0.15)
    before = time.monotonic()
    with pytest.raises(OutOfTime):
        stopped.wait([reader])
    assert time.monotonic() - before > 0.15
    os.close(reader)
    os.close(writer)
