"""The verifiers that a run uses: mathematical answers, or a user's function."""

from __future__ import annotations

import importlib
import math
import numbers
import os
import sys
from collections.abc import Callable, Sequence
from functools import partial
from types import TracebackType
from typing import Any, Self

from prmkit.config import VerifierConfig
from prmkit.data.types import Prompt, Verdict
from prmkit.errors import ConfigError, VerifierError
from prmkit.verify.math import Comparison, fast_verdict, load_math_verify
from prmkit.verify.pool import WorkerPool


class _PoolVerifier:
    """A verifier that owns a pool: close it, or use it as a context manager."""

    _pool: WorkerPool

    def close(self) -> None:
        """End the worker processes."""
        self._pool.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class MathVerifier(_PoolVerifier):
    """Compares the final answer of a response with `Prompt.answer` as mathematics.

    Plain numbers and equal strings are decided in this process; anything else by math-verify in workers that are killed at
    the deadline. Equal comparisons within one call are made once.
    """

    def __init__(self, *, workers: int, timeout_s: float, last_number: bool = False) -> None:
        """timeout_s: seconds for one answer. last_number: the last number of a text without an answer counts as one."""
        _check(workers, timeout_s)
        self._last_number = last_number
        self._pool = WorkerPool(load_math_verify, workers=workers, timeout_s=timeout_s)

    def verify(self, responses: Sequence[tuple[Prompt, str]]) -> list[Verdict]:
        """One verdict per (prompt, response text), in order. Raises VerifierError when no worker can run at all."""
        found = [fast_verdict(prompt.answer, text, last_number=self._last_number) for prompt, text in responses]
        open_items = list(dict.fromkeys(item for item in found if isinstance(item, Comparison)))
        judged = dict(zip(open_items, self._pool.run(open_items), strict=True)) if open_items else {}
        return [judged[item] if isinstance(item, Comparison) else item for item in found]


class FunctionVerifier(_PoolVerifier):
    """A user's function f(prompt, text) -> float in [0, 1], or None when it could not decide, in killable workers.

    True and False are 1 and 0. None is `unparsed`; an exception, a dead process, NaN, a value outside [0, 1] or one that
    is no number is `error`; a missed deadline is `timeout`. None of them is a reward of 0.
    """

    def __init__(self, function: str, *, workers: int, timeout_s: float) -> None:
        """`function` is "module:function"; the module is looked for in the current directory, then as installed.

        Raises ConfigError when it cannot be loaded, which a worker tries at once.
        """
        _check(workers, timeout_s)
        directory = os.getcwd()
        self._pool = WorkerPool(
            partial(load_function, function), workers=workers, timeout_s=timeout_s, extra_path=[directory]
        )
        try:
            self._pool.start()
        except VerifierError as error:
            self._pool.close()
            raise ConfigError(
                f"verifier.function = {function!r} cannot be loaded: {error}. It must be 'module:function', such as "
                f"'my_verifier:judge' for judge(prompt, text) in {os.path.join(directory, 'my_verifier.py')}."
            ) from error

    def verify(self, responses: Sequence[tuple[Prompt, str]]) -> list[Verdict]:
        """One verdict per (prompt, response text), in order. Raises VerifierError when no worker can run at all."""
        return self._pool.run(responses)


def make_verifier(config: VerifierConfig) -> MathVerifier | FunctionVerifier:
    """The configured verifier. Raises ConfigError for values that cannot run."""
    if config.function:
        return FunctionVerifier(config.function, workers=config.workers, timeout_s=config.timeout_s)
    return MathVerifier(workers=config.workers, timeout_s=config.timeout_s)


def _check(workers: int, timeout_s: float) -> None:
    if workers < 1:
        raise ConfigError(f"verifier.workers = {workers}, but at least 1 process is needed. Set verifier.workers = 1.")
    if not (math.isfinite(timeout_s) and timeout_s > 0):
        raise ConfigError(
            f"verifier.timeout_s = {timeout_s}, but a deadline is a positive number of seconds, such as 5."
        )


def load_function(spec: str) -> Callable[[tuple[Prompt, str]], Verdict]:
    """For a worker: import the user's function and wrap what it returns into verdicts."""
    module_name, _, name = spec.partition(":")
    if not module_name or not name:
        raise ValueError("there is no ':' between a module and a function")
    function = getattr(importlib.import_module(module_name), name)
    if not callable(function):
        raise TypeError(f"{name} is a {type(function).__name__}, not a function")

    def judge(item: tuple[Prompt, str]) -> Verdict:
        verdict = reward_verdict(function(*item))
        for stream in (sys.stdout, sys.stderr):  # what it printed, before a later item may kill the process
            stream.flush()
        return verdict

    return judge


def reward_verdict(value: Any) -> Verdict:
    """The verdict that a user's return value stands for."""
    if value is None:
        return Verdict(
            status="unparsed", reward=None, detail="the verifier function returned None: it could not decide"
        )
    if not isinstance(value, numbers.Real):
        kind = type(value).__name__
        return Verdict(
            status="error",
            reward=None,
            detail=f"the verifier function returned a {kind}, not a number in [0, 1] or None",
        )
    reward = float(value)
    if not 0.0 <= reward <= 1.0:  # NaN too
        return Verdict(status="error", reward=None, detail=f"the verifier function returned {reward}, not in [0, 1]")
    return Verdict(status="ok", reward=reward)
