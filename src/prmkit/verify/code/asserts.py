"""Functions under asserts. Two cells: one holds the program, one the tests; the program never sees a test.

The cell of the tests is used again for the next problem: it only ever runs tests. Each problem has a process of its own there.
"""

from __future__ import annotations

import socket
from typing import Any

from prmkit.verify.code.cell import CellError, Ended
from prmkit.verify.code.inside.wire import Channel, Closed, Frame
from prmkit.verify.code.problems import AssertTests
from prmkit.verify.code.report import TestStatus, TestVerdict, Unjudged, decided
from prmkit.verify.code.session import Session, how_it_died
from prmkit.verify.code.watch import OutOfMemory, OutOfTime, Watch

_REPORT_BYTES = 1 << 20
_GOODBYE_S = 2.0
"""For a process to end after its connection has. One that was killed from outside must not count as one that failed."""


class Asserts:
    """All statements of a problem against one program, stepping over those that end or hang it."""

    def __init__(self, session: Session, tester: Session, source: str, tests: AssertTests) -> None:
        """session: of the program; tester: of the tests, which stays the caller's."""
        self._session, self._tester = session, tester
        self._parts, self._tests = [tests.prompt, source], tests
        self._numbers = [i for i, statement in enumerate(tests.statements) if statement.counts]
        self._found: dict[int, TestVerdict] = {}
        self.total = len(self._numbers)
        """Number of tests."""
        self._all: TestVerdict | None = None
        self._run: _Run | None = None

    def run_test(self, number: int) -> TestVerdict:
        """The verdict of one test; they come in order. Raises CellError and Unjudged."""
        statement = self._numbers[number]
        while self._all is None and statement not in self._found:
            if self._run is None:
                self._run = _Run(self._session, self._tester, self._payload(statement), self._parts)
            self._step(self._run, statement)
        return self._all or self._found[statement]

    def close(self) -> None:
        """End what still runs."""
        if self._run is not None:
            self._run.stop()
            self._run = None

    def _step(self, run: _Run, statement: int) -> None:
        """Take one report of the running tests in. Whatever ends the program ends the run."""
        try:
            report = run.next_report()
        except (OutOfTime, OutOfMemory) as reason:
            self.close()
            limit = f"stopped after {self._session.config.time_s:g} s"
            status: TestStatus = "timeout" if isinstance(reason, OutOfTime) else "too_much"
            self._decide(run, statement, decided(status, str(reason) or limit, run.seconds))
            return
        verdict = report.get("verdict")
        if verdict == "error":
            raise Unjudged(report["detail"])
        if verdict == "gone":
            detail = run.how_the_program_ended() or report.get("detail", "")
            self.close()
            self._decide(run, statement, decided("killed", detail, run.seconds))
        elif isinstance(loaded := report.get("loaded"), dict):
            self._all = decided("raised", f"{loaded.get('type', loaded['raise'])}: {loaded.get('text', '')}")
        elif "setup" in report:
            self._all = decided("raised", f"in the setup of the tests: {report['setup']}")
        elif "end" in report:
            self._found[report["end"]] = decided(report["verdict"], report.get("detail", ""), run.seconds)
            run.restart_clock()  # what is left of this test's time is not the next one's

    def _decide(self, run: _Run, statement: int, verdict: TestVerdict) -> None:
        """A program that does not even load, or not survive the setup, fails every test."""
        if run.begun:
            self._found[statement] = verdict
        else:
            self._all = verdict

    def _payload(self, first: int) -> dict[str, Any]:
        tests = self._tests
        return {
            "prompt": tests.prompt,
            "setup": tests.setup,
            "names": tests.names,
            "shared": tests.classes,
            "imports": tests.imports,
            "statements": [[statement.source, statement.counts] for statement in tests.statements],
            "first": first,
        }


class _Run:
    """The tests and the program, connected; reports of the tests come out one by one."""

    def __init__(self, session: Session, tester: Session, payload: dict[str, Any], parts: list[str]) -> None:
        self._session, self._tester = session, tester
        tests_end, program_end = socket.socketpair()
        ours, theirs = socket.socketpair()
        self._report, self.begun, self._over = ours, False, False
        try:
            with tests_end, program_end, theirs:
                session.submit("host", {"parts": parts, "shared": payload["shared"]}, [program_end.fileno()])
                tester.submit("tests", payload, [tests_end.fileno(), theirs.fileno()])
        except BaseException:
            ours.close()
            raise
        self.restart_clock()

    @property
    def seconds(self) -> float:
        """Since the running test began."""
        return self._watch.seconds

    def next_report(self) -> Frame:
        """Raises OutOfTime, OutOfMemory, and CellError when the process of the tests is gone."""
        self._watch.wait([self._report.fileno()])
        try:
            report = Channel(self._report, _REPORT_BYTES).receive()
        except Closed as error:
            self._over = True
            raise CellError(f"the process of the tests ended: {self._how_the_tests_ended() or error}") from None
        if "begin" in report:  # statements that prepare have a clock of their own, and are not the test's
            self.begun = self.begun or report["counts"]
            self.restart_clock()
        return report

    def restart_clock(self) -> None:
        """A test's whole time from now on."""
        self._watch = self._new_watch()

    def how_the_program_ended(self) -> str:
        """For people; empty if it still runs. Raises CellError where its cell was ended from outside."""
        ended = self._session.cell.ended(_GOODBYE_S)
        if ended is None:
            return ""
        if ended.keeper_gone:
            self._session.drop()
        self._over = True
        return how_it_died(ended)

    def stop(self) -> None:
        """End both processes."""
        self._report.close()
        if not self._over:
            self._session.stop()
        self._tester.stop()

    def _how_the_tests_ended(self) -> str:
        ended: Ended | None = self._tester.cell.ended(_GOODBYE_S)
        self._tester.drop()
        return how_it_died(ended) if ended else ""

    def _new_watch(self) -> Watch:
        return Watch(self._session.cell, self._session.config.time_s, self._session.config.memory_mb)
