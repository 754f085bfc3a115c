"""PRMBench: are single steps told right from wrong, by kind of error? (arXiv:2501.03124.)"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist

from prmkit.data.types import Solution, StepRewards
from prmkit.evaluate.accuracy import CONFIDENCE, Interval, wilson
from prmkit.evaluate.prm.bootstrap import Resampling, Tally, estimate, mean_of
from prmkit.evaluate.prm.process_bench import thresholds
from prmkit.evaluate.prm.scored import (
    Neutral,
    Reading,
    Scored,
    as_probability,
    as_score,
    problem_key,
    right_step,
    step_scores,
)

CATEGORIES: Mapping[str, str] = {
    "redundency": "NR",
    "redundancy": "NR",
    "circular": "NCL",
    "counterfactual": "ES",
    "step_contradiction": "SC",
    "domain_inconsistency": "DC",
    "confidence": "CI",
    "missing_condition": "PS",
    "deception": "DR",
    "multi_solutions": "MS",
}
"""The classification of a row -> its column in the paper: non-redundancy, non-circular logic; empirical soundness, step
consistency, domain consistency, confidence invariance; prerequisite sensitivity, deception resistance, multi-solution
consistency. The data spell `redundency` so."""
UNMODIFIED = "correct"
"""Classification of unmodified solutions added as a control: in no total."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Judged:
    """The scores of one solution's labelled steps, and whether each is right."""

    item: int
    problem: str
    category: str
    steps: tuple[tuple[float, bool], ...]


@dataclass(frozen=True, kw_only=True)
class StepScores:
    """How well a threshold on step scores tells right steps from wrong ones; the positive class is `right`."""

    prm_score: Interval | None
    """0.5 F1 + 0.5 F1_neg; None without wrong, or without right, steps."""
    f1: float | None
    f1_neg: float | None
    accuracy: Interval | None
    """Of all labelled steps."""
    right_accuracy: Interval | None
    """Share of the right steps called right; 1 minus it is the rate of false alarms."""
    wrong_accuracy: Interval | None
    """Share of the wrong steps called wrong."""
    auc: Interval | None
    """P(a right step scores higher than a wrong one), ties half; needs no threshold."""
    num_right: int
    num_wrong: int


def judge_steps(scored: Iterable[Scored], reading: Reading, neutral: Neutral = "right") -> list[Judged]:
    """The labelled steps of the scored solutions. Solutions without any are left out."""
    found = []
    for row in scored:
        if not isinstance(row.rewards, StepRewards) or row.solution.labels is None:
            continue
        pairs = zip(step_scores(row.rewards, reading), row.solution.labels, strict=True)
        known = [(score, right_step(label, neutral)) for score, label in pairs]
        steps = tuple((score, right) for score, right in known if right is not None)
        if steps:
            found.append(
                Judged(item=row.index, problem=problem_key(row.solution), category=_category(row.solution), steps=steps)
            )
    return found


def _category(solution: Solution) -> str:
    """The classification; solutions before errors were put in are controls whatever their row is classified as."""
    return UNMODIFIED if solution.meta.get("part") == "original" else str(solution.meta.get("classification", ""))


def f1_right(counts: Sequence[float]) -> float | None:
    """F1 of the right steps, 2 TP / (2 TP + FP + FN), from counts (TP, FN, FP, TN); None without right steps."""
    tp, fn, fp, _ = counts
    return 2 * tp / (2 * tp + fp + fn) if tp + fn else None


def f1_wrong(counts: Sequence[float]) -> float | None:
    """F1 of the wrong steps, 2 TN / (2 TN + FN + FP); None without wrong steps."""
    _, fn, fp, tn = counts
    return 2 * tn / (2 * tn + fn + fp) if tn + fp else None


def prm_score(counts: Sequence[float]) -> float | None:
    """0.5 F1 + 0.5 F1_neg; None where one of them is not defined."""
    right, wrong = f1_right(counts), f1_wrong(counts)
    return None if right is None or wrong is None else 0.5 * right + 0.5 * wrong


def tally_steps(items: Sequence[Judged], threshold: float) -> list[Tally]:
    """Counts (TP, FN, FP, TN) of each solution; the positive class is `right`."""
    tallies = []
    for item in items:
        counts = [0.0, 0.0, 0.0, 0.0]
        for score, right in item.steps:
            counts[(0 if score >= threshold else 1) if right else (2 if score >= threshold else 3)] += 1
        tallies.append(Tally(item.item, item.problem, tuple(counts)))
    return tallies


def evaluate_steps(items: Sequence[Judged], threshold: float, resampling: Resampling) -> StepScores:
    """All numbers for one threshold in the scores' unit: a step is called right when its score is at least that."""
    tallies = tally_steps(items, threshold)
    tp, fn, fp, tn = (sum(tally.counts[k] for tally in tallies) for k in range(4))

    def share(hits: Sequence[int], of: Sequence[int]) -> Interval | None:
        rows = [
            Tally(t.item, t.problem, (sum(t.counts[k] for k in hits), num))
            for t in tallies
            if (num := sum(t.counts[k] for k in of))  # a solution without such steps is no evidence about them
        ]
        return estimate(rows, mean_of, resampling)

    return StepScores(
        prm_score=estimate(tallies, prm_score, resampling),
        f1=f1_right((tp, fn, fp, tn)),
        f1_neg=f1_wrong((tp, fn, fp, tn)),
        accuracy=share((0, 3), (0, 1, 2, 3)),
        right_accuracy=share((0,), (0, 1)),
        wrong_accuracy=share((3,), (2, 3)),
        auc=step_auc(items),
        num_right=int(tp + fn),
        num_wrong=int(fp + tn),
    )


def by_category(items: Sequence[Judged]) -> dict[str, list[Judged]]:
    """The items of each category, under the paper's short names; other classifications keep theirs."""
    found: dict[str, list[Judged]] = {}
    for item in items:
        if item.category:
            found.setdefault(CATEGORIES.get(item.category, item.category), []).append(item)
    order = list(dict.fromkeys(CATEGORIES.values()))
    return dict(sorted(found.items(), key=lambda pair: order.index(pair[0]) if pair[0] in order else len(order)))


def in_total(items: Sequence[Judged]) -> list[Judged]:
    """What the total pools: all but the unmodified solutions that were added as a control."""
    return [item for item in items if item.category != UNMODIFIED]


def best_step_threshold(items: Sequence[Judged]) -> tuple[float, float] | None:
    """The threshold with the highest PRMScore, and that score; of equals the lowest. None without right or wrong steps."""
    right = sorted(score for item in items for score, is_right in item.steps if is_right)
    wrong = sorted(score for item in items for score, is_right in item.steps if not is_right)
    best: tuple[float, float] | None = None
    for threshold in thresholds([*right, *wrong]) if right and wrong else []:
        fn, tn = bisect_left(right, threshold), bisect_left(wrong, threshold)
        found = prm_score((len(right) - fn, fn, len(wrong) - tn, tn))
        if found is not None and (best is None or found > best[1]):
            best = threshold, found
    return best


def step_auc(items: Sequence[Judged]) -> Interval | None:
    """P(a right step scores higher than a wrong one), ties half, over all pairs of steps (Mann-Whitney U).

    With U_x the share of wrong steps below right step x, and V_y the share of right steps above wrong step y, both with ties
    half, problem i moves the AUC by d_i = sum_x (U_x - AUC) / num_right + sum_y (V_y - AUC) / num_wrong over its own steps. The
    interval is the normal one of logit(AUC) with variance P / (P - 1) * sum_i d_i^2 over P problems: clustered as in Obuchowski
    (1997), since resampling all pairs would take minutes.
    """
    right = sorted(score for item in items for score, is_right in item.steps if is_right)
    wrong = sorted(score for item in items for score, is_right in item.steps if not is_right)
    if not right or not wrong:
        return None
    shares = [[_share(score, is_right, right, wrong) for score, is_right in item.steps] for item in items]
    won = math.fsum(
        u for row, item in zip(shares, items, strict=True) for u, (_, r) in zip(row, item.steps, strict=True) if r
    )
    auc = won / len(right)
    moved: dict[str, float] = {}
    for row, item in zip(shares, items, strict=True):
        for share, (_, is_right) in zip(row, item.steps, strict=True):
            moved[item.problem] = moved.get(item.problem, 0.0) + (share - auc) / len(right if is_right else wrong)
    num = len(moved)
    spread = math.fsum(d * d for d in moved.values())
    if not 0 < auc < 1 or num < 2 or spread == 0:
        return wilson(auc * num, num)
    half = NormalDist().inv_cdf((1 + CONFIDENCE) / 2) * math.sqrt(num / (num - 1) * spread) / (auc * (1 - auc))
    logit = as_score(auc, "logit")
    return Interval(
        mean=auc, low=as_probability(logit - half, "logit"), high=as_probability(logit + half, "logit"), num=num
    )


def _share(score: float, is_right: bool, right: Sequence[float], wrong: Sequence[float]) -> float:
    """Of a right step the share of wrong steps below it; of a wrong one that of right steps above it; ties half."""
    if is_right:
        return (bisect_left(wrong, score) + bisect_right(wrong, score)) / (2 * len(wrong))
    return 1 - (bisect_left(right, score) + bisect_right(right, score)) / (2 * len(right))
