"""The verifier of programs: `Prompt.meta["tests"]` against the program in a response, in a sandbox."""

from __future__ import annotations

import contextlib
import functools
import queue
import threading
import weakref
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from types import TracebackType
from typing import Protocol, Self

from prmkit.data.types import Prompt, Verdict
from prmkit.errors import DataError, VerifierError
from prmkit.verify.code.asserts import Asserts
from prmkit.verify.code.bubblewrap import PACKAGES, bubblewrap, check_bubblewrap
from prmkit.verify.code.calls import Calls
from prmkit.verify.code.cell import Cell, CellError, start
from prmkit.verify.code.config import CodeConfig
from prmkit.verify.code.extract import defines, extract_code
from prmkit.verify.code.problems import AssertTests, CallTests, Tests, read_tests
from prmkit.verify.code.report import CodeReport, Unjudged, decided
from prmkit.verify.code.run_all import run_all
from prmkit.verify.code.session import Session
from prmkit.verify.code.stdio import run_test
from prmkit.verify.code.unsafe import unsafe, warn_once

_TESTER_MEMORY_MB = 1024
"""At least so much for the tests' own process, which holds a program's returned values decoded."""


class Sandbox(Protocol):
    """Where programs run."""

    def judge(self, tests: Tests, source: str) -> CodeReport:
        """All tests of one program. Raises CellError and Unjudged."""
        ...

    def standing_processes(self) -> list[int]:
        """Processes that stay between checks."""
        ...

    def close(self) -> None:
        """End everything that runs."""
        ...


class CodeVerifier:
    """Judges programs by running them. Close it, or use it as a context manager.

    A program that is wrong, crashes, hangs or takes too much is decided: that test is failed. A sandbox that does not work,
    or is ended from outside, and tests that cannot be read, are `error`, without a reward.
    """

    def __init__(self, config: CodeConfig | None = None) -> None:
        """Raises ConfigError, with how to get one, when the chosen sandbox cannot run here."""
        self._config = config or CodeConfig()
        self._sandbox = make_sandbox(self._config)
        self._threads = ThreadPoolExecutor(self._config.workers, thread_name_prefix="prmkit-code")
        self._finalizer = weakref.finalize(self, _close, self._sandbox, self._threads)

    def verify(self, responses: Sequence[tuple[Prompt, str]]) -> list[Verdict]:
        """One verdict per (prompt, response text), in order."""
        if not self._finalizer.alive:
            raise VerifierError("the verifier was closed; make a new one")
        return list(self._threads.map(self._verdict, *zip(*responses, strict=True))) if responses else []

    def check(self, prompt: Prompt, text: str) -> CodeReport:
        """Every test of one response. Raises DataError for its tests, VerifierError where `verify` says `error`."""
        tests = _tests_of(prompt)
        try:
            return self._threads.submit(self._judge, tests, text).result()
        except (CellError, Unjudged) as error:
            raise VerifierError(f"prompt {prompt.id!r}: {error}") from error

    def standing_processes(self) -> list[int]:
        """Processes that stay between checks: the cells that hold tests, with what is in them."""
        return self._sandbox.standing_processes()

    def close(self) -> None:
        """End all checks."""
        self._finalizer()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _verdict(self, prompt: Prompt, text: str) -> Verdict:
        try:
            report = self._judge(_tests_of(prompt), text)
        except (DataError, CellError, Unjudged) as error:
            return Verdict(status="error", reward=None, detail=str(error)[:400])
        except Exception as error:  # a fault of ours must not end a run, nor be a reward
            return Verdict(status="error", reward=None, detail=f"{type(error).__name__}: {error}"[:400])
        whole = float(report.passed == len(report.tests))
        reward = report.fraction if self._config.reward == "fraction" else whole
        return Verdict(status="ok", reward=reward, detail=report.summary())

    def _judge(self, tests: Tests, text: str) -> CodeReport:
        source = extract_code(text)
        if not source.strip():
            return CodeReport(tests=(decided("not_run", "the response holds no program"),))
        if isinstance(tests, AssertTests) and not all(defines(source, name) for name in tests.names[:1]):
            source = tests.prompt + source  # a completion: what follows the prompt's open function
        return self._sandbox.judge(tests, source)


class LocalSandbox:
    """Cells on this machine, a new one for each program."""

    def __init__(self, config: CodeConfig) -> None:
        """Raises ConfigError when cells cannot be made here."""
        self._config = config
        self._cells: weakref.WeakSet[Cell] = weakref.WeakSet()
        self._testers: queue.SimpleQueue[Session] = queue.SimpleQueue()
        self._lock, self._closed = threading.Lock(), False
        self._isolated = config.sandbox != "unsafe"
        if self._isolated:
            check_bubblewrap(config)
        else:
            warn_once()

    def judge(self, tests: Tests, source: str) -> CodeReport:
        """All tests of one program. Raises CellError and Unjudged."""
        config = self._config
        with self._session(config) as session:
            if isinstance(tests, AssertTests):
                return self._asserts(session, tests, source)
            if isinstance(tests, CallTests):
                with contextlib.closing(Calls(session, source, tests)) as calls:
                    return run_all(calls.run_test, len(tests.inputs), config)
            return run_all(functools.partial(run_test, session, source, tests), len(tests.inputs), config)

    def standing_processes(self) -> list[int]:
        """Those of every cell that is alive."""
        with self._lock:
            cells = list(self._cells)
        return [pid for cell in cells for pid in cell.processes()]

    def close(self) -> None:
        """Kill every cell."""
        with self._lock:
            self._closed = True
            cells = list(self._cells)
        for cell in cells:
            cell.kill()

    def _asserts(self, session: Session, tests: AssertTests, source: str) -> CodeReport:
        tester = self._tester()
        try:
            with contextlib.closing(Asserts(session, tester, source, tests)) as asserts:
                report = run_all(asserts.run_test, asserts.total, self._config)
        except BaseException:
            tester.drop()
            raise
        self._testers.put(tester)
        return report

    def _tester(self) -> Session:
        try:
            return self._testers.get_nowait()
        except queue.Empty:
            memory = max(self._config.memory_mb, _TESTER_MEMORY_MB)
            return self._session(replace(self._config, memory_mb=memory))

    def _session(self, config: CodeConfig) -> Session:
        path = [PACKAGES if self._isolated else config.packages] if config.packages else []
        return Session(functools.partial(self._start, config), config, path)

    def _start(self, config: CodeConfig) -> Cell:
        cell = start(bubblewrap(config) if self._isolated else unsafe())
        with self._lock:
            self._cells.add(cell)
            closed = self._closed
        if closed:
            cell.kill()
            raise CellError("the verifier was closed")
        return cell


def make_sandbox(config: CodeConfig) -> Sandbox:
    """The sandbox that a configuration asks for. Raises ConfigError when it cannot run here."""
    if config.sandbox == "fusion" or (config.sandbox == "auto" and config.url):
        from prmkit.verify.code.fusion import FusionSandbox

        return FusionSandbox(config)
    return LocalSandbox(config)


def code_verifier(config: CodeConfig) -> CodeVerifier:
    """The verifier of programs that a configuration describes. Raises ConfigError."""
    return CodeVerifier(config)


def _tests_of(prompt: Prompt) -> Tests:
    if "tests" not in prompt.meta:
        raise DataError(
            f"prompt {prompt.id!r} has no tests: a row's field 'tests' holds them (of a Prompt meta['tests']), see "
            "docs/code_verifier.md"
        )
    try:
        return read_tests(prompt.meta["tests"])
    except DataError as error:
        raise DataError(f"prompt {prompt.id!r}: {error}") from error


def _close(sandbox: Sandbox, threads: ThreadPoolExecutor) -> None:
    threads.shutdown(wait=False, cancel_futures=True)
    sandbox.close()
