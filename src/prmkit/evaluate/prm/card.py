"""The report card: every number of an evaluation as JSON values, with what made it.

Thresholds are fixed before any number is made (`sets.thresholds_of`), and nothing here fits one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

from prmkit.data.types import StepRewards
from prmkit.evaluate.prm.best_of_n import Values
from prmkit.evaluate.prm.bootstrap import Resampling, estimate, estimate_mean, mean_of
from prmkit.evaluate.prm.calibration import calibrate, fit_temperature, forecasts, rescaled
from prmkit.evaluate.prm.comparisons import by_language, differences
from prmkit.evaluate.prm.config import EvalPRMConfig
from prmkit.evaluate.prm.length_bias import length_bias
from prmkit.evaluate.prm.prm_bench import StepScores, by_category, evaluate_steps, in_total, judge_steps
from prmkit.evaluate.prm.process_bench import FirstErrors, evaluate_first_errors, harmonic, locate
from prmkit.evaluate.prm.scored import Reading, missing, problem_key, readings
from prmkit.evaluate.prm.sets import EvalSet, ModelScores
from prmkit.evaluate.prm.work import Work, interval_json, prepare

SCHEMA = 1


def build_card(
    config: EvalPRMConfig,
    sets: Sequence[EvalSet],
    models: Sequence[ModelScores],
    *,
    on_section: Callable[[str], None] = lambda name: None,
) -> dict[str, Any]:
    """All numbers of the card.

    Raises DataError where a threshold cannot be chosen, a language is not in the data, or the outcomes of pools are known of one
    side alone.
    """
    on_section("thresholds and draws")
    work = prepare(config, sets, models)
    sections: dict[str, Callable[[], Any]] = {
        "unscored": lambda: unscored(work),
        "first_errors": lambda: first_errors(work),
        "steps": lambda: steps(work),
        "calibration": lambda: calibration(work),
        "best_of_n": lambda: best_of_n(work),
        "length_bias": lambda: biases(work),
        "paired": lambda: differences(work),
        "languages": lambda: by_language(work),
    }
    card: dict[str, Any] = {
        "schema": SCHEMA,
        "config": asdict(config),
        "sets": {one.name: _about_set(one) for one in sets},
        "models": {model.name: _about_model(model) for model in models},
        "thresholds": {
            name: {reading: _finite(asdict(found)) for reading, found in by_reading.items()}
            for name, by_reading in work.thresholds.items()
        },
    }
    for name, make in sections.items():
        on_section(name)
        card[name] = make()
    return card


def unscored(work: Work) -> dict[str, Any]:
    """For each model and set how many solutions have no score, and why."""
    return {m.name: {name: asdict(missing(rows)) for name, rows in m.scored.items()} for m in work.models}


def first_errors(work: Work) -> dict[str, Any]:
    """Per set, model and reading: F1 of the first wrong step with both accuracies, and the mean F1 over ProcessBench splits."""
    found: dict[str, Any] = {"sets": {}, "mean": {}, "held_out_mean": {}}
    splits = [one.name for one in work.of("process_bench")]
    for one in work.of("process_bench", "steps"):
        found["sets"][one.name] = {
            model.name: {reading: _first_errors_json(work, one, model, reading) for reading in readings(model.kind)}
            for model in work.judged
        }
    for model in work.judged:
        for reading in readings(model.kind):
            held_out = [name for name in splits if name != work.thresholds[model.name][reading].chosen_on]
            for key, names in (("mean", splits), ("held_out_mean", held_out)):
                parts = [work.first_error_tallies(model, model.scored[name], reading) for name in names]
                interval = interval_json(estimate_mean(parts, harmonic, work.resampling))
                in_sample = key == "mean" and len(held_out) < len(splits)
                told = None if interval is None else {**interval, "in_sample": in_sample}
                found[key].setdefault(model.name, {})[reading] = told
    return found


def steps(work: Work) -> dict[str, Any]:
    """Per set with labelled steps, model and reading: PRMScore, accuracies and AUC, in total and by kind of error."""
    return {
        one.name: {
            model.name: {reading: _steps_json(work, one, model, reading) for reading in readings(model.kind)}
            for model in work.judged
        }
        for one in work.of("prm_bench", "steps")
    }


def calibration(work: Work) -> dict[str, Any]:
    """Per set with labelled steps, model and reading; `fitted` with the temperature of the one set that the config names."""
    config, labelled = work.config, work.of("process_bench", "prm_bench", "steps")
    found: dict[str, Any] = {one.name: {} for one in labelled}
    for model in work.judged:
        for reading in readings(model.kind):
            made = {
                one.name: forecasts(
                    model.scored[one.name], reading, neutral=config.neutral, temperature=config.temperature
                )
                for one in labelled
            }
            fitted = fit_temperature(made[config.fit_temperature]) if config.fit_temperature else None
            for name, rows in made.items():
                entry: dict[str, Any] = {"raw": asdict(calibrate(rows, work.resampling, bins=config.bins))}
                if config.fit_temperature:
                    entry |= {"temperature": fitted, "in_sample": name == config.fit_temperature}
                if fitted is not None:
                    again = calibrate(rescaled(rows, fitted), work.resampling, bins=config.bins)
                    entry["fitted"] = asdict(again)
                found[name].setdefault(model.name, {})[reading] = entry
    return found


def best_of_n(work: Work) -> dict[str, Any]:
    """Per set of pools: the controls, and each model's choices, at each N."""
    return {
        name: {
            "n_values": list(found.pools.n_values),
            "pools": len(found.pools.pools),
            "undecided": found.pools.undecided,
            "nothing_decided": found.pools.nothing_decided,
            "unscored": found.pools.unscored,
            "too_small": found.pools.too_small,
            "controls": {method: _curve(values, work.resampling) for method, values in found.controls.items()},
            "models": {
                model: {method: _curve(values, work.resampling) for method, values in methods.items()}
                for model, methods in found.models.items()
            },
        }
        for name, found in work.choices.items()
    }


def biases(work: Work) -> dict[str, Any]:
    """Per set whose outcomes are known, model and aggregate: score by number of steps."""
    found: dict[str, Any] = {}
    for one in work.sets:
        if not any(solution.outcome is not None for solution in one.solutions):
            continue
        for model in work.models:
            rows = model.scored.get(one.name)
            if rows:
                made = {name: asdict(length_bias(rows, name, work.resampling)) for name in work.config.aggregates}
                found.setdefault(one.name, {})[model.name] = made
    return found


def _first_errors(work: Work, model: ModelScores, name: str, reading: Reading) -> FirstErrors:
    items = locate(model.scored[name], reading, work.config.neutral)
    return evaluate_first_errors(items, work.cut(model, reading), work.resampling)


def _first_errors_json(work: Work, one: EvalSet, model: ModelScores, reading: Reading) -> dict[str, Any]:
    found = _first_errors(work, model, one.name, reading)
    scored = sum(isinstance(row.rewards, StepRewards) for row in model.scored[one.name])
    return {
        "f1": interval_json(found.f1),
        "error_accuracy": interval_json(found.error_accuracy),
        "correct_accuracy": interval_json(found.correct_accuracy),
        "num_error": found.num_error,
        "num_correct": found.num_correct,
        "unlabelled": scored - found.num_error - found.num_correct,
        "positions": [
            dict(zip(("position", "early", "exact", "late", "missed"), row, strict=True)) for row in found.positions
        ],
        "in_sample": work.thresholds[model.name][reading].chosen_on == one.name,
    }


def _steps_json(work: Work, one: EvalSet, model: ModelScores, reading: Reading) -> dict[str, Any]:
    items = judge_steps(model.scored[one.name], reading, work.config.neutral)
    threshold = work.thresholds[model.name][reading]
    categories = {
        name: _step_scores_json(evaluate_steps(part, threshold.score, work.resampling))
        for name, part in by_category(items).items()
    }
    total = _step_scores_json(evaluate_steps(in_total(items), threshold.score, work.resampling))
    return {"total": total, "categories": categories, "in_sample": threshold.chosen_on == one.name}


def _step_scores_json(found: StepScores) -> dict[str, Any]:
    keys = ("prm_score", "accuracy", "right_accuracy", "wrong_accuracy", "auc")
    intervals = {key: interval_json(getattr(found, key)) for key in keys}
    return {
        **intervals,
        "f1": found.f1,
        "f1_neg": found.f1_neg,
        "num_right": found.num_right,
        "num_wrong": found.num_wrong,
    }


def _curve(values: Values, resampling: Resampling) -> dict[str, Any]:
    return {str(n): interval_json(estimate(tallies, mean_of, resampling)) for n, tallies in values.items()}


def _about_set(one: EvalSet) -> dict[str, Any]:
    languages = sorted({solution.language for solution in one.solutions} - {""})
    problems = len({problem_key(solution) for solution in one.solutions})
    return {
        "task": one.task,
        "solutions": len(one.solutions),
        "problems": problems,
        "languages": languages,
        **one.source,
    }


def _about_model(model: ModelScores) -> dict[str, Any]:
    return {"kind": model.kind, "control": model.control, "readings": list(readings(model.kind)), **model.source}


def _finite(values: dict[str, Any]) -> dict[str, Any]:
    """Infinite numbers as text, which JSON has none for: the score of a threshold of 0 or 1."""
    return {k: str(v) if isinstance(v, float) and not math.isfinite(v) else v for k, v in values.items()}
