"""A sandbox that runs: one process tree behind a control socket, whatever it is wrapped in."""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_START_S = 30.0
"""For the namespaces and the interpreter, which no test's deadline pays for."""
_MESSAGE_BYTES = 1 << 16
INSIDE = Path(__file__).parent
BOOT = """import sys
sys.path.append(sys.argv[1])
from inside.keeper import main
sys.path.remove(sys.argv[1])
main(*map(int, sys.argv[2:]))
"""


class CellError(Exception):
    """The sandbox itself failed: it did not start, or something outside ended it."""


@dataclass(frozen=True, kw_only=True)
class Ended:
    """How the process of a job ended: its exit code, or minus the signal."""

    code: int
    memory_mb: int = 0
    keeper_gone: bool = False
    """The program took the sandbox's first process with it."""


@dataclass(frozen=True, kw_only=True)
class Wrapping:
    """How one cell is started: the command, given the control socket's number and the work folder."""

    command: Callable[[int, str], list[str]]
    fds: tuple[int, ...] = ()
    """Descriptors that the command reads; closed here once it is started."""
    work_folder: bool = False
    """Whether the cell needs a folder of this machine to work in."""
    isolated: bool = True


class Cell:
    """Started by `start`, ended by `kill`. Not for several threads at once, except for `kill`."""

    def __init__(self, wrapping: Wrapping) -> None:
        """Raises CellError where the machine gives no process for it, or no more open files."""
        self._wrapping, self._killed = wrapping, False
        with contextlib.ExitStack() as opened:
            for fd in wrapping.fds:
                opened.callback(os.close, fd)
            try:
                self._start(opened)
            except OSError as error:
                raise CellError(f"the sandbox cannot be started: {error}") from error

    def _start(self, opened: contextlib.ExitStack) -> None:
        wrapping = self._wrapping
        with contextlib.ExitStack() as kept:
            self._log = kept.enter_context(tempfile.TemporaryFile())
            self.control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            kept.enter_context(self.control)
            opened.enter_context(theirs)
            self._folder = tempfile.mkdtemp(prefix="prmkit-code-") if wrapping.work_folder else ""
            kept.callback(shutil.rmtree, self._folder, ignore_errors=True)
            self._process = subprocess.Popen(
                wrapping.command(theirs.fileno(), self._folder),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=self._log,
                env={},
                cwd=self._folder or "/",
                pass_fds=(theirs.fileno(), *wrapping.fds),
                start_new_session=True,
            )
            kept.pop_all()

    @property
    def pid(self) -> int:
        """Of the outermost process."""
        return self._process.pid

    def processes(self) -> list[int]:
        """All of its processes; none once it was killed."""
        return [] if self._killed else [self.pid, *below(self.pid)]

    def wait_ready(self) -> None:
        """Raises CellError, with what was said on standard error, when the sandbox does not come up."""
        ready = wait_for([self.control.fileno()], [], _START_S)
        message = self._receive() if ready else b""
        if not message:
            said, code = self._said(), self._code()
            self.kill()
            raise CellError(f"the sandbox did not start ({_how(code)}): {said or 'it said nothing'}")

    def submit(self, job: dict[str, Any], fds: Sequence[int]) -> None:
        """Start a job. Raises CellError when nobody is there."""
        try:
            socket.send_fds(self.control, [json.dumps(job).encode()], list(fds))
        except OSError as error:
            raise CellError(f"the sandbox is gone: {self.how_gone() or error}") from error

    def stop(self) -> None:
        """Have the running job ended; `ended` then says that it has."""
        with contextlib.suppress(OSError):
            self.control.send(b'{"job": "stop"}')

    def ended(self, timeout_s: float) -> Ended | None:
        """How the job ended, or None when it has not within that time.

        Raises CellError when the whole sandbox was ended by something outside it.
        """
        if not wait_for([self.control.fileno()], [], timeout_s):
            return None
        message = self._receive()
        try:
            report = json.loads(message)
            return Ended(code=int(report["ended"]), memory_mb=int(report["memory_mb"]))
        except (ValueError, KeyError, TypeError):  # the keeper is dead, or the program speaks in its name
            outside = self.how_gone()
            if outside:
                raise CellError(outside) from None
            return Ended(code=-signal.SIGKILL, keeper_gone=True)

    def how_gone(self) -> str:
        """Not empty if the sandbox was ended from outside: its outermost process cannot be reached from inside."""
        if self._killed:
            return "the verifier was closed"
        code = self._code()
        return f"the sandbox was ended from outside ({_how(code)})" if code is not None and code < 0 else ""

    def kill(self) -> None:
        """End the whole process tree."""
        self._killed = True
        # A sandbox takes its processes with it. Without one, a job has a session of its own, which outlives the keeper's.
        jobs = [] if self._wrapping.isolated else below(self._process.pid)
        keeper = [self._process.pid] if self._process.returncode is None else []  # its number may be another's by now
        for pid in (*keeper, *jobs):
            for end in (os.killpg, os.kill):
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    end(pid, signal.SIGKILL)
        self._process.kill()
        self._process.wait()
        self.control.close()
        self._log.close()
        if self._folder:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _code(self) -> int | None:
        """The exit code of the outermost process, if it ends within a second."""
        try:
            return self._process.wait(1.0)
        except subprocess.TimeoutExpired:
            return None

    def _receive(self) -> bytes:
        try:
            return self.control.recv(_MESSAGE_BYTES)
        except OSError:
            return b""

    def _said(self) -> str:
        with contextlib.suppress(OSError, ValueError):
            self._log.seek(0)
            return self._log.read(4000).decode(errors="replace").strip()
        return ""


def below(pid: int) -> list[int]:
    """Every process that descends from one."""
    found: list[int] = []
    waiting = [pid]
    while waiting:
        with contextlib.suppress(OSError, ValueError):  # any of them may end at any time
            for thread in Path(f"/proc/{waiting.pop()}/task").iterdir():
                children = [int(word) for word in (thread / "children").read_text().split()]
                found += children
                waiting += children
    return found


def wait_for(readable: Sequence[int], writable: Sequence[int], timeout_s: float) -> set[int]:
    """Those that can be read (or have ended) or written within a time; any number of open files may stand behind them."""
    poll = select.poll()
    for fd in readable:
        poll.register(fd, select.POLLIN)
    for fd in writable:
        poll.register(fd, select.POLLOUT)
    return {fd for fd, _ in poll.poll(max(0.0, timeout_s) * 1000)}


def _how(code: int | None) -> str:
    if code is None:
        return f"no answer in {_START_S:g} s"
    return f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"


def payload_fd(data: Any) -> int:
    """A file in memory that holds JSON, at its beginning. The caller closes it."""
    return text_fd(json.dumps(data).encode())


def text_fd(data: bytes) -> int:
    """A file in memory, opened for reading alone. The caller closes it."""
    writable = os.memfd_create("prmkit")
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(writable, view) :]
        return os.open(f"/proc/self/fd/{writable}", os.O_RDONLY)
    finally:
        os.close(writable)


def start(wrapping: Wrapping) -> Cell:
    """A cell that is ready. Raises CellError."""
    cell = Cell(wrapping)
    try:
        cell.wait_ready()
    except BaseException:
        cell.kill()
        raise
    return cell
