"""Models against each other, and each by test language."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from itertools import combinations
from typing import Any, NamedTuple

from prmkit.evaluate.prm.bootstrap import Statistic, Tally, estimate, mean_of, paired
from prmkit.evaluate.prm.prm_bench import prm_score
from prmkit.evaluate.prm.process_bench import harmonic
from prmkit.evaluate.prm.scored import problem_key
from prmkit.evaluate.prm.sets import ModelScores, languages_of, of_language
from prmkit.evaluate.prm.work import Work, headline

SHARED_CONTROLS = ("majority", "pool reward")
"""Controls that every model's best-of-N is compared with."""

HELD_OUT = "mean of splits not chosen on"


class Comparable(NamedTuple):
    """One number that models are compared by."""

    metric: str
    set_name: str
    statistic: Statistic
    tallies: Mapping[str, Sequence[Tally]]
    """Model -> tallies."""
    in_sample: bool
    """Whether the set that the threshold was chosen on is, or is part of, this one."""


def differences(work: Work) -> list[dict[str, Any]]:
    """Every pair of models on the items that both have scored; best-of-N also against the controls.

    Rows on the set that the threshold was chosen on are `in_sample`, as is a mean of splits with it; the mean without it follows.
    """
    rows = []
    for one in _comparable(work):
        about = {"metric": one.metric, "set": one.set_name, "in_sample": one.in_sample}
        for first, second in combinations(one.tallies, 2):
            if first in SHARED_CONTROLS:
                continue
            found = paired(one.tallies[first], one.tallies[second], one.statistic, work.resampling)
            if found is not None:
                rows.append({**about, "models": [first, second], **asdict(found)})
    return rows


def by_language(work: Work) -> dict[str, Any]:
    """Model -> its training languages, and each metric by test language, over all sets of a task.

    The set that the threshold was chosen on is left out; where no other set gives the number it is there, `in_sample`.
    """
    languages = languages_of(work.config, work.sets)
    trained = work.config.trained_languages
    return {
        model.name: {
            "trained_on": list(trained.get(model.name, ())),
            "metrics": _language_metrics(work, model, languages),
        }
        for model in (work.judged if languages else ())
    }


def _comparable(work: Work) -> Iterator[Comparable]:
    chosen_on = {t.chosen_on for by_reading in work.thresholds.values() for t in by_reading.values()} - {""}
    splits = {
        one.name: {m.name: work.first_error_tallies(m, m.scored[one.name], headline(m)) for m in work.judged}
        for one in work.of("process_bench")
    }
    for name, by_model in splits.items():
        yield Comparable("first-error F1", name, harmonic, by_model, name in chosen_on)
    held_out = {name: by_model for name, by_model in splits.items() if name not in chosen_on}
    if len(splits) > 1:
        in_sample = len(held_out) < len(splits)
        yield Comparable("first-error F1", "mean of splits", _mean_harmonic, _side_by_side(splits), in_sample)
        if in_sample:
            yield Comparable("first-error F1", HELD_OUT, _mean_harmonic, _side_by_side(held_out), False)
    for one in work.of("prm_bench", "steps"):
        tallies = {m.name: work.step_tallies(m, m.scored[one.name], headline(m)) for m in work.judged}
        yield Comparable("PRMScore", one.name, prm_score, tallies, one.name in chosen_on)
    for name, found in work.choices.items():
        largest = max(found.pools.n_values, default=1)
        if largest > 1:
            shared = {key: found.controls[key][largest] for key in SHARED_CONTROLS if key in found.controls}
            for method in next(iter(found.models.values()), {}):
                chosen = {model: methods[method][largest] for model, methods in found.models.items()}
                yield Comparable(f"best of {largest}: {method}", name, mean_of, {**chosen, **shared}, False)


def _side_by_side(splits: Mapping[str, Mapping[str, Sequence[Tally]]]) -> dict[str, list[Tally]]:
    """Each split's four counts in a place of their own, so that one statistic sees all splits."""
    found: dict[str, list[Tally]] = {}
    for place, (split, by_model) in enumerate(splits.items()):
        before, after = (0.0,) * (4 * place), (0.0,) * (4 * (len(splits) - place - 1))
        for model, tallies in by_model.items():
            found.setdefault(model, []).extend(
                Tally((split, t.item), f"{split}/{t.problem}", (*before, *t.counts, *after)) for t in tallies
            )
    return found


def _mean_harmonic(sums: Sequence[float]) -> float | None:
    values = [harmonic(sums[k : k + 4]) for k in range(0, len(sums), 4)]
    defined = [value for value in values if value is not None]
    return math.fsum(defined) / len(values) if len(defined) == len(values) else None


class ByLanguage(NamedTuple):
    """One metric in one language."""

    metric: str
    language: str
    statistic: Statistic
    tallies: Sequence[Tally]
    in_sample: bool


def _language_metrics(work: Work, model: ModelScores, languages: Sequence[str]) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for one in _by_language(work, model, languages):
        if one.language in found.get(one.metric, {}):
            continue  # the sets that no threshold was chosen on come first
        interval = estimate(one.tallies, one.statistic, work.resampling)
        if interval is not None:
            found.setdefault(one.metric, {})[one.language] = {**asdict(interval), "in_sample": one.in_sample}
    return found


def _by_language(work: Work, model: ModelScores, languages: Sequence[str]) -> Iterator[ByLanguage]:
    """The sets of a task together, without the one that the threshold was chosen on; then with it, which is in-sample and the
    only number where the others define none."""
    reading = headline(model)
    chosen_on = work.thresholds[model.name][reading].chosen_on
    for language in languages:
        located = {
            one.name: work.first_error_tallies(model, of_language(one, model, language), reading)
            for one in work.of("process_bench")
        }
        judged = {
            one.name: work.step_tallies(model, of_language(one, model, language), reading)
            for one in work.of("prm_bench", "steps")
        }
        for metric, statistic, by_set in (("first-error F1", harmonic, located), ("PRMScore", prm_score, judged)):
            held_out = {name: tallies for name, tallies in by_set.items() if name != chosen_on}
            yield ByLanguage(metric, language, statistic, _pooled(held_out), False)
            if chosen_on in by_set:
                yield ByLanguage(metric, language, statistic, _pooled(by_set), True)
    for (metric, language), tallies in _chosen_by_language(work, model, languages).items():
        yield ByLanguage(metric, language, mean_of, tallies, False)


def _pooled(by_set: Mapping[str, Sequence[Tally]]) -> list[Tally]:
    """Items are told apart by set and place."""
    return [Tally((name, t.item), t.problem, t.counts) for name, tallies in by_set.items() for t in tallies]


def _chosen_by_language(work: Work, model: ModelScores, languages: Sequence[str]) -> dict[tuple[str, str], list[Tally]]:
    """Best-of-N by the first aggregate, and majority, at the largest N of each set; the pools of one language together."""
    found: dict[tuple[str, str], list[Tally]] = {}
    for one in work.of("pools"):
        made = work.choices[one.name]
        spoken = {problem_key(group.members[0]): group.members[0].language for group in one.groups if group.members}
        first = work.config.aggregates[0]
        if model.name not in made.models:
            continue
        methods = {name: made.models[model.name][name] for name in (f"best {first}", f"vote {first}")}
        methods["majority"] = made.controls["majority"]
        for n in made.pools.n_values[-1:]:
            for name, values in methods.items():
                for tally in values[n]:
                    language = spoken[tally.problem]
                    if language in languages:
                        rows = found.setdefault((f"best of {n}: {name}", language), [])
                        rows.append(Tally((one.name, tally.item), tally.problem, tally.counts))
    return found
