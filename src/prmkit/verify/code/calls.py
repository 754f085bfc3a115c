"""Functions that are called with JSON values. Values come back and are compared here; expected ones never enter the sandbox."""

from __future__ import annotations

import json
import socket
from typing import Any

from prmkit.verify.code.cell import Ended
from prmkit.verify.code.compare import same_value
from prmkit.verify.code.config import CodeConfig
from prmkit.verify.code.extract import defines
from prmkit.verify.code.inside.wire import Frame, encode
from prmkit.verify.code.problems import CallTests
from prmkit.verify.code.report import TestVerdict, Unjudged, decided
from prmkit.verify.code.session import Session, how_it_died
from prmkit.verify.code.watch import OutOfMemory, OutOfTime, Watch

_CHUNK = 1 << 16
_GOODBYE_S, _MISBEHAVED_S = 2.0, 0.2
"""For a process to end after its connection has: the first if nothing is wrong with what it sent."""


class Gone(Exception):
    """The program's process has ended, or sent what cannot be read."""


class Raised(Exception):
    """The program raised an exception."""


class Caller:
    """A loaded program that can be called. Raises OutOfTime, OutOfMemory, Gone, Raised and CellError."""

    def __init__(self, session: Session, parts: list[str]) -> None:
        """parts: sources that run in one module, one after the other. Loading has a test's time."""
        self._session, config = session, session.config
        self._limit = config.output_mb << 20
        self._watch = Watch(session.cell, config.time_s, config.memory_mb)
        ours, theirs = socket.socketpair()
        self._socket = ours
        ours.setblocking(False)
        try:
            with theirs:
                session.submit("host", {"parts": parts}, [theirs.fileno()])
            _answer(self._receive())
        except BaseException:
            ours.close()
            raise

    def call(self, tests: CallTests, number: int, method: bool) -> Any:
        """What the function returns for one input, as it came over the wire. A method gets an object of its own."""
        self._watch = Watch(self._session.cell, self._session.config.time_s, self._session.config.memory_mb)
        where: Frame = {"name": tests.function}
        if method:
            made = self._ask("call", {"name": "Solution"}, [[], {}])["value"]
            where = _handle(self._ask("attribute", _handle(made), [tests.function]))
        arguments = [encode(value, no_handle) for value in tests.inputs[number]]
        return self._ask("call", where, [arguments, {}])["value"]

    @property
    def seconds(self) -> float:
        """Since the running test began."""
        return self._watch.seconds

    def close(self) -> None:
        """Let go of the program's process."""
        self._socket.close()

    def _ask(self, operation: str, where: Frame, data: list[Any]) -> Any:
        self._send({"op": operation, "on": where, "with": data})
        answer = _answer(self._receive())
        if operation == "call" and not (isinstance(answer, dict) and "value" in answer):
            raise Gone("it sent what cannot be read")
        return answer

    def _send(self, frame: Frame) -> None:
        data = json.dumps(frame).encode()
        view = memoryview(len(data).to_bytes(4, "big") + data)
        while view:
            try:
                view = view[self._socket.send(view) :]
            except BlockingIOError:
                self._watch.wait([], [self._socket.fileno()])
            except OSError as error:
                raise Gone(str(error)) from None

    def _receive(self) -> Frame:
        size = int.from_bytes(self._exactly(4), "big")
        if size > self._limit:
            raise Gone(f"it returned a value of {size} bytes, at most {self._limit} are taken")
        try:
            frame = json.loads(self._exactly(size))
        except (ValueError, RecursionError) as error:
            raise Gone(f"it returned what cannot be read: {type(error).__name__}") from None
        if not isinstance(frame, dict):
            raise Gone("it sent what cannot be read")
        return frame

    def _exactly(self, size: int) -> bytes:
        parts = bytearray()
        while len(parts) < size:
            try:
                part = self._socket.recv(min(size - len(parts), _CHUNK))
            except BlockingIOError:
                self._watch.wait([self._socket.fileno()])
                continue
            except OSError as error:
                raise Gone(str(error)) from None
            if not part:
                raise Gone
            parts += part
        return bytes(parts)


class Calls:
    """All calls of one program: it is loaded once, and again where a call has ended it."""

    def __init__(self, session: Session, source: str, tests: CallTests) -> None:
        self._session, self._tests = session, tests
        self._parts = [tests.preamble, source]
        self._method = is_solution(source, tests.function)
        self._caller: Caller | None = None
        self._unloadable: TestVerdict | None = None

    def run_test(self, number: int) -> TestVerdict:
        """Call once and compare. Raises CellError."""
        if self._unloadable is None and self._caller is None:
            self._load()
        if self._unloadable is not None or self._caller is None:
            return self._unloadable or decided("killed")
        try:
            value = self._caller.call(self._tests, number, self._method)
        except Raised as error:
            return decided("raised", str(error), self._caller.seconds)
        except (OutOfTime, OutOfMemory, Gone) as reason:
            return self._lost(reason, self._caller.seconds)
        return compared(value, self._tests, number, self._session.config, self._caller.seconds)

    def close(self) -> None:
        """Let go of the program."""
        if self._caller is not None:
            self._caller.close()
            self._caller = None

    def _load(self) -> None:
        try:
            self._caller = Caller(self._session, self._parts)
        except Raised as error:
            self._unloadable = decided("raised", str(error))
            self._session.stop()
            self._check_preamble()
        except (OutOfTime, OutOfMemory, Gone) as reason:
            self._unloadable = self._lost(reason, self._session.config.time_s if isinstance(reason, OutOfTime) else 0.0)

    def _check_preamble(self) -> None:
        """Raises Unjudged if the problem's own source does not load by itself."""
        if self._parts[0].strip():
            try:
                Caller(self._session, [self._parts[0]]).close()
            except Raised as error:
                raise Unjudged(f"the problem's own source fails: {error}") from None
            finally:
                self._session.stop()

    def _lost(self, reason: Exception, seconds: float) -> TestVerdict:
        """The verdict, with the program's process ended."""
        self.close()
        ended: Ended | None = None
        if isinstance(reason, Gone):
            ended = self._session.cell.ended(_MISBEHAVED_S if str(reason) else _GOODBYE_S)
        if ended is None:
            self._session.stop()
        elif ended.keeper_gone:
            self._session.drop()
        if isinstance(reason, OutOfTime):
            return decided("timeout", f"stopped after {self._session.config.time_s:g} s", seconds)
        if isinstance(reason, OutOfMemory):
            return decided("too_much", str(reason), seconds)
        return decided("killed", str(reason) or (how_it_died(ended) if ended else "it closed its connection"), seconds)


def compared(value: Any, tests: CallTests, number: int, config: CodeConfig, seconds: float = 0.0) -> TestVerdict:
    """Whether a value, as it came over the wire, is what was expected."""
    tolerance = config.float_tolerance if tests.float_tolerance is None else tests.float_tolerance
    expected = tests.outputs[number]
    try:
        same = same_value(value, expected, tolerance)
        if not same and tests.wrapped:
            same = same_value(value, expected[0], tolerance)
    except (RecursionError, ValueError, TypeError, KeyError, AttributeError) as error:  # of what the program made up
        return decided("wrong", f"the value cannot be compared: {type(error).__name__}", seconds)
    if same:
        return decided("passed", "", seconds)
    return decided("wrong", f"returned {_shown(value)}, not {_shown(expected)}", seconds)


def is_solution(source: str, function: str) -> bool:
    """Whether `function` is a method of a class Solution rather than a function of the program."""
    return defines(source, "Solution") and not defines(source, function)


def _answer(frame: Frame) -> Any:
    if "raise" in frame:
        raise Raised(f"{frame.get('type', '')}: {frame.get('text', '')}")
    if "ok" not in frame:
        raise Gone("it sent what cannot be read")
    return frame["ok"]


def _handle(data: Any) -> Frame:
    if isinstance(data, dict) and isinstance(data.get("kept"), int):
        return {"kept": data["kept"]}
    raise Raised("TypeError: Solution() is no object with methods")


def no_handle(value: Any) -> Frame:
    """Arguments of calls are JSON values: they never need a handle."""
    raise TypeError(f"a {type(value).__name__} is no JSON value")


def _shown(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."
