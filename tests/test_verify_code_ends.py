"""How cells end, and what is left when they could not begin."""

from __future__ import annotations

import errno
import gc
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from code_setup import bubblewrap_verifier, prompt

from prmkit.verify.code import CodeConfig, CodeVerifier, cell

ECHO = {"inputs": ["1\n"], "outputs": ["1\n"]}


def wait_until(holds: Callable[[], bool], seconds: float = 60.0) -> bool:
    end = time.monotonic() + seconds
    while not holds() and time.monotonic() < end:
        time.sleep(0.01)
    return holds()


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


@pytest.mark.filterwarnings("ignore:sandbox = 'unsafe'")
def test_closing_ends_a_program_that_runs_without_a_sandbox(tmp_path: Path) -> None:
    started = tmp_path / "started"
    program = (
        "import os, pathlib, time\nchild = os.fork()\n"
        f"if child: pathlib.Path({str(started)!r}).write_text(f'{{os.getpid()}} {{child}}\\n')\ntime.sleep(600)"
    )
    verifier = CodeVerifier(CodeConfig(sandbox="unsafe", time_s=600.0, workers=1))
    judging = threading.Thread(target=lambda: verifier.verify([(prompt(ECHO), program)]), daemon=True)
    judging.start()
    assert wait_until(lambda: started.exists() and started.read_text().endswith("\n"))
    pids = [int(word) for word in started.read_text().split()]
    verifier.close()
    assert wait_until(lambda: not any(map(is_running, pids)))
    judging.join(60.0)
    assert not judging.is_alive()


def open_files() -> int:
    gc.collect()  # what earlier tests have left open is closed at any time, else
    return len(os.listdir("/proc/self/fd"))


def test_a_cell_that_cannot_be_made_leaves_no_file_open(monkeypatch: pytest.MonkeyPatch) -> None:
    def too_many(*_: Any, **__: Any) -> Any:
        raise OSError(errno.EMFILE, "Too many open files")

    with bubblewrap_verifier(workers=1) as verifier:
        assert verifier.verify([(prompt(ECHO), "print(input())")])[0].reward == 1.0
        for name in ("tempfile.TemporaryFile", "socket.socketpair", "subprocess.Popen"):
            before = open_files()
            with monkeypatch.context() as patched:
                module, _, function = name.partition(".")
                patched.setattr(getattr(cell, module), function, too_many)
                (verdict,) = verifier.verify([(prompt(ECHO), "print(input())")])
            assert (verdict.status, verdict.reward) == ("error", None)
            assert "the sandbox cannot be started" in verdict.detail
            assert open_files() == before
        before = open_files()
        odd = {"inputs": ["\ud83d\n"], "outputs": ["1\n"]}  # half a surrogate pair: no input that a program can read
        assert verifier.verify([(prompt(odd), "print(input())")])[0].status == "error"
        assert open_files() == before
