"""Which curves the report draws, and their points thinned out for the page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from prmkit.report.collect import Row, Run

Source = Literal["metrics", "timings", "evals"]
SOURCES: tuple[Source, ...] = ("metrics", "timings", "evals")
PHASES = ("sample", "verify", "prm", "policy")


@dataclass(frozen=True, kw_only=True, slots=True)
class Series:
    """One curve of a panel: a key of one of the run's files."""

    key: str
    label: str
    source: Source = "metrics"
    style: Literal["solid", "dashed", "faint", "dots", "rings"] = "solid"
    band: tuple[str, str] | None = None
    """Keys of the lower and upper end of an interval."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Panel:
    """One small multiple. `stack` panels are drawn once per run, `line` panels hold all runs."""

    title: str
    group: str
    series: tuple[Series, ...]
    kind: Literal["line", "stack"] = "line"
    unit: Literal["", "share", "tokens", "s"] = ""
    mark: float | None = None
    """A level worth a reference line, such as chance."""


def _eval(name: str, label: str, style: Literal["dots", "rings"]) -> Series:
    band = (f"eval/{name}_low", f"eval/{name}_high")
    return Series(key=f"eval/{name}_accuracy", label=label, source="evals", style=style, band=band)


def _one(title: str, group: str, key: str, unit: Literal["", "share", "tokens"] = "", label: str = "mean") -> Panel:
    return Panel(title=title, group=group, unit=unit, series=(Series(key=key, label=label),))


PANELS = (
    Panel(
        title="Accuracy",
        group="Learning",
        unit="share",
        series=(
            _eval("sampled", "test, sampled", "dots"),
            _eval("greedy", "test, greedy", "rings"),
            Series(key="reward", label="training batch", style="faint"),
        ),
    ),
    Panel(
        title="Outcome reward",
        group="Learning",
        series=(Series(key="reward", label="mean"), Series(key="reward_std", label="spread", style="dashed")),
    ),
    Panel(
        title="Process reward",
        group="Learning",
        series=(
            Series(key="prm/reward_mean", label="mean"),
            Series(key="prm/reward_std", label="spread", style="dashed"),
        ),
    ),
    Panel(
        title="Does the PRM order them?",
        group="Learning",
        unit="share",
        mark=0.5,
        series=(
            Series(key="prm/accuracy", label="right above wrong"),
            Series(key="prm/first_error_auc", label="first-error AUC", style="dashed"),
        ),
    ),
    _one("Response length", "Policy", "completions/mean_length", "tokens"),
    _one("Entropy", "Policy", "entropy"),
    _one("KL to the reference", "Policy", "kl"),
    _one("Ratio clipped", "Policy", "clip_ratio/region_mean", "share", "tokens"),
    _one("Policy loss", "Policy", "policy/loss"),
    _one("Policy gradient norm", "Policy", "policy/grad_norm", label="norm"),
    _one("Policy learning rate", "Policy", "policy/learning_rate", label="rate"),
    Panel(
        title="Spread of advantages",
        group="Process rewards",
        series=(
            Series(key="advantage/outcome_std", label="outcome"),
            Series(key="advantage/process_std", label="process", style="dashed"),
        ),
    ),
    _one("PRM loss", "Process rewards", "prm/loss"),
    _one("PRM gradient norm", "Process rewards", "prm/grad_norm", label="norm"),
    _one("Normaliser", "Process rewards", "prm/scale", label="scale"),
    Panel(
        title="Prompt filter",
        group="Batch",
        unit="share",
        series=(
            Series(key="filter/kept_fraction", label="groups kept"),
            Series(key="frac_reward_zero_std", label="groups all alike", style="dashed"),
        ),
    ),
    _one("Draws to fill a batch", "Batch", "filter/draws", label="draws"),
    _one("Cut at the length limit", "Batch", "completions/clipped_ratio", "share", "responses"),
    Panel(
        title="Undecided verdicts",
        group="Batch",
        kind="stack",
        unit="share",
        series=tuple(Series(key=f"verdict/{status}", label=status) for status in ("unparsed", "timeout", "error")),
    ),
    Panel(
        title="Time per step",
        group="Time",
        kind="stack",
        unit="s",
        series=tuple(Series(key=f"time/{phase}", label=phase, source="timings") for phase in (*PHASES, "other")),
    ),
    Panel(
        title="Tokens per second",
        group="Time",
        series=(Series(key="tokens_per_second", label="tokens/s", source="timings"),),
    ),
)

COUNTERS = ("step", "num_tokens", "rollouts", "verdict/ok", "time/step")
"""Known keys that are no curve of their own."""


def run_curves(run: Run, *, max_points: int) -> dict[str, Any]:
    """The run's numbers by file, at most `max_points` points each."""
    return {
        "metrics": thin([_verdict_shares(row) for row in run.metrics], max_points=max_points),
        "timings": thin([_with_other_time(row) for row in run.timings], max_points=max_points),
        "evals": thin(run.evals, max_points=max_points),
    }


def thin(rows: Sequence[Row], *, max_points: int) -> dict[str, Any]:
    """Columns of at most `max_points` points; each is the mean of neighbouring steps, `from` and `to` their ends.

    A null takes no part in a mean; a point without any number is null.
    """
    size = -(-len(rows) // max_points) if rows else 1
    buckets = [rows[start : start + size] for start in range(0, len(rows), size)]
    keys = dict.fromkeys(key for row in rows for key in row if key != "step")
    return {
        "from": [bucket[0]["step"] for bucket in buckets],
        "to": [bucket[-1]["step"] for bucket in buckets],
        "values": {key: [_mean([row.get(key) for row in bucket]) for bucket in buckets] for key in keys},
    }


def panels(curves: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The panels for which any run has a number, with those series only; keys that no panel knows come last."""
    found = {(source, key) for run in curves for source in SOURCES if source in run for key in _filled(run[source])}
    known = {(s.source, s.key) for panel in PANELS for s in panel.series}
    ends = {("evals", key) for panel in PANELS for s in panel.series for key in s.band or ()}
    rest = sorted(k for k in found - known - ends if k[1] not in COUNTERS)
    kept = [
        {**asdict(panel), "series": [asdict(s) for s in panel.series if (s.source, s.key) in found]}
        for panel in (*PANELS, *(_other(source, key) for source, key in rest))
    ]
    return [panel for panel in kept if panel["series"]]


def _other(source: Source, key: str) -> Panel:
    return Panel(title=key, group="Other", series=(Series(key=key, label=key, source=source),))


def _filled(columns: Mapping[str, Any]) -> list[str]:
    return [key for key, values in columns["values"].items() if any(v is not None for v in values)]


def _mean(values: Sequence[float | None]) -> float | None:
    there = [v for v in values if v is not None]
    return compact(sum(there) / len(there)) if there else None


def compact(value: float) -> float:
    """Five significant digits: more than a page can show, at a third of the bytes."""
    return float(f"{value:.5g}")


def _verdict_shares(row: Row) -> Row:
    """Verdicts as shares of their sum, whether the run wrote counts or shares."""
    keys = [key for key in row if key.startswith("verdict/")]
    total = sum(row[key] or 0.0 for key in keys)
    if not total:
        return row
    return {**row, **{key: (row[key] or 0.0) / total for key in keys}}


def _with_other_time(row: Row) -> Row:
    """The part of the step's time that no phase accounts for."""
    total = row.get("time/step")
    if total is None:
        return row
    return {**row, "time/other": max(0.0, total - sum(row.get(f"time/{phase}") or 0.0 for phase in PHASES))}
