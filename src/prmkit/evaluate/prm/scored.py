"""Solutions with their scores: from a scorer, or from a file that was scored before. No torch."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, cast, get_args

from prmkit.data.jsonl import place, read_jsonl
from prmkit.data.labels import is_right
from prmkit.data.types import RewardKind, Solution, StepRewards
from prmkit.errors import DataError, ModelError
from prmkit.evaluate.score_files import solution_hash
from prmkit.protocols import StepScorer, Unscored

Reading = Literal["value", "cumulative", "single"]
"""What counts as the score of step k. `value`: the number that the model gives it. For log-ratios there are two:
`cumulative`, the prefix value q_k = r_1 + ... + r_k (what the implicit PRM's released ProcessBench evaluation thresholds,
through a sigmoid), and `single`, the step's own r_k = q_k - q_(k-1)."""

Neutral = Literal["right", "wrong", "ignore"]
"""What a step labelled neutral counts as; `ignore` leaves it out of step counts, and never makes it an error."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Scored:
    """One solution and what a model said of it."""

    index: int
    """Position in its set: ids need not be unique."""
    solution: Solution
    rewards: StepRewards | Unscored


@dataclass(frozen=True, kw_only=True)
class Missing:
    """How many solutions got no score, and why. They are left out of the numbers; none of them is a score of 0."""

    count: int = 0
    total: int = 0
    reasons: Mapping[str, int] = field(default_factory=dict)
    """Reasons that differ in nothing but ids and numbers count together, under the first of them."""


def score_solutions(scorer: StepScorer, solutions: Sequence[Solution], *, first_index: int = 0) -> list[Scored]:
    """Every solution with its rewards, in order; `first_index` is the position of the first one in its set.

    A solution whose number of rewards is not that of its steps counts as unscored. Raises ModelError when the scorer does
    not give one result for each solution: nothing says then which belongs to which.
    """
    results = scorer.score_all(solutions)
    if len(results) != len(solutions):
        raise ModelError(
            f"the scorer gave {len(results)} results for {len(solutions)} solutions; score_all must return one for each"
        )
    rows = enumerate(zip(solutions, results, strict=True), first_index)
    return [Scored(index=i, solution=solution, rewards=_fitting(solution, found)) for i, (solution, found) in rows]


def _fitting(solution: Solution, found: StepRewards | Unscored) -> StepRewards | Unscored:
    if isinstance(found, StepRewards) and len(found.values) != len(solution.steps):
        reason = f"{len(found.values)} rewards for {len(solution.steps)} steps"
        return Unscored(id=solution.id, reason=reason)
    return found


def missing(scored: Iterable[Scored]) -> Missing:
    """Count what has no score, by reason."""
    counts: dict[str, int] = {}
    first: dict[str, str] = {}
    total = 0
    for row in scored:
        total += 1
        if isinstance(row.rewards, Unscored):
            reason = row.rewards.reason
            shape = re.sub(r"\b\d+\b", "#", reason.replace(repr(row.solution.id), "#"))
            shown = first.setdefault(shape, reason)
            counts[shown] = counts.get(shown, 0) + 1
    return Missing(count=sum(counts.values()), total=total, reasons=counts)


def readings(kind: RewardKind) -> tuple[Reading, ...]:
    """The readings that a kind of reward has; the first is the one that headlines use."""
    return ("cumulative", "single") if kind == "log_ratio" else ("value",)


def step_scores(rewards: StepRewards, reading: Reading) -> tuple[float, ...]:
    """The score of each step, in the model's own unit: probabilities, logits or nats."""
    return rewards.cumulative if reading == "cumulative" else rewards.values


def as_probability(score: float, kind: RewardKind, temperature: float = 1.0) -> float:
    """P(right) that a score stands for: itself, sigma(logit), or sigma(log-ratio / temperature)."""
    if kind == "probability":
        return score
    x = score / temperature if kind == "log_ratio" else score
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))


def as_score(probability: float, kind: RewardKind, temperature: float = 1.0) -> float:
    """The score that stands for a probability: the inverse of `as_probability`, infinite at 0 and 1.

    Thresholds are compared in the model's own unit, so that large log-ratios keep their order where the sigmoid is 1.0.
    """
    if kind == "probability":
        return probability
    if probability in (0.0, 1.0):
        return -math.inf if probability == 0 else math.inf
    logit = math.log(probability) - math.log1p(-probability)
    return logit * temperature if kind == "log_ratio" else logit


def problem_key(solution: Solution) -> str:
    """What was asked, white space collapsed: solutions of one problem are no independent evidence."""
    return " ".join(" ".join(message.content for message in solution.prompt.messages).split())


def right_step(label: float | str | None, neutral: Neutral) -> bool | None:
    """Whether a label says right (`data.labels.is_right`); None where it says nothing."""
    if label == "neutral":
        return None if neutral == "ignore" else neutral == "right"
    return None if label is None or isinstance(label, str) else is_right(label)


def first_error(solution: Solution, neutral: Neutral = "right") -> int | None:
    """Index of the first wrong step, -1 if all steps are known not to be wrong, None if the labels do not say."""
    for k, label in enumerate(solution.labels or (None,)):
        if label is None:
            return None
        if right_step(label, neutral) is False:
            return k
    return -1


@dataclass(frozen=True, kw_only=True, slots=True)
class ScoredRow:
    """What a row of a scored file says, and of which solution."""

    rewards: StepRewards | Unscored
    sha256: str | None
    """`solution_hash` of what was scored; None in files that prmkit has not written."""
    steps: tuple[str, ...] | None

    def fits(self, solution: Solution) -> bool:
        """Whether this solution was scored: by the hash of prompt and steps, without one by the steps. A row that has neither
        gives no rewards, only the reason for having none."""
        if self.sha256 is not None:
            return self.sha256 == solution_hash(solution)
        return self.steps is None or self.steps == solution.steps


class ScoredFile:
    """Scores that were made before, as a scorer: it gives back the rewards that stand in the file."""

    def __init__(self, path: str | Path) -> None:
        """Read a file that `prmkit score` wrote, with the errors beside it, or all `.jsonl` files of a folder.

        Raises DataError for a row without id, with neither rewards nor a reason for having none, or with rewards but nothing
        that says of which steps, and where the rewards are not all of one kind.
        """
        self._path = Path(path)
        self._rows: dict[str, list[ScoredRow]] = {}
        kinds: dict[RewardKind, str] = {}
        for file in self._files():
            for index, row in enumerate(read_jsonl(file, required=("id",))):
                found = _scored_row(row, place(file, index))
                if isinstance(found.rewards, StepRewards):
                    kinds.setdefault(found.rewards.kind, place(file, index))
                self._rows.setdefault(str(row["id"]), []).append(found)
        if len(kinds) != 1:
            seen = ", ".join(f"{kind} ({where})" for kind, where in kinds.items()) or "no row with rewards"
            raise DataError(f"{self._path}: a scored file holds the rewards of one model, of one kind; found {seen}")
        (self._kind,) = kinds

    def _files(self) -> list[Path]:
        errors = self._path.with_name(f"{self._path.name}.errors.jsonl")
        if not self._path.is_dir():
            return [self._path, *([errors] if errors.is_file() and errors.stat().st_size else [])]
        found = sorted(self._path.glob("*.jsonl"))
        if not found:
            raise DataError(f"{self._path}: holds no .jsonl file; give a file that `prmkit score` wrote")
        return found

    @property
    def kind(self) -> RewardKind:
        """What the numbers are."""
        return self._kind

    def score_all(self, solutions: Sequence[Solution]) -> list[StepRewards | Unscored]:
        """The rewards of the row with the solution's id, prompt and steps; without one, unscored."""
        return [self._find(solution) for solution in solutions]

    def _find(self, solution: Solution) -> StepRewards | Unscored:
        rows = self._rows.get(solution.id, [])  # several where sets share an id
        found = [row.rewards for row in rows if row.fits(solution)]
        if found:  # a row with a reason alone fits every solution of its id, those of other sets too
            return next((rewards for rewards in found if isinstance(rewards, StepRewards)), found[0])
        reason = "its prompt or steps differ from those that were scored" if rows else "not in the scored file"
        return Unscored(id=solution.id, reason=reason)


def _scored_row(row: Mapping[str, Any], where: str) -> ScoredRow:
    steps, sha256 = row.get("steps"), row.get("solution_sha256")
    texts = tuple(str(step) for step in steps) if isinstance(steps, list) else None
    said = _rewards(row, where)
    if isinstance(said, StepRewards) and texts is None and not isinstance(sha256, str):
        raise DataError(
            f'{where}: neither "solution_sha256" nor "steps", so nothing says which steps have these rewards; score the file '
            "again"
        )
    return ScoredRow(rewards=said, sha256=sha256 if isinstance(sha256, str) else None, steps=texts)


def _rewards(row: Mapping[str, Any], where: str) -> StepRewards | Unscored:
    values, kind = row.get("rewards"), row.get("kind")
    if values is None:
        reason = row.get("reason") or row.get("error")
        if not reason:
            raise DataError(f'{where}: no field "rewards", and no "reason" for having none; score the file again')
        return Unscored(id=str(row["id"]), reason=str(reason))
    if kind not in get_args(RewardKind):
        raise DataError(f"{where}: kind is {kind!r}; it must be one of {', '.join(get_args(RewardKind))}")
    try:
        return StepRewards(values=tuple(float(value) for value in values), kind=cast("RewardKind", kind))
    except (TypeError, ValueError) as error:
        raise DataError(f"{where}: rewards cannot be read ({error}); score the file again") from error
