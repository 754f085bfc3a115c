"""Worker processes that can be killed: judging text can hang, crash or eat the machine, and training must go on.

Each worker is a fresh interpreter (no fork of a process with threads and a GPU, and no import of the caller's `__main__`)
in a session of its own, so Ctrl-C reaches the trainer alone and what a worker starts dies with it. The kernel ends a
worker when its parent is gone, however the parent ended. What a judge prints goes to standard error: standard output is
the command's own.
"""

from __future__ import annotations

import contextlib
import fcntl
import io
import json
import os
import pickle
import select
import signal
import subprocess
import sys
import threading
import time
import traceback
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from types import TracebackType
from typing import Any, Literal, Self, TextIO, cast, get_args

from prmkit.data.types import Verdict, VerdictStatus
from prmkit.errors import VerifierError

Judge = Callable[[Any], Verdict]
"""Judges one item inside a worker."""

_START_TIMEOUT_S = 120.0
"""For the imports of a worker, which no item's deadline pays for."""
_START_ATTEMPTS = 3
"""Workers lost in a row before an item reached one."""
_LIVENESS_S = 0.25
"""How often workers are looked at that die without closing their pipe (a child of theirs holds it)."""
_DETAIL_CHARS = 400
_MESSAGE_BYTES = 60_000
"""Longest answer of a worker: it fits a pipe, so the parent never waits for the rest of one."""
_DIRECT_BYTES = 32_768
"""Longer items are written by a thread, since a worker that does not read would block the parent."""
_MEGABYTE = 2**20
_BOOT = "import sys; sys.path[:] = sys.argv[3:]; from prmkit.verify.pool import serve; serve(*map(int, sys.argv[1:3]))"


class WorkerPool:
    """Judges items in killable worker processes, which start when they are first needed.

    An item past its deadline is `timeout` and its worker is killed; an item whose worker died is `error`. Either worker is
    replaced. Safe to call from any thread, one call at a time.
    """

    def __init__(
        self,
        load: Callable[[], Judge],
        *,
        workers: int,
        timeout_s: float,
        extra_path: Sequence[str] = (),
        recycle_after: int = 0,
        memory_mb: int = 0,
    ) -> None:
        """`load` runs once in each worker and returns its judge; it must pickle, i.e. live in an importable module.

        timeout_s: seconds from handing an item to a ready worker. extra_path: put before this process' `sys.path`. A worker
        is replaced after `recycle_after` items, and when its resident memory is above `memory_mb`: in the middle of an item
        that is an `error` (looked at every quarter of a second). 0: never.
        """
        self._load = pickle.dumps(load)
        self._size, self._timeout_s = workers, timeout_s
        self._recycle_after, self._memory_mb = recycle_after, memory_mb
        self._path = [*extra_path, *sys.path]
        self._workers: list[_Worker] = []
        self._failed_starts = 0
        self._closed = False
        self._lock = threading.Lock()
        self._finalizer = weakref.finalize(self, _kill_all, self._workers, os.getpid())

    def start(self) -> None:
        """Start one worker now, to learn early whether it can. Raises VerifierError when it cannot."""
        with self._lock:
            self._check_open()
            if not self._workers:
                self._workers.append(_Worker(self._load, self._path))
            while not any(worker.state == "idle" for worker in self._workers):
                self._collect({})
                if not self._workers:
                    self._workers.append(_Worker(self._load, self._path))

    def run(self, items: Sequence[Any]) -> list[Verdict]:
        """One verdict per item, in order. Raises VerifierError when no worker can be started at all."""
        with self._lock:
            self._check_open()
            verdicts: dict[int, Verdict] = {}
            waiting = deque(enumerate(items))
            try:
                while len(verdicts) < len(items):
                    self._hand_out(waiting, verdicts)
                    self._collect(verdicts)
            finally:  # after Ctrl-C, a late verdict must not answer the next call
                for worker in [w for w in self._workers if w.state == "busy"]:
                    self._remove(worker)
            return [verdicts[i] for i in range(len(items))]

    def close(self) -> None:
        """Kill the workers. The pool cannot be used afterwards."""
        with self._lock:
            self._closed = True
            self._finalizer()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _check_open(self) -> None:
        if self._closed:
            raise VerifierError("the verifier was closed; make a new one")

    def _hand_out(self, waiting: deque[tuple[int, Any]], verdicts: dict[int, Verdict]) -> None:
        """Start the workers that the waiting items need, and give an item to each idle one."""
        active = sum(worker.state == "busy" for worker in self._workers)
        while len(self._workers) < min(self._size, active + len(waiting)):
            self._workers.append(_Worker(self._load, self._path))
        for worker in [w for w in self._workers if w.state == "idle"]:
            if not waiting:
                return
            index, item = waiting.popleft()
            try:
                message = pickle.dumps(item)
            except Exception as error:
                verdicts[index] = error_verdict(f"the item cannot be sent to a worker: {type(error).__name__}: {error}")
                continue
            try:
                worker.send(index, message, self._timeout_s)
            except OSError:  # it died while idle: the item has not been tried
                waiting.appendleft((index, item))
                self._lost_before_work(self._remove(worker))

    def _collect(self, verdicts: dict[int, Verdict]) -> None:
        """Wait until a worker says something, dies or misses its deadline, and act on each that did."""
        pending = [worker for worker in self._workers if worker.state != "idle"]
        if not pending:
            return
        first = min(worker.deadline for worker in pending) - time.monotonic()
        wait([worker.connection for worker in pending], timeout=max(0.0, min(first, _LIVENESS_S)))
        for worker in pending:
            if worker.connection.poll():  # before the deadline is looked at: what has arrived is in time
                self._receive(worker, verdicts)
            elif worker.is_dead():
                self._died(worker, verdicts)
            elif time.monotonic() >= worker.deadline:
                self._missed_deadline(worker, verdicts)
            elif worker.state == "busy" and self._is_too_big(worker):
                self._remove(worker)
                verdicts[worker.index] = error_verdict(f"the worker held more than {self._memory_mb} MB; it was killed")

    def _receive(self, worker: _Worker, verdicts: dict[int, Verdict]) -> None:
        try:
            message = worker.connection.recv_bytes(_MESSAGE_BYTES)
        except (EOFError, OSError):
            self._died(worker, verdicts)
            return
        if worker.state == "busy":
            self._failed_starts = 0
            try:
                verdicts[worker.index] = _decoded(message)
            except ValueError:
                self._remove(worker)
                verdicts[worker.index] = error_verdict("something wrote into the worker's pipe; the worker was killed")
                return
            worker.num_judged += 1
            if worker.num_judged == self._recycle_after or self._is_too_big(worker):
                self._remove(worker)
                return
        elif message:  # what went wrong in `load`
            self._remove(worker)
            raise VerifierError(message.decode(errors="replace"))
        worker.state, worker.deadline = "idle", float("inf")

    def _is_too_big(self, worker: _Worker) -> bool:
        return bool(self._memory_mb) and worker.resident_bytes() > self._memory_mb * _MEGABYTE

    def _died(self, worker: _Worker, verdicts: dict[int, Verdict]) -> None:
        cause = self._remove(worker)
        if worker.state == "busy":
            verdicts[worker.index] = error_verdict(f"the worker process died: {cause}")
        else:
            self._lost_before_work(cause)

    def _missed_deadline(self, worker: _Worker, verdicts: dict[int, Verdict]) -> None:
        self._remove(worker)
        if worker.state == "starting":
            raise VerifierError(f"a verifier process was not ready after {_START_TIMEOUT_S:.0f} s")
        detail = f"no verdict after {self._timeout_s:g} s; the worker was killed"
        verdicts[worker.index] = Verdict(status="timeout", reward=None, detail=detail)

    def _lost_before_work(self, cause: str) -> None:
        self._failed_starts += 1
        if self._failed_starts >= _START_ATTEMPTS:
            self._failed_starts = 0
            raise VerifierError(f"{_START_ATTEMPTS} verifier processes in a row died before they got work: {cause}")

    def _remove(self, worker: _Worker) -> str:
        self._workers.remove(worker)
        return worker.kill()


class _Worker:
    """The parent's end of one worker process."""

    def __init__(self, load: bytes, path: Sequence[str]) -> None:
        self.state: Literal["starting", "idle", "busy"] = "starting"
        self.deadline = time.monotonic() + _START_TIMEOUT_S
        self.index, self.num_judged = -1, 0
        self._sender: threading.Thread | None = None
        self.connection, theirs = Pipe()
        their_lifeline, self._lifeline = os.pipe()
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _BOOT, str(theirs.fileno()), str(their_lifeline), *path],
                pass_fds=(theirs.fileno(), their_lifeline),
                stdin=subprocess.DEVNULL,
                stdout=_standard_error(),
                start_new_session=True,
            )
        except BaseException:
            self.connection.close()
            os.close(self._lifeline)
            raise
        finally:
            theirs.close()
            os.close(their_lifeline)
        with contextlib.suppress(OSError):  # it died already: seen when its answer is awaited
            self.connection.send_bytes(load)

    def send(self, index: int, item: bytes, timeout_s: float) -> None:
        """Hand an item over. Raises OSError when the worker has died."""
        if len(item) <= _DIRECT_BYTES:
            self.connection.send_bytes(item)
        elif self.is_dead():
            raise BrokenPipeError
        else:
            self._sender = threading.Thread(target=self._send, args=(item,), daemon=True)
            self._sender.start()
        self.state, self.index, self.deadline = "busy", index, time.monotonic() + timeout_s

    def _send(self, item: bytes) -> None:
        with contextlib.suppress(OSError):  # the worker was killed meanwhile: its item has its verdict
            self.connection.send_bytes(item)

    def resident_bytes(self) -> int:
        """Memory that the process holds; 0 where the system does not say (no /proc)."""
        try:
            with open(f"/proc/{self._process.pid}/statm", "rb") as file:
                return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        except (OSError, IndexError):
            return 0

    def is_dead(self) -> bool:
        """Without reaping it: its id still names its session, which `kill` ends."""
        try:
            return os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
        except ChildProcessError:
            return True

    def kill(self) -> str:
        """Kill the worker and what it started; says how the worker ended."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.kill()
        code = self._process.wait()
        if self._sender is not None:
            self._sender.join(_LIVENESS_S)
        if self._sender is None or not self._sender.is_alive():  # a number in use must not be given to another file
            self.connection.close()
        os.close(self._lifeline)
        return f"killed by {signal.Signals(-code).name}" if code < 0 else f"exited with code {code}"


def _kill_all(workers: list[_Worker], owner: int) -> None:
    while workers and os.getpid() == owner:  # a fork of the owner holds a copy of the list, not the workers
        workers.pop().kill()


def error_verdict(detail: str) -> Verdict:
    """The verdict that the verifier broke, and why."""
    return Verdict(status="error", reward=None, detail=detail[:_DETAIL_CHARS])


def _standard_error() -> int:
    try:
        os.fstat(2)
    except OSError:  # a daemon may have closed it
        return subprocess.DEVNULL
    return 2


def _encoded(verdict: Verdict) -> bytes:
    """As JSON and not pickled: a worker runs what it is told to, the parent must not."""
    detail = verdict.detail
    while len(message := json.dumps([verdict.status, verdict.reward, detail]).encode()) > _MESSAGE_BYTES:
        detail = detail[: len(detail) // 2]
    return message


def _decoded(message: bytes) -> Verdict:
    """Raises ValueError for what is no verdict."""
    match json.loads(message):
        case [str() as status, float() | int() | None as reward, str() as detail] if status in get_args(VerdictStatus):
            return Verdict(status=cast(VerdictStatus, status), reward=reward, detail=detail)
    raise ValueError("no verdict")


def describe(error: BaseException) -> str:
    """Type, message and place of an error, in one line."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f" ({os.path.basename(frames[-1].filename)}:{frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {error}"[:_DETAIL_CHARS] + place


def serve(connection_fd: int, lifeline_fd: int) -> None:
    """The worker: load the judge, say so, then judge item after item until the parent is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _die_with(lifeline_fd)
    sys.stdout, sys.stderr = _printed(sys.stdout), _printed(sys.stderr)
    connection = Connection(connection_fd)
    try:
        judge: Judge = pickle.loads(connection.recv_bytes())()
    except BaseException as error:
        connection.send_bytes(describe(error).encode(errors="replace"))
        return
    connection.send_bytes(b"")
    while True:
        try:
            item = connection.recv_bytes()
        except EOFError:
            return
        try:
            message = _encoded(judge(pickle.loads(item)))
        except BaseException as error:  # sys.exit() in a judge is a failure of its item too
            message = _encoded(error_verdict(describe(error)))
        connection.send_bytes(message)


class _Printed(io.FileIO):
    """What nobody takes (on a full disk, by a pipe whose reader has gone) is lost, and the verdict is not."""

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except OSError:
            return len(data)


def _printed(stream: TextIO) -> TextIO:
    """The same stream, in which printing does not fail; none where there is none."""
    if stream is None:  # a daemon may have closed it
        return stream
    raw = io.BufferedWriter(_Printed(stream.fileno(), "w", closefd=False))
    return io.TextIOWrapper(raw, encoding=stream.encoding, errors="backslashreplace", line_buffering=True)


def _die_with(lifeline_fd: int) -> None:
    """Have the kernel end this process when the parent's end of the pipe closes, even inside a long C call.

    O_ASYNC raises SIGIO on the hang-up, whose default action ends the process without the interpreter's help.
    """
    signal.signal(signal.SIGIO, signal.SIG_DFL)
    fcntl.fcntl(lifeline_fd, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(lifeline_fd, fcntl.F_SETFL, fcntl.fcntl(lifeline_fd, fcntl.F_GETFL) | os.O_ASYNC)
    if select.select([lifeline_fd], [], [], 0)[0]:  # the parent was gone before this took effect
        os._exit(1)
