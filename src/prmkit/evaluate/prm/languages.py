"""Trained on which languages, tested on which: PRM-mono, -cross and -multi (arXiv:2502.12663) as one matrix."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any, Literal

from prmkit.errors import DataError

Design = Literal["mono", "cross", "multi", "unknown"]
"""mono: tested on the one language it was trained on; cross: trained on one, tested on another; multi: trained on several."""


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One model on one test language."""

    value: float
    low: float
    high: float
    num: int
    design: Design
    in_sample: bool = False
    """Whether the set that the threshold was chosen on is part of it."""


@dataclass(frozen=True, kw_only=True)
class LanguageMatrix:
    """One metric: a row per model, a column per test language."""

    metric: str
    rows: tuple[str, ...]
    trained_on: tuple[tuple[str, ...], ...]
    """Of each row; empty where it is not known."""
    columns: tuple[str, ...]
    cells: tuple[tuple[Cell | None, ...], ...]
    """None where a model was not measured on a language."""

    @property
    def means(self) -> dict[Design, float]:
        """Unweighted mean over the cells of each design."""
        found: dict[Design, list[float]] = {}
        for cell in (cell for row in self.cells for cell in row if cell is not None):
            found.setdefault(cell.design, []).append(cell.value)
        return {design: fmean(values) for design, values in found.items()}

    @property
    def in_sample_means(self) -> tuple[Design, ...]:
        """The designs whose mean has an in-sample cell."""
        return tuple(
            dict.fromkeys(cell.design for row in self.cells for cell in row if cell is not None and cell.in_sample)
        )

    @property
    def row_means(self) -> tuple[float | None, ...]:
        """Unweighted mean of each row; None where a language is missing, since means over other languages do not compare."""
        return tuple(fmean(cell.value for cell in row if cell is not None) if all(row) else None for row in self.cells)


def trained_languages(name: str, known: Sequence[str]) -> tuple[str, ...]:
    """The languages that a model's name spells, as in `de` or `de+en+zh`; empty where one is not among the `known` codes."""
    codes = tuple(name.split("+"))
    return codes if all(code in known for code in codes) else ()


def design_of(trained_on: Sequence[str], tested_on: str) -> Design:
    """Which of the designs a cell belongs to."""
    if not trained_on:
        return "unknown"
    if len(trained_on) > 1:
        return "multi"
    return "mono" if trained_on[0] == tested_on else "cross"


def language_matrices(cards: Sequence[Mapping[str, Any]]) -> list[LanguageMatrix]:
    """One matrix per metric of the cards' `languages`, over the models of all cards.

    A card's `languages` is {model: {"trained_on": [...], "metrics": {metric: {language: interval}}}}. Raises DataError when two
    cards name the same model, or when none holds numbers by language.
    """
    models: dict[str, Mapping[str, Any]] = {}
    for card in cards:
        for name, found in card.get("languages", {}).items():
            if name in models:
                raise DataError(f'two cards hold a model "{name}"; evaluate one of them again under another name')
            models[name] = found
    metrics = list(dict.fromkeys(metric for found in models.values() for metric in found["metrics"]))
    if not metrics:
        raise DataError(
            'no card holds numbers by language; evaluate with --languages all on data that has a field "language"'
        )
    return [_matrix(metric, models) for metric in metrics]


def _matrix(metric: str, models: Mapping[str, Mapping[str, Any]]) -> LanguageMatrix:
    rows = [name for name, found in models.items() if found["metrics"].get(metric)]
    columns = sorted({language for name in rows for language in models[name]["metrics"][metric]})
    trained = [tuple(models[name].get("trained_on") or trained_languages(name, columns)) for name in rows]
    cells = tuple(
        tuple(_cell(models[name]["metrics"][metric].get(language), design_of(codes, language)) for language in columns)
        for name, codes in zip(rows, trained, strict=True)
    )
    return LanguageMatrix(
        metric=metric, rows=tuple(rows), trained_on=tuple(trained), columns=tuple(columns), cells=cells
    )


def _cell(interval: Mapping[str, Any] | None, design: Design) -> Cell | None:
    if interval is None:
        return None
    return Cell(
        value=interval["mean"],
        low=interval["low"],
        high=interval["high"],
        num=interval["num"],
        design=design,
        in_sample=bool(interval.get("in_sample", False)),
    )
