"""Programs that read standard input and print. Expected outputs never enter the sandbox."""

from __future__ import annotations

import os

from prmkit.verify.code.cell import Cell, Ended, text_fd
from prmkit.verify.code.compare import same_output
from prmkit.verify.code.config import CodeConfig
from prmkit.verify.code.preambles import PREAMBLES, modules_of
from prmkit.verify.code.problems import StdioTests
from prmkit.verify.code.report import TestVerdict, Unjudged, decided
from prmkit.verify.code.session import Session, closing, how_it_died
from prmkit.verify.code.watch import OutOfMemory, OutOfTime, Watch

_CHUNK = 1 << 16
_LAST_WORDS = 2000


def run_test(session: Session, source: str, tests: StdioTests, number: int) -> TestVerdict:
    """Run the program on one input. Raises CellError, and Unjudged if the problem's own source fails by itself."""
    ran = _run(session, [tests.preamble, source], tests.inputs[number])
    if isinstance(ran, tuple):
        return printed_verdict(ran[0], tests, number, session.config, ran[1])
    if ran.status != "timeout" and tests.preamble.strip() and tests.preamble not in PREAMBLES.values():
        session.drop()  # what this program has left behind must not make it fail
        alone = _run(session, [tests.preamble], "")
        if not isinstance(alone, tuple):
            raise Unjudged(f"the problem's own source fails: {alone.detail}")
    return ran


def _run(session: Session, parts: list[str], text: str) -> TestVerdict | tuple[str, float]:
    """What the parts print and the seconds that it took, or how they failed. Raises CellError."""
    config = session.config
    given = text.encode()
    out, out_end = os.pipe()
    err, err_end = os.pipe()
    with closing([out, err]):
        with closing([text_fd(given), out_end, err_end]) as fds:
            cell = session.cell
            watch = Watch(cell, config.time_s, config.memory_mb)
            session.submit("script", {"parts": parts}, fds, modules_of(parts[0]))
        printed, last_words = _Stream(out, limit=config.output_mb << 20), _Stream(err, last=_LAST_WORDS)
        try:
            ended = _collect(cell, watch, printed, last_words)
        except (OutOfTime, OutOfMemory, _TooMuch) as reason:
            session.stop()
            return _stopped(reason, config, watch.seconds)
    if ended.keeper_gone:
        session.drop()
    if ended.code != 0:
        words = last_words.content.decode(errors="replace").strip().splitlines()
        raised = ended.code > 0 and bool(words)
        return decided("raised" if raised else "killed", words[-1] if raised else how_it_died(ended), watch.seconds)
    return printed.content.decode(errors="replace"), watch.seconds


def printed_verdict(text: str, tests: StdioTests, number: int, config: CodeConfig, seconds: float) -> TestVerdict:
    """Whether what a program printed is what was expected."""
    tolerance = config.float_tolerance if tests.float_tolerance is None else tests.float_tolerance
    if same_output(text, tests.outputs[number], tolerance):
        return decided("passed", "", seconds)
    return decided("wrong", _difference(text, tests.outputs[number]), seconds)


class _TooMuch(Exception):
    pass


class _Stream:
    """What comes out of one end of the program: all of it up to a limit, or the last of it."""

    def __init__(self, fd: int, *, limit: int = 0, last: int = 0) -> None:
        self.fd, self.content, self.open = fd, bytearray(), True
        self._limit, self._last = limit, last
        os.set_blocking(fd, False)

    def take(self) -> bool:
        """Read once; whether there may be more at once."""
        try:
            data = os.read(self.fd, _CHUNK)
        except BlockingIOError:
            return False
        self.open = data != b""
        self.content += data
        if self._last:
            del self.content[: -self._last]
        return self.open and not self.too_much

    @property
    def too_much(self) -> bool:
        return 0 < self._limit < len(self.content)


def _collect(cell: Cell, watch: Watch, out: _Stream, err: _Stream) -> Ended:
    """Read until the program ends, and what it has left in its pipes. Raises what `Watch.wait` raises, _TooMuch, CellError."""
    control = cell.control.fileno()
    ended: Ended | None = None
    while ended is None:
        streams = [stream for stream in (out, err) if stream.open]
        ready = watch.wait([control, *(stream.fd for stream in streams)])
        for stream in streams:
            if stream.fd in ready:
                stream.take()
        if out.too_much:
            raise _TooMuch
        if control in ready:
            ended = cell.ended(0)
    for stream in (out, err):
        while stream.open and stream.take():
            pass
    return ended


def _stopped(reason: Exception, config: CodeConfig, seconds: float) -> TestVerdict:
    if isinstance(reason, OutOfTime):
        return decided("timeout", f"stopped after {config.time_s:g} s", seconds)
    return decided("too_much", str(reason) or f"it printed more than {config.output_mb} MB", seconds)


def _difference(found: str, expected: str) -> str:
    """The first token that differs."""
    a, b = found.split(), expected.split()
    place = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
    return f"token {place + 1} of {len(b)} is {_shown(a, place)}, not {_shown(b, place)}"


def _shown(tokens: list[str], place: int) -> str:
    return repr(tokens[place][:80]) if place < len(tokens) else "missing"
