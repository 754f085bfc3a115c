"""User functions in TRL's, verl's and prmkit's form, well and badly behaved, for the tests of the user's verifier."""

from __future__ import annotations

import asyncio
import sys
import time
from typing import Any

from prmkit.data.types import Prompt, Verdict

KEPT: list[bytes] = []
LOOPS: set[int] = set()


def trl_chat(prompts: list[Any], completions: list[Any], solution: list[str], **columns: Any) -> list[float | None]:
    """As in TRL's own rewards for conversational data."""
    texts = [completion[0]["content"] for completion in completions]
    assert prompts[0][0]["role"] == "user"
    assert columns["level"] == [3]
    return [None if text == "?" else float(text == gold) for text, gold in zip(texts, solution, strict=True)]


def trl_text(completions: list[str], answer: list[str]) -> list[float]:
    return [float(gold in text) for text, gold in zip(completions, answer, strict=True)]


def trl_loggers(completions: list[Any], log_extra: Any = None, log_metric: Any = None, **_: Any) -> list[float]:
    log_extra("text", ["a"])
    log_metric("length", 1.0)
    return [1.0]


async def trl_async(prompts: list[Any], completions: list[Any], answer: list[str]) -> list[float]:
    await asyncio.sleep(0.01)
    return [float(completions[0][0]["content"] == answer[0])]


def trl_two(completions: list[Any]) -> list[float]:
    return [1.0, 0.0]


def trl_scalar(completions: list[Any]) -> float:
    return 1.0


def trl_wants(completions: list[Any], completion_ids: list[Any]) -> list[float]:
    return [1.0]


def trl_minus(completions: list[Any]) -> list[float]:
    return [{"good": 1.0, "half": 0.0, "bad": -1.0}.get(completions[0][0]["content"], 2.0)]


def compute_score(data_source: str, solution_str: str, ground_truth: str, extra_info: Any = None) -> Any:
    """verl's signature; what it returns is up to the response."""
    right = solution_str == f"{data_source}/{ground_truth}/{extra_info['index']}"
    return {"score": float(right), "acc": right, "pred": solution_str}


def verl_no_score(data_source: str, solution_str: str, ground_truth: str, extra_info: Any) -> dict[str, float]:
    return {"acc": 1.0}


def verl_bare(solution_str: str, ground_truth: str) -> bool:
    return solution_str == ground_truth


async def verl_async(data_source: str, solution_str: str, ground_truth: str, extra_info: Any = None) -> dict[str, Any]:
    await asyncio.sleep(0.01)
    right = solution_str == ground_truth
    return {"score": float(right), "acc": right}


async def ours_async(prompt: Prompt, text: str) -> float:
    LOOPS.add(id(asyncio.get_running_loop()))
    await asyncio.sleep(0.0)
    return float(len(LOOPS) == 1 and text == prompt.answer)


async def ours_hangs(prompt: Prompt, text: str) -> float:
    await asyncio.sleep(1000)
    return 1.0


def ours_verdict(prompt: Prompt, text: str) -> Verdict:
    return Verdict(status="unparsed", reward=None, detail="x" * 1_000_000)


def ours_renamed(problem: Prompt, response: str, strict: bool = True) -> float:
    return float(strict and problem.answer == response)


def no_signature(text: str) -> float:
    return 1.0


def prints(prompt: Prompt, text: str) -> float:
    print("printed by a judge")
    sys.stdout.buffer.write(b"\x00\xff" * 50_000)
    return 1.0


def leaks(prompt: Prompt, text: str) -> float:
    """Keeps 40 MB each time."""
    KEPT.append(b"\x01" * (40 * 2**20))
    return len(KEPT) / 10


def explodes(prompt: Prompt, text: str) -> float:
    """Holds ever more memory until it is stopped."""
    while text == "bomb":
        KEPT.append(b"\x01" * (20 * 2**20))
        time.sleep(0.01)
    return 1.0


def length(prompt: Prompt, text: str) -> float:
    """The number of megabytes that it was given, over 100."""
    return len(text) / 2**20 / 100


def garbage(prompt: Prompt, text: str) -> float:
    """Writes into every file that is open, the worker's own pipe among them."""
    import os

    for descriptor in map(int, os.listdir("/proc/self/fd")):
        if descriptor < 3:
            continue
        try:
            os.write(descriptor, b"\x00\x00\x00\x06nonono")
        except OSError:
            continue
    return 1.0


def own_alarm(prompt: Prompt, text: str) -> float:
    """Uses signals, as math-verify's own time limits do: only in a main thread."""
    import signal

    signal.signal(signal.SIGALRM, lambda *_: None)
    signal.setitimer(signal.ITIMER_REAL, 0.0)
    return 1.0
