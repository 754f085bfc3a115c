"""From the names in the configuration to steps."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from prmkit.config import ModelConfig
from prmkit.curate.answers import answer_step, check_answers
from prmkit.curate.choices import choices_step
from prmkit.curate.config import PrepareConfig
from prmkit.curate.contamination import contamination_step
from prmkit.curate.difficulty import difficulty_step
from prmkit.curate.duplicates import duplicates_step
from prmkit.curate.opening import model_rewrite
from prmkit.curate.record import Dropped, Outcome, Record, Step, one_by_one
from prmkit.curate.rules import rules_step
from prmkit.curate.sampling import Model, OnProgress, ResponseCache
from prmkit.curate.verifiability import verifiability_step
from prmkit.errors import ConfigError, DataError
from prmkit.protocols import Verifier

Function = Callable[[Sequence[Record]], Outcome]


@dataclass(frozen=True, kw_only=True)
class Tools:
    """What steps work with."""

    verifier: Verifier
    model: Callable[[ModelConfig], Model]
    """Opens a model, when it is first asked."""
    cache: Callable[[], ResponseCache]
    on_progress: Callable[[str], OnProgress]
    """Of the step of that name."""


def make_steps(config: PrepareConfig, tools: Tools) -> list[Step]:
    """The configured steps in order. Raises ConfigError, and DataError for evaluation sets that cannot be read."""
    return [Step(name=name, run=_function(name, config, tools)) for name in config.steps]


def _function(name: str, config: PrepareConfig, tools: Tools) -> Function:
    match name:
        case "rules":
            return rules_step(config.rules)
        case "answer":
            return answer_step(config.answer, tools.verifier)
        case "choices":
            return _choices(config, tools)
        case "duplicates":
            return duplicates_step(config.duplicates, tools.verifier, config.answer)
        case "contamination":
            return contamination_step(config.contamination)
        case "difficulty":
            return difficulty_step(
                config.difficulty,
                lambda: tools.model(config.difficulty.model),
                tools.cache(),
                tools.verifier,
                seed=config.seed,
                on_progress=tools.on_progress(name),
            )
        case "verifiability":
            return verifiability_step(
                config.verifiability,
                [lambda model=model: tools.model(model) for model in config.verifiability.models],  # type: ignore[misc]
                tools.cache(),
                tools.verifier,
                seed=config.seed,
                on_progress=tools.on_progress(name),
            )
        case _:
            return own_step(name)


def _choices(config: PrepareConfig, tools: Tools) -> Function:
    def check(records: Sequence[Record]) -> list[Record | Dropped]:
        return check_answers(records, config.answer, tools.verifier)

    if config.choices.by == "rules" or config.choices.mode != "open":
        return choices_step(config.choices, check)
    rewrite = model_rewrite(
        config.choices,
        lambda: tools.model(config.choices.model),
        tools.cache(),
        tools.verifier,
        seed=config.seed,
        on_progress=tools.on_progress("choices"),
    )
    return choices_step(config.choices, check, rewrite)


def own_step(name: str) -> Function:
    """A user's `module:function`, which takes a `Record` and returns it, changed or not, or a text: why it is dropped.

    The module is looked for in the current directory, then as installed. Raises ConfigError when it cannot be loaded; the
    step raises DataError when the function fails, or returns anything else.
    """
    module_name, _, function_name = name.partition(":")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        function = getattr(importlib.import_module(module_name), function_name)
    except Exception as error:  # whatever the user's module raises
        raise ConfigError(
            f'steps: "{name}" cannot be loaded: {type(error).__name__}: {error}. It must be "module:function" of a function '
            f"that takes a record, in {os.getcwd()} or installed"
        ) from error
    if not callable(function):
        raise ConfigError(f'steps: "{name}" is a {type(function).__name__}, not a function')

    def judge(record: Record) -> Record | Dropped:
        try:
            found: Any = function(record)
        except Exception as error:
            raise DataError(f"{record.where}: step {name} failed: {type(error).__name__}: {error}") from error
        if isinstance(found, Record) and (found.id, found.where) == (record.id, record.where):
            return found
        if isinstance(found, str) and found.strip():
            return Dropped(record=record, reason=found.strip())
        raise DataError(
            f"{record.where}: step {name} returned {type(found).__name__}; it has to return the record (dataclasses.replace "
            "changes it, but for its id and place), or a text that says why it is dropped"
        )

    return one_by_one(judge)
