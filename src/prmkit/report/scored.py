"""A page about a scored file: every step in the colour of its reward, with what the data knows of it beside it."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from prmkit import __version__
from prmkit.data.jsonl import parse_line, place
from prmkit.data.labels import is_right
from prmkit.data.step_scores import AGGREGATES
from prmkit.errors import ConfigError, DataError
from prmkit.evaluate.score_files import ScoreFiles, read_meta
from prmkit.report.page import render_page, write_aside

MAX_ROWS = 200
MAX_CHARACTERS = 1_000_000
MAX_ERRORS = 20
"""Bounds that keep a page under about 3 MB however long the file is."""
PER_TOKEN = 20
"""Characters that a token takes on the page beside its text: reward, step, quotes and commas."""
SAMPLE = 50_000
"""Step rewards that the quantiles of a file are taken from; a random sample of those that there are."""
SCRIPTS = ("dom.js", "scored.js")
Verdict = Literal["right", "wrong", "unknown"]


def write_scored_report(scores: Path, out: Path | None = None, *, max_rows: int = MAX_ROWS) -> Path:
    """Write the page about a file of `prmkit score`; by default beside it, ending in .html. Returns the page's path.

    The first `max_rows` rows are shown; numbers about the whole file count all of it. Raises DataError for a file that
    holds no scores with their steps, ConfigError for an `out` that does not end in .html.
    """
    target = scores.with_suffix(".html") if out is None else out
    if target.suffix != ".html" or target.is_dir():
        raise ConfigError(f"out = {str(target)!r}: the report is one file; give a name that ends in .html")
    data = scored_data(scores, max_rows=max_rows)
    target.parent.mkdir(parents=True, exist_ok=True)
    write_aside(target, render_page("scored.html.j2", data, SCRIPTS, styles=("report.css", "scored.css")))
    return target


def scored_data(scores: Path, *, max_rows: int = MAX_ROWS) -> dict[str, Any]:
    """All that the page shows, as JSON values."""
    summary, characters = Summary(), 0
    shown: list[dict[str, Any]] = []
    for where, row in _scores(scores):
        summary.add(row, where)
        if len(shown) < max_rows and characters < MAX_CHARACTERS:
            shown.append(_embedded(row))
            characters += sum(map(len, row["steps"])) + len(shown[-1]["prompt"])
            characters += PER_TOKEN * len(shown[-1].get("tokens", ()))
    if not summary.rows:
        raise DataError(f"{scores}: holds no scores; let prmkit score finish its first window")
    files = ScoreFiles(out=scores)
    errors = _errors(files.errors)
    return {
        "prmkit": __version__,
        "name": scores.name,
        "facts": _facts(read_meta(files) or {}, summary),
        "kind": summary.kind,
        "scales": summary.scales(),
        "num_rows": summary.rows,
        "by_verdict": summary.by_verdict(),
        "num_errors": len(errors),
        "errors": errors[:MAX_ERRORS],
        "rows": shown,
    }


@dataclass
class Sample:
    """A uniform sample of a stream of numbers (Vitter's algorithm R), the same one each time."""

    values: list[float] = field(default_factory=list)
    seen: int = 0
    draw: random.Random = field(default_factory=lambda: random.Random(0))

    def add(self, value: float) -> None:
        """Take the next number of the stream."""
        self.seen += 1
        if len(self.values) < SAMPLE:
            self.values.append(value)
        elif (at := self.draw.randrange(self.seen)) < SAMPLE:
            self.values[at] = value

    def scale(self, kind: str) -> dict[str, float]:
        """What is wholly red, not coloured, and wholly green: 0, 1/2 and 1 for probabilities, for others quantiles.

        A log-ratio has no absolute size at which a step is right, so 5%, 50% and 95% of the file's own rewards are taken.
        Logits are coloured by their sigmoid.
        """
        if kind != "log_ratio":
            return {"low": 0.0, "middle": 0.5, "high": 1.0}
        low, middle, high = (quantile(sorted(self.values), share) for share in (0.05, 0.5, 0.95))
        return {"low": low, "middle": middle, "high": high}


def quantile(ordered: list[float], share: float) -> float:
    """Linear between neighbours: position share * (n - 1)."""
    position = share * (len(ordered) - 1)
    below = math.floor(position)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (position - below) * (ordered[above] - ordered[below])


@dataclass
class Summary:
    """What is counted over the whole file."""

    rows: int = 0
    kind: str = ""
    model: str = ""
    steps: Sample = field(default_factory=Sample)
    prefixes: Sample = field(default_factory=Sample)
    tokens: Sample = field(default_factory=Sample)
    """Empty where the file has no token rewards."""
    counts: dict[str, int] = field(default_factory=dict)
    sums: dict[str, dict[str, float]] = field(default_factory=dict)

    def add(self, row: Mapping[str, Any], where: str) -> None:
        """Count a row."""
        if self.rows and (row["kind"], row["model"]) != (self.kind, self.model):
            raise DataError(
                f"{where}: scored by {row['model']!r} as {row['kind']}, the rows before by {self.model!r} as {self.kind}; "
                "give a file that one model has scored"
            )
        self.rows, self.kind, self.model = self.rows + 1, row["kind"], row["model"]
        for reward, prefix in zip(row["rewards"], row["cumulative"], strict=True):
            self.steps.add(reward)
            self.prefixes.add(prefix)
        for reward in row.get("token_rewards", ()):
            self.tokens.add(reward)
        verdict = _verdict(row)
        self.counts[verdict] = self.counts.get(verdict, 0) + 1
        sums = self.sums.setdefault(verdict, dict.fromkeys(AGGREGATES, 0.0))
        for name in AGGREGATES:
            sums[name] += row["aggregates"][name]

    def scales(self) -> dict[str, dict[str, float]]:
        """What the colours of each reading mean."""
        samples = {"rewards": self.steps, "cumulative": self.prefixes, "token_rewards": self.tokens}
        return {name: sample.scale(self.kind) for name, sample in samples.items() if sample.seen}

    def by_verdict(self) -> list[dict[str, Any]]:
        """For right, wrong and unknown outcomes: number of rows and mean of each aggregate."""
        return [
            {
                "verdict": verdict,
                "rows": self.counts[verdict],
                "means": {name: self.sums[verdict][name] / self.counts[verdict] for name in AGGREGATES},
            }
            for verdict in ("right", "wrong", "unknown")
            if verdict in self.counts
        ]


def _scores(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """`file:line` and row, one at a time; a last line that is still being written is left out."""
    try:
        with path.open("rb") as file:
            for index, line in enumerate(file):
                if not line.endswith(b"\n"):
                    return
                where = place(path, index)
                row = parse_line(line, where)
                missing = [
                    key for key in ("id", "model", "kind", "rewards", "cumulative", "aggregates") if key not in row
                ]
                if missing:
                    raise DataError(f"{where}: no field {missing[0]!r}, so this is no file of prmkit score; give one")
                if "steps" not in row:
                    raise DataError(
                        f"{where}: scored with texts = false, so there are no steps to show; score with texts"
                    )
                yield where, row
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; give a file that prmkit score has written") from None


def _errors(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        return []
    with path.open("rb") as file:
        return [parse_line(line, place(path, i)) for i, line in enumerate(file) if line.endswith(b"\n")]


def _embedded(row: Mapping[str, Any]) -> dict[str, Any]:
    """What the page needs of a row; numbers in four digits."""
    labels = row.get("labels")
    right = [is_right(label) if isinstance(label, (int, float)) else None for label in labels or ()]
    prompt = row["prompt"]
    return {
        "id": row["id"],
        "prompt": "\n\n".join(message["content"] for message in prompt["messages"]),
        "reference": prompt["answer"],
        "steps": row["steps"],
        "separator": "\n\n" if row["separator"] is None else row["separator"],
        "labels": labels,
        "right": right,
        "first_error": right.index(False) if False in right else None,
        "outcome": row.get("outcome"),
        "verdict": _verdict(row),
        "answer": row.get("answer"),
        "rewards": [_short(value) for value in row["rewards"]],
        "cumulative": [_short(value) for value in row["cumulative"]],
        "aggregates": {name: _short(row["aggregates"][name]) for name in AGGREGATES},
        **_tokens(row),
    }


def _tokens(row: Mapping[str, Any]) -> dict[str, Any]:
    if "token_rewards" not in row:
        return {}
    return {
        "tokens": row["tokens"],
        "token_rewards": [_short(value) for value in row["token_rewards"]],
        "step_of_token": row["step_of_token"],
    }


def _facts(meta: Mapping[str, Any], summary: Summary) -> dict[str, str]:
    """What made the scores."""
    spec, last = meta.get("spec", {}), (meta.get("written_by") or [{}])[-1]
    named = {
        "model": summary.model,
        "family": spec.get("family"),
        "reference": spec.get("reference"),
        "beta": spec.get("beta") if spec.get("family") == "implicit" else None,
        "source": meta.get("source"),
        "dtype": meta.get("dtype"),
        "device": meta.get("device"),
        **{key: last.get(key) for key in ("commit", "prmkit", "torch", "transformers")},
    }
    return {key: str(value) for key, value in named.items() if value not in (None, "")}


def _verdict(row: Mapping[str, Any]) -> Verdict:
    outcome = row.get("outcome")
    return "unknown" if outcome is None else "right" if is_right(outcome) else "wrong"


def _short(value: float) -> float:
    return float(f"{value:.4g}")
