"""A user's function as the verifier, in killable workers: prmkit's own signature, TRL's and verl's, sync or async.

prmkit: f(prompt, text) -> float | None | Verdict
trl: f(prompts, completions, **columns) -> list[float | None] (documentation of TRL's GRPOTrainer)
verl: compute_score(data_source, solution_str, ground_truth, extra_info) -> float, or a dictionary with "score"
"""

from __future__ import annotations

import asyncio
import importlib
import inspect
import json
import math
import numbers
import os
import sys
import weakref
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any

from prmkit.config import Signature
from prmkit.data.types import Prompt, Verdict
from prmkit.errors import ConfigError, VerifierError
from prmkit.verify.pooled import PoolVerifier

UNIT = (0.0, 1.0)
Call = Callable[[Prompt, str], Any]
"""A user's function behind one signature; the result may still have to be awaited."""

_OURS = ("question", "categories", "verifier", "data_source", "tests")
"""What prmkit itself puts into a prompt's meta: no extra information of the row's."""
_VERL = ("data_source", "solution_str", "ground_truth", "extra_info")


class FunctionVerifier(PoolVerifier):
    """A user's function in killable workers.

    True and False are 1 and 0. None is `unparsed`; an exception, a dead process, NaN, a value outside the range or one that
    is no number is `error`; a missed deadline is `timeout`. None of them is a reward of 0.
    """

    def __init__(
        self,
        function: str,
        *,
        workers: int,
        timeout_s: float,
        signature: Signature = "auto",
        value_range: tuple[float, float] = UNIT,
        recycle_after: int = 0,
        memory_mb: int = 0,
    ) -> None:
        """`function` is "module:function"; the module is looked for in the current directory, then as installed.

        value_range: what it returns for wrong and right; it becomes [0, 1]. Raises ConfigError when the function cannot be
        loaded or called, which a worker tries at once.
        """
        directory = os.getcwd()
        super().__init__(
            partial(load_function, function, signature, value_range),
            workers=workers,
            timeout_s=timeout_s,
            extra_path=[directory],
            recycle_after=recycle_after,
            memory_mb=memory_mb,
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


def load_function(
    spec: str, signature: Signature = "auto", value_range: tuple[float, float] = UNIT
) -> Callable[[tuple[Prompt, str]], Verdict]:
    """For a worker: import the user's function and wrap what it returns into verdicts.

    Raises TypeError for what cannot be called in one of the known ways.
    """
    module_name, _, name = spec.partition(":")
    if not module_name or not name:
        raise ValueError("there is no ':' between a module and a function")
    function = getattr(importlib.import_module(module_name), name)
    if not callable(function):
        raise TypeError(f"{name} is a {type(function).__name__}, not a function")
    call = adapt(function, signature)
    runner = asyncio.Runner()  # one loop for the worker's life: what an async function keeps open stays usable

    async def awaited(found: Awaitable[Any]) -> Any:
        return await found

    def judge(item: tuple[Prompt, str]) -> Verdict:
        try:
            found = call(*item)
            verdict = reward_verdict(runner.run(awaited(found)) if inspect.isawaitable(found) else found, value_range)
        finally:
            for stream in filter(None, (sys.stdout, sys.stderr)):  # before a later item may kill the process
                stream.flush()
        return verdict

    weakref.finalize(judge, runner.close)
    return judge


def adapt(function: Callable[..., Any], signature: Signature = "auto") -> Call:
    """The function as call(prompt, text), by the named signature or by the names of its parameters.

    Raises TypeError when it fits none, or asks for something that is not there.
    """
    parameters = inspect.signature(function).parameters
    if signature == "auto":
        signature = _detected(parameters)
    known: dict[str, Callable[[Prompt, str], dict[str, Any]]] = {
        "trl": _trl_fields,
        "trl_text": partial(_trl_fields, as_text=True),
        "verl": _verl_fields,
    }
    if signature not in known:
        return function
    fields = known[signature]
    takes_all = any(p.kind is p.VAR_KEYWORD for p in parameters.values())

    def call(prompt: Prompt, text: str) -> Any:
        given = fields(prompt, text)
        missing = [p.name for p in parameters.values() if _is_required(p) and p.name not in given]
        if missing:
            raise TypeError(
                f"the function asks for {', '.join(missing)}, but prompt {prompt.id!r} has only {', '.join(sorted(given))}"
            )
        found = function(**(given if takes_all else {name: given[name] for name in parameters if name in given}))
        if signature == "verl":
            return found
        return _later(found) if inspect.isawaitable(found) else _only(found)

    return call


def _detected(parameters: Mapping[str, inspect.Parameter]) -> Signature:
    if "completions" in parameters:
        return "trl"
    if "solution_str" in parameters:
        return "verl"
    positional = [p for p in parameters.values() if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    num_required = sum(p.default is p.empty for p in positional)
    takes_two = len(positional) >= 2 or any(p.kind is p.VAR_POSITIONAL for p in parameters.values())
    others = [p.name for p in parameters.values() if p.kind is p.KEYWORD_ONLY and p.default is p.empty]
    if takes_two and num_required <= 2 and not others:
        return "prmkit"
    raise TypeError(
        f"its parameters ({', '.join(parameters) or 'none'}) fit no signature: f(prompt, text), f(prompts, completions, "
        f"**columns) of TRL or compute_score({', '.join(_VERL)}) of verl; name one in verifier.signature"
    )


def _is_required(parameter: inspect.Parameter) -> bool:
    variadic = parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL)
    return not variadic and parameter.default is parameter.empty


def _trl_fields(prompt: Prompt, text: str, *, as_text: bool = False) -> dict[str, Any]:
    """What TRL hands to a reward function, for a batch of one; every column of the data set is a list."""
    turns = [{"role": message.role, "content": message.content} for message in prompt.messages]
    asked: Any = "\n\n".join(turn["content"] for turn in turns) if as_text else turns
    said: Any = text if as_text else [{"role": "assistant", "content": text}]
    truth = _ground_truth(prompt)
    columns = {"id": prompt.id, "answer": prompt.answer, "solution": prompt.answer, "ground_truth": truth}
    columns |= {"data_source": data_source(prompt), **prompt.meta}
    return {
        **{name: [value] for name, value in columns.items()},
        "prompts": [asked],
        "completions": [said],
        "trainer_state": None,
        "log_extra": _ignore,
        "log_metric": _ignore,
    }


def _verl_fields(prompt: Prompt, text: str) -> dict[str, Any]:
    further = {name: value for name, value in prompt.meta.items() if name not in _OURS}
    values = (data_source(prompt), text, _ground_truth(prompt), prompt.meta.get("extra_info", further))
    return dict(zip(_VERL, values, strict=True))


def _ground_truth(prompt: Prompt) -> str:
    """The reference answer; of a programming problem without one its tests as JSON, which is what PRIME's rows hold."""
    if prompt.answer or "tests" not in prompt.meta:
        return prompt.answer
    tests = prompt.meta["tests"]
    return tests if isinstance(tests, str) else json.dumps(tests)


def data_source(prompt: Prompt) -> str:
    """Where a prompt is from: its `data_source`, else its task."""
    return str(prompt.meta.get("data_source") or prompt.task)


def _ignore(*_: object, **__: object) -> None:
    """TRL's loggers: a verifier has none."""


async def _later(found: Awaitable[Any]) -> Any:
    return _only(await found)


def _only(found: Any) -> Any:
    """The one value of a list of one."""
    values = found.tolist() if hasattr(found, "tolist") else found
    if not isinstance(values, (list, tuple)) or len(values) != 1:
        size = f" of {len(values)}" if isinstance(values, (list, tuple)) else ""
        raise TypeError(
            f"the function returned a {type(values).__name__}{size} for 1 completion, not a list of 1 reward"
        )
    return values[0]


def reward_verdict(value: Any, value_range: tuple[float, float] = UNIT) -> Verdict:
    """The verdict that a user's return value stands for; `value_range` becomes [0, 1]."""
    detail = ""
    if isinstance(value, Verdict):
        return value
    if isinstance(value, Mapping):
        if "score" not in value:
            return _broken(f"returned a dictionary without 'score', only {', '.join(map(str, value)) or 'nothing'}")
        detail = ", ".join(f"{key}: {said}" for key, said in value.items() if key != "score")
        value = value["score"]
    if value is None:
        return Verdict(
            status="unparsed", reward=None, detail="the verifier function returned None: it could not decide"
        )
    low, high = value_range
    shown = f"[{low:g}, {high:g}]"
    if not isinstance(value, numbers.Real):
        return _broken(f"returned a {type(value).__name__}, not a number in {shown} or None")
    number = float(value)
    if not low <= number <= high:  # NaN too
        hint = "; if that is meant, state verifier.function_range" if math.isfinite(number) else ""
        return _broken(f"returned {number}, not in {shown}{hint}")
    return Verdict(status="ok", reward=min(1.0, max(0.0, (number - low) / (high - low))), detail=detail)


def _broken(what: str) -> Verdict:
    return Verdict(status="error", reward=None, detail=f"the verifier function {what}")
