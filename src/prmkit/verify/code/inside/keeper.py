"""The first process in the sandbox: forks a child for each job and says how it ended.

A job comes over a socket whose messages keep their bounds, with file descriptors: first a payload (JSON), then what the kind
of job needs. The keeper is no judge. The program may kill it or lie in its name: nothing that decides a verdict is in here.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import importlib
import io
import json
import os
import resource
import select
import signal
import site
import socket
import sys
import types
from array import array
from collections.abc import Callable
from typing import Any

from .wire import Channel

_MESSAGE_BYTES = 1 << 16
_MAX_FDS = 8
_MEGABYTE = 1 << 20
_STACK_MB = 64


class _Script:
    """A program to run as `__main__`, once the keeper's frames are gone."""

    def __init__(self, parts: list[str]) -> None:
        self.parts = parts


def main(control_fd: int, isolated: bool, user: int) -> None:
    """Become `user` (if it is not 0), then serve jobs until the other end closes."""
    control = socket.socket(fileno=control_fd)
    site.setquit()
    if user:
        os.setgroups([])
        os.setgid(user)
        os.setuid(user)
    gc.collect()
    gc.freeze()  # a child's collector would copy every page that it looks at
    control.send(b'{"ready": true}')
    while True:
        message, fds = _receive(control)
        if not message:
            os._exit(0)
        job = json.loads(message)
        if job.get("job") == "stop":  # of a job that had ended by itself
            continue
        if new := set(job["modules"]) - sys.modules.keys():  # of the standard library; no test is to wait for them
            for name in new:
                importlib.import_module(name)
            gc.collect()
            gc.freeze()
        if job["job"] != "script":  # here, so that the next fork has it too
            importlib.import_module(f".{'host' if job['job'] == 'host' else 'tester'}", __package__)
        child = os.fork()
        if child == 0:
            control.close()
            script = _start(job, fds)
            if script is not None:
                _become_main(script.parts)
            return
        for fd in fds:
            os.close(fd)
        control.send(json.dumps(_await_end(child, control, isolated)).encode())


def _receive(control: socket.socket) -> tuple[bytes, list[int]]:
    fds = array("i")
    message, ancillary, _, _ = control.recvmsg(_MESSAGE_BYTES, socket.CMSG_LEN(_MAX_FDS * fds.itemsize))
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds.frombytes(data[: len(data) - len(data) % fds.itemsize])
    return message, list(fds)


def _await_end(child: int, control: socket.socket, isolated: bool) -> dict[str, Any]:
    """Wait until the child ends or the other end wants it ended, then end whatever it has left behind."""
    handle = os.pidfd_open(child)
    readable, _, _ = select.select([handle, control.fileno()], [], [])
    stopped = handle not in readable
    if stopped:
        control.recv(_MESSAGE_BYTES)
    _end_all(child, isolated)
    _, status, usage = os.wait4(child, 0)
    os.close(handle)
    while isolated:
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            break
    return {
        "ended": os.waitstatus_to_exitcode(status),
        "stopped": stopped,
        "memory_mb": usage.ru_maxrss // 1024,
    }


def _end_all(child: int, isolated: bool) -> None:
    """Everything in this process space but the keeper; without one, the child's session."""
    try:
        if isolated and os.getpid() < 10:  # never in the process space of the machine
            os.kill(-1, signal.SIGKILL)
        else:
            os.kill(child, signal.SIGKILL)
            os.killpg(child, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        pass


def _start(job: dict[str, Any], fds: list[int]) -> _Script | None:
    """In the child: take the limits on and do the job. A script is handed back, to run as the interpreter's own."""
    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    payload = _payload(fds[0])
    _limit(job["limits"])
    sys.path.extend(job["path"])
    limit = job["limits"]["output_mb"] * _MEGABYTE
    if job["job"] == "script":
        for number, fd in enumerate(fds[1:]):
            os.dup2(fd, number)
            os.close(fd)
        return _Script(payload["parts"])
    null = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):  # the keeper's own standard error is a file outside
        os.dup2(null, stream)
    os.close(null)
    channel = Channel(socket.socket(fileno=fds[1]), limit)
    if job["job"] == "host":
        from .host import host

        host(payload, channel)
    else:
        from .tester import run_tests

        run_tests(payload, channel, Channel(socket.socket(fileno=fds[2]), limit))
    os._exit(0)


def _payload(fd: int) -> dict[str, Any]:
    with open(fd, "rb") as file:
        payload: dict[str, Any] = json.load(file)
    return payload


def _limit(limits: dict[str, int]) -> None:
    """Limits of this process and of each that it starts; a lower hard limit of the machine stays."""
    wanted = {
        resource.RLIMIT_AS: limits["memory_mb"] * _MEGABYTE,
        resource.RLIMIT_CPU: limits["cpu_s"],
        resource.RLIMIT_NPROC: limits["processes"],
        resource.RLIMIT_FSIZE: limits["disk_mb"] * _MEGABYTE,
        resource.RLIMIT_NOFILE: 128,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_STACK: _STACK_MB * _MEGABYTE,
        resource.RLIMIT_MEMLOCK: _MEGABYTE,
        resource.RLIMIT_MSGQUEUE: 0,
    }
    for kind, value in wanted.items():
        if value < 0:
            continue
        hard = resource.getrlimit(kind)[1]
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(kind, (value, value))


def _become_main(parts: list[str]) -> None:
    """Run a program, its parts in one module, as if the interpreter had been started with it, then leave as the interpreter
    would: threads are waited for, exit functions run, output is flushed, objects of the program go. Only the interpreter is
    not torn down, which a fork need not pay for.
    """

    def run() -> None:
        for part in parts:
            exec(compile(part, "main.py", "exec", dont_inherit=True), main_module.__dict__)

    main_module = types.ModuleType("__main__")
    main_module.__dict__["__builtins__"] = __builtins__
    sys.modules["__main__"] = main_module
    sys.argv = ["main.py"]
    codes = [
        _exit_code(run),
        _exit_code(_wait_for_threads),
        _exit_code(atexit._run_exitfuncs),
        _exit_code(lambda: _flush(sys.stdout, sys.stderr)),
        _exit_code(lambda: _let_go(main_module.__dict__)),
        _exit_code(lambda: _flush(sys.stdout, sys.stderr)),
    ]
    os._exit(next((code for code in codes if code), 0))


def _flush(*streams: Any) -> None:
    """A program may have closed them, or put something else or nothing in their places."""
    for stream in streams:
        if hasattr(stream, "flush") and not getattr(stream, "closed", False):
            stream.flush()


def _let_go(names: dict[str, Any]) -> None:
    """What a program holds ends, so that files that it has opened on standard output are written: those first, since of a
    file in a cycle the inner part may be closed before the outer one is written.
    """
    sys.stdout, sys.stderr = sys.__stdout__, sys.__stderr__
    for thing in gc.get_objects():
        if type(thing) is io.TextIOWrapper:
            with contextlib.suppress(ValueError):  # it was closed, or taken apart
                thing.flush()
    for name in list(names):
        if name != "__builtins__":
            names[name] = None
    gc.collect()


def _wait_for_threads() -> None:
    if threading := sys.modules.get("threading"):  # imported by the program, or not at all
        threading._shutdown()


def _exit_code(run: Callable[[], Any]) -> int:
    """The exit code that the interpreter would give for what `run` raises, having said the same on standard error."""
    try:
        run()
    except SystemExit as error:
        if error.code is None or isinstance(error.code, int):
            return (error.code or 0) & 0xFF
        sys.stderr.write(f"{error.code}\n")
        return 1
    except BaseException as error:
        sys.excepthook(type(error), error, error.__traceback__)
        return 1
    return 0
