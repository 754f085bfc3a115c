"""What a report card is made from: sets of solutions, models with their scores, and the thresholds that they are judged at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from prmkit.data.types import Group, RewardKind, Solution
from prmkit.errors import DataError
from prmkit.evaluate.prm.config import EvalPRMConfig
from prmkit.evaluate.prm.prm_bench import best_step_threshold, in_total, judge_steps
from prmkit.evaluate.prm.process_bench import best_threshold, locate
from prmkit.evaluate.prm.scored import Reading, Scored, as_probability, as_score, first_error, readings
from prmkit.protocols import Unscored

Task = Literal["process_bench", "prm_bench", "steps", "pools"]


@dataclass(frozen=True, kw_only=True)
class EvalSet:
    """Solutions to score, and what they are for."""

    name: str
    task: Task
    solutions: Sequence[Solution]
    """Of `pools`, those of all groups, in order."""
    groups: Sequence[Group[Solution]] = ()
    source: Mapping[str, Any] = field(default_factory=dict)
    """Where they came from: path, sha256."""


@dataclass(frozen=True, kw_only=True)
class ModelScores:
    """One model and what it said of each set."""

    name: str
    kind: RewardKind
    scored: Mapping[str, Sequence[Scored]]
    """Set name -> its solutions with their rewards. A control has those of pools only."""
    control: bool = False
    source: Mapping[str, Any] = field(default_factory=dict)
    """Where it came from: path, family and the like."""


@dataclass(frozen=True, kw_only=True)
class Threshold:
    """Where right and wrong are cut, and why there."""

    score: float
    """In the model's own unit."""
    probability: float
    chosen_on: str = ""
    """The one set that it was chosen on; empty where it was given."""
    objective: str = ""
    """What was maximised there."""
    best: float | None = None
    """What the objective came to, in-sample."""


Thresholds = Mapping[str, Mapping[Reading, Threshold]]
"""Model name -> reading -> threshold."""


def pool_set(name: str, groups: Sequence[Group[Solution]], source: Mapping[str, Any]) -> EvalSet:
    """A set of pools."""
    solutions = [member for group in groups for member in group.members]
    return EvalSet(name=name, task="pools", solutions=solutions, groups=groups, source=source)


def thresholds_of(config: EvalPRMConfig, sets: Sequence[EvalSet], models: Sequence[ModelScores]) -> Thresholds:
    """The threshold of each model and reading: the given one, or the best on the one set that the configuration names.

    Raises DataError when that set does not define a best one, such as when it holds no wrong solution.
    """
    judged = [model for model in models if not model.control]
    return {model.name: {r: _threshold(config, sets, model, r) for r in readings(model.kind)} for model in judged}


def _threshold(config: EvalPRMConfig, sets: Sequence[EvalSet], model: ModelScores, reading: Reading) -> Threshold:
    given = config.given_threshold
    if given is not None:
        return Threshold(score=as_score(given, model.kind, config.temperature), probability=given)
    chosen = next(one for one in sets if one.name == config.threshold)
    scored = model.scored[chosen.name]
    if chosen.task == "prm_bench":
        objective, best = "PRMScore", best_step_threshold(in_total(judge_steps(scored, reading, config.neutral)))
    else:
        objective, best = "first-error F1", best_threshold(locate(scored, reading, config.neutral))
    if best is None:
        raise DataError(
            f'threshold = "{chosen.name}": no threshold is best for {model.name} there, which takes right and wrong '
            f"{'steps' if chosen.task == 'prm_bench' else 'solutions'} with scores: {_what_is_there(scored, chosen, config)}; "
            "choose another set, or give a number"
        )
    score, value = best
    probability = as_probability(score, model.kind, config.temperature)
    return Threshold(score=score, probability=probability, chosen_on=chosen.name, objective=objective, best=value)


def _what_is_there(scored: Sequence[Scored], chosen: EvalSet, config: EvalPRMConfig) -> str:
    """Counts of what a threshold is chosen from, and the first reason for having no score."""
    unscored = [row for row in scored if isinstance(row.rewards, Unscored)]
    rest = [row for row in scored if not isinstance(row.rewards, Unscored)]
    if chosen.task == "prm_bench":
        steps = [right for item in in_total(judge_steps(rest, "value", config.neutral)) for _, right in item.steps]
        counts = [f"{steps.count(True)} right steps", f"{steps.count(False)} wrong steps"]
    else:
        truths = [first_error(row.solution, config.neutral) for row in rest]
        counts = [
            f"{truths.count(-1)} without a wrong step",
            f"{sum(truth is not None and truth >= 0 for truth in truths)} with one",
            f"{truths.count(None)} whose labels do not say",
        ]
    said = f"of its {len(scored)} solutions {len(rest)} have a score ({', '.join(counts)})"
    if unscored and isinstance(unscored[0].rewards, Unscored):
        first = unscored[0].rewards
        said += f", {len(unscored)} have none, the first {first.id!r}: {first.reason}"
    return said


def of_language(one: EvalSet, model: ModelScores, language: str) -> list[Scored]:
    """The scored solutions of a set that are in that language."""
    return [row for row in model.scored[one.name] if row.solution.language == language]


def languages_of(config: EvalPRMConfig, sets: Sequence[EvalSet]) -> list[str]:
    """The languages to report: those asked for, or all that the data name. Raises DataError for one that is not there."""
    known = sorted({solution.language for one in sets for solution in one.solutions} - {""})
    if not config.languages or config.languages == ("all",):
        return known if config.languages else []
    unknown = [code for code in config.languages if code not in known]
    if unknown:
        raise DataError(f"languages names {unknown[0]}, but the data hold {', '.join(known) or 'no language codes'}")
    return list(config.languages)


def limited(one: EvalSet, limit: int) -> EvalSet:
    """The first so many solutions, or pools; 0 keeps all."""
    if not limit:
        return one
    if one.task == "pools":
        return pool_set(one.name, one.groups[:limit], one.source)
    return replace(one, solutions=one.solutions[:limit])
