"""What a check has found: what, where and how to mend it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from prmkit.data.types import Solution

Severity = Literal["error", "warning", "note"]
"""`error`: a model trained on this is wrong, or not trained at all. `warning`: likely to hurt. `note`: worth knowing."""

ORDER: dict[Severity, int] = {"error": 0, "warning": 1, "note": 2}


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that a check has to say."""

    severity: Severity
    check: str
    """Name of the check, `subject.check`, as docs/doctor.md lists it."""
    what: str
    where: str
    """`file:line` of the first places, a token, or a file of the model."""
    how: str
    """How to mend it."""
    places: tuple[str, ...] = ()
    """Every `file:line` of a fault of rows: what the reader says of the same rows need not be said twice."""


@dataclass(frozen=True, kw_only=True)
class Item:
    """A solution and the place that it was read from."""

    where: str
    solution: Solution


def some(places: Iterable[str], limit: int = 3) -> str:
    """The first few places, and how many more there are: `a.jsonl:3, :7, :9 and 40 more`."""
    found = list(dict.fromkeys(places))
    more = f" and {len(found) - limit} more" if len(found) > limit else ""
    file = found[0].partition(":")[0] if found else ""
    shown = (place.removeprefix(file) if place.startswith(f"{file}:") else place for place in found[1:limit])
    return ", ".join([*found[:1], *shown]) + more


def percent(part: int, whole: int) -> str:
    """`3 of 40 (7.5%)`."""
    return f"{part} of {whole} ({part / whole:.1%})" if whole else "0 of 0"


def by_severity(findings: Iterable[Finding]) -> list[Finding]:
    """Errors first; within a severity the order stays."""
    return sorted(findings, key=lambda finding: ORDER[finding.severity])


def counts(findings: Sequence[Finding]) -> dict[Severity, int]:
    """How many there are of each severity."""
    return {severity: sum(finding.severity == severity for finding in findings) for severity in ORDER}
