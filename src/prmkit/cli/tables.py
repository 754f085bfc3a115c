"""Small tables for the terminal."""

from __future__ import annotations

from rich.table import Table

from prmkit.evaluate.accuracy import Accuracy, Interval


def accuracy_table(model: str, accuracy: Accuracy) -> Table:
    """Sampled and greedy accuracy with 95% intervals. The model stands above, where a narrow terminal does not cut it."""
    table = Table(title=model, title_justify="left")
    for column in ("sampled accuracy", "greedy accuracy", "undecided", "cut off", "mean length", "tokens/s"):
        table.add_column(column, justify="right")
    table.add_row(
        interval_text(accuracy.sampled),
        interval_text(accuracy.greedy),
        str(accuracy.undecided),
        f"{accuracy.truncated_share:.1%}",
        f"{accuracy.mean_length:.1f}",
        f"{accuracy.tokens_per_second:,.0f}",
    )
    return table


def interval_text(interval: Interval | None) -> str:
    """0.512 [0.470, 0.554]."""
    return "-" if interval is None else f"{interval.mean:.3f} [{interval.low:.3f}, {interval.high:.3f}]"
