"""Formats that give steps and one label for each: TRL's stepwise rows and PRM800K trajectories."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from prmkit.data.formats.base import (
    Format,
    OneKind,
    Reader,
    ReadOptions,
    Row,
    WriteOptions,
    Writer,
    check_counts,
    extras,
    hard_labels,
    has,
    labels_of,
    list_field,
    number_label,
    numeric_labels,
    one,
    prompt_field,
    prompt_of,
    rest,
    shown,
    texts_field,
    user_text,
)
from prmkit.data.formats.splitting import answer_tail
from prmkit.data.jsonl import id_field, text_field
from prmkit.data.types import Solution, StepLabel
from prmkit.errors import DataError

TRL_KEYS = ("id", "prompt", "completions", "labels")


def _trl_reader(options: ReadOptions) -> Reader:
    """`{"prompt", "completions": [step, ...], "labels": [bool or number, ...]}`, TRL's stepwise supervision.

    The column has one type, fixed by its first row.
    """
    kind = OneKind("numbers", "true and false")

    def read(row: Row) -> list[Solution]:
        fields, where = row.fields, row.where
        steps = texts_field(fields, "completions", where)
        labels = list_field(fields, "labels", where)
        check_counts(labels, steps, where)
        is_bool = _is_bool_row(labels, where)
        kind.check(is_bool, where)
        return [
            Solution(
                id=id_field(fields, where, row.name),
                prompt=prompt_of(prompt_field(fields, "prompt", where)),
                steps=steps,
                labels=tuple(float(label) for label in labels),
                meta=rest(fields, *TRL_KEYS),
            )
        ]

    return read


def _is_bool_row(labels: Sequence[object], where: str) -> bool:
    if -100 in labels:
        number_label(-100, where, labels.index(-100))
    bools = [isinstance(label, bool) for label in labels]
    if any(bools) and not all(bools):
        k = bools.index(not bools[0])
        raise DataError(
            f"{where}: labels mix true/false with numbers (the label of step {k + 1} is {shown(labels[k])}); use one kind"
        )
    if not bools[0]:
        for k, label in enumerate(labels):
            number_label(label, where, k)
    return bools[0]


def _trl_writer(options: WriteOptions) -> Writer:
    def write(solutions: Sequence[Solution]) -> dict[str, Any]:
        solution = one(solutions)
        labels: list[Any] = numeric_labels(solution, "trl")
        if options.label_type == "bool":
            labels = hard_labels(solution, "trl with bool labels")
        return {
            "prompt": user_text(solution, "trl"),
            "completions": list(solution.steps),
            "labels": labels,
            **extras(solution, options, *TRL_KEYS),
        }

    return write


RATINGS: dict[int, StepLabel] = {1: 1.0, 0: "neutral", -1: 0.0}


def rating_label(rating: object, where: str, k: int) -> StepLabel:
    """1, 0 and -1 are right, neutral and wrong; null is not rated."""
    if rating is None:
        return None
    if isinstance(rating, bool) or not isinstance(rating, int | float) or rating not in RATINGS:
        raise DataError(f"{where}: the rating of step {k + 1} is {shown(rating)}; PRM800K has -1, 0, 1 and null")
    return RATINGS[int(rating)]


def rating_of(solution: Solution, k: int, label: StepLabel, name: str) -> int | None:
    """The inverse of `rating_label`; soft labels are refused."""
    if label is None:
        return None
    found = next((rating for rating, known in RATINGS.items() if known == label), None)
    if found is None:
        raise DataError(
            f"solution {solution.id!r}: step {k + 1} is soft ({label}), which {name} cannot hold; "
            "choose a threshold, such as threshold = 0.5"
        )
    return found


STEPS_KEYS = ("id", "problem", "steps", "ratings")


def _ratings_reader(options: ReadOptions) -> Reader:
    """`{"problem", "steps", "ratings"}`: a PRM800K trajectory with one rating a step."""

    def read(row: Row) -> list[Solution]:
        fields, where = row.fields, row.where
        steps = texts_field(fields, "steps", where)
        ratings = list_field(fields, "ratings", where)
        check_counts(ratings, steps, where, "ratings")
        return [
            Solution(
                id=id_field(fields, where, row.name),
                prompt=prompt_of(text_field(fields, "problem", where)),
                steps=steps,
                labels=tuple(rating_label(rating, where, k) for k, rating in enumerate(ratings)),
                answer=answer_tail(steps[-1]),
                meta=rest(fields, *STEPS_KEYS),
            )
        ]

    return read


def _ratings_writer(options: WriteOptions) -> Writer:
    def write(solutions: Sequence[Solution]) -> dict[str, Any]:
        solution = one(solutions)
        labels = labels_of(solution, "prm800k_steps")
        return {
            "problem": user_text(solution, "prm800k_steps"),
            "steps": list(solution.steps),
            "ratings": [rating_of(solution, k, label, "prm800k_steps") for k, label in enumerate(labels)],
            **extras(solution, options, *STEPS_KEYS),
        }

    return write


TRL = Format(name="trl", fits=has("prompt", "completions", "labels"), reader=_trl_reader, writer=_trl_writer)
PRM800K_STEPS = Format(
    name="prm800k_steps", fits=has("problem", "steps", "ratings"), reader=_ratings_reader, writer=_ratings_writer
)
