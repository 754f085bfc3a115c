"""User verifier functions that behave well and badly, for the tests of the verifier's processes."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from prmkit.data.types import Prompt

not_callable = 3


def exact(prompt: Prompt, text: str) -> float:
    return float(prompt.answer == text)


def slow_first(prompt: Prompt, text: str) -> float:
    """The first items take longest, so that finishing order is not asking order."""
    index = int(text)
    time.sleep(0.3 if index == 0 else 0.0)
    return index / 10


def by_text(prompt: Prompt, text: str) -> object:
    """What `text` names."""
    values: dict[str, object] = {
        "none": None, "nan": float("nan"), "inf": float("inf"), "high": 1.5, "low": -0.1, "string": "1.0", "list": [1.0],
        "true": True, "int": 0, "half": 0.5,
    }  # fmt: skip
    return values[text]


def misbehave(prompt: Prompt, text: str) -> float:
    """Dies, hangs or fails as `text` says; `prompt.answer` is a file that gets the ids of the processes."""
    if prompt.answer:
        Path(prompt.answer).write_text(str(os.getpid()))
    match text:
        case "exit":
            os._exit(3)
        case "sigkill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "segfault":
            ctypes.string_at(0)
        case "sys.exit":
            sys.exit(1)
        case "raise":
            raise KeyError("no such unit")
        case "recursion":
            return misbehave(prompt, text)
        case "hang":
            for number in (signal.SIGALRM, signal.SIGTERM, signal.SIGINT):
                signal.signal(number, signal.SIG_IGN)
            ctypes.PyDLL(None).sleep(1000)  # holds the interpreter's lock: no Python code can run
        case "child":
            child = subprocess.Popen(["sleep", "1000"])
            Path(prompt.answer).write_text(str(child.pid))
            child.wait()
        case "nap":
            while Path(prompt.answer).exists():
                time.sleep(0.01)
    return 1.0


def worker_id(prompt: Prompt, text: str) -> float:
    """The worker's process id, as a number in [0, 1]."""
    return os.getpid() / 2**32


def modules_loaded(prompt: Prompt, text: str) -> float:
    """1 when the worker has imported the module that `text` names."""
    return float(text in sys.modules)
