"""A report card in the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rich.table import Table

from prmkit.report.card import chosen_on_split

MAX_REASON = 160


def tables(card: Mapping[str, Any]) -> Iterator[Table]:
    """Headline numbers, for a console without markup; all of them are in card.json and card.html."""
    if card["first_errors"]["sets"]:
        yield _first_errors(card)
    if card["steps"]:
        yield _steps(card)
    for name, found in card["best_of_n"].items():
        yield _best_of_n(name, found)
    for matrix in card["matrices"]:
        yield _matrix(matrix)
    if any(entry["count"] for sets in card["unscored"].values() for entry in sets.values()):
        yield _unscored(card)


def interval_text(interval: Mapping[str, float] | None) -> str:
    """0.512 [0.470, 0.554]."""
    return "-" if interval is None else f"{interval['mean']:.3f} [{interval['low']:.3f}, {interval['high']:.3f}]"


def _first_errors(card: Mapping[str, Any]) -> Table:
    table = _table("First wrong step", "set", "model", "scores", "F1", "error", "correct", "")
    for name, by_model in card["first_errors"]["sets"].items():
        for model, by_reading in by_model.items():
            for reading, found in by_reading.items():
                numbers = [interval_text(found[key]) for key in ("f1", "error_accuracy", "correct_accuracy")]
                _add(table, name, model, reading, *numbers, "in-sample" if found["in_sample"] else "")
    for key, title in (("mean", "mean of splits"), ("held_out_mean", "mean of splits not chosen on")):
        for model, by_reading in card["first_errors"][key].items():
            for reading, found in by_reading.items():
                if found is not None:
                    note = "in-sample" if key == "mean" and chosen_on_split(card) else ""
                    _add(table, title, model, reading, interval_text(found), "", "", note)
    return table


def _steps(card: Mapping[str, Any]) -> Table:
    table = _table("Steps", "set", "model", "scores", "PRMScore", "right steps", "wrong steps", "AUC", "")
    for name, by_model in card["steps"].items():
        for model, by_reading in by_model.items():
            for reading, found in by_reading.items():
                total = found["total"]
                keys = ("prm_score", "right_accuracy", "wrong_accuracy", "auc")
                note = "in-sample" if found["in_sample"] else ""
                _add(table, name, model, reading, *(interval_text(total[key]) for key in keys), note)
    return table


def _best_of_n(name: str, found: Mapping[str, Any]) -> Table:
    table = _table(_pools_title(name, found), "who", "how", *(f"N = {n}" for n in found["n_values"]))
    for who, methods in (("control", found["controls"]), *found["models"].items()):
        for method, curve in methods.items():
            means = ("-" if value is None else f"{value['mean']:.3f}" for value in curve.values())
            _add(table, who, method, *means)
    return table


def _pools_title(name: str, found: Mapping[str, Any]) -> str:
    """What the numbers below are not about is said above them."""
    left_out = {
        "too_small": "problems with too few solutions left out",
        "unscored": "solutions without a score left out",
        "undecided": "solutions without a known outcome left out",
        "nothing_decided": "problems missing, where no outcome is known",
    }
    said = [f"{found[key]} {what}" for key, what in left_out.items() if found[key]]
    return ", ".join([f"Best of N: {name}, {found['pools']} problems", *said])


def _matrix(matrix: Mapping[str, Any]) -> Table:
    marked = any(cell is not None and cell.get("in_sample") for cells in matrix["cells"] for cell in cells)
    note = " (*: in-sample, of the set that the threshold was chosen on)" if marked else ""
    table = _table(f"{matrix['metric']}, by language{note}", "model", "trained on", *matrix["columns"], "mean")
    rows = zip(matrix["rows"], matrix["trained_on"], matrix["cells"], matrix["row_means"], strict=True)
    for name, trained, cells, mean in rows:
        stars = ["*" if cell is not None and cell.get("in_sample") else "" for cell in cells]
        values = (
            "-" if cell is None else f"{cell['value']:.3f}{star}" for cell, star in zip(cells, stars, strict=True)
        )
        _add(table, name, "+".join(trained) or "-", *values, "-" if mean is None else f"{mean:.3f}{max(stars)}")
    return table


def _unscored(card: Mapping[str, Any]) -> Table:
    table = _table(
        "Without a score: left out of the numbers above", "model", "set", "solutions", "most frequent reason"
    )
    for model, sets in card["unscored"].items():
        for name, entry in sets.items():
            if entry["count"]:
                reason = max(entry["reasons"], key=entry["reasons"].get)
                _add(table, model, name, f"{entry['count']} of {entry['total']}", reason[:MAX_REASON])
    return table


def _add(table: Table, *cells: str) -> None:
    table.add_row(*cells)


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left")
    for k, column in enumerate(columns):
        table.add_column(column, justify="left" if k < 2 else "right")
    return table
