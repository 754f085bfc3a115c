"""Two results on the same questions, compared question by question.

The spread of a difference over shared questions is far smaller than that of either number, since hard questions are hard for
both. Questions are resampled whole, with all their samples, so samples of one question count as no new evidence.
"""

from __future__ import annotations

import json
import math
import random
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from prmkit.errors import DataError
from prmkit.evaluate.names import model_title
from prmkit.evaluate.prm.bootstrap import Resampling, Tally, mean_of, paired

Value = Callable[[Mapping[str, Any]], float | None]
"""From a question of a result to its number; None where none of its responses could be judged."""

RESAMPLES = 2000
"""For intervals."""
PERMUTATIONS = 10_000
"""For p, where there are too many outcomes to count them all."""
EXACT = 2**16
"""Most outcomes that are counted one by one."""

SAME = 1e-9
"""Differences this close are one difference with rounding."""


@dataclass(frozen=True, kw_only=True)
class MeanDifference:
    """First minus second, with the middle 95% of its values on resamples of the questions.

    With one question, or where the difference is the same in all of them, all resamples agree: the spread is unknown, not zero,
    and there is no interval.
    """

    mean: float
    low: float | None
    high: float | None
    num: int
    """Questions."""


@dataclass(frozen=True, kw_only=True)
class Found:
    """Both values, their difference, and the two-sided p value of `swap_test`."""

    first: float
    second: float
    difference: MeanDifference
    p_value: float
    exact: bool
    """Whether p is counted over all swaps, and not over PERMUTATIONS of them."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One number of both results, on the questions in which both have it."""

    name: str
    """`avg@4`, `greedy`, or `subject: Algebra` for the samples of one category."""
    questions: int
    found: Found
    better: int
    """Questions in which the first is higher."""
    worse: int


def compare_results(
    first: Path, second: Path, *, shared_only: bool = False, resampling: Resampling | None = None
) -> dict[str, Any]:
    """The paired comparison of two result files of `prmkit eval`, as JSON values.

    The results must ask the same questions; `shared_only` compares on those that both have. Differences of configuration are
    listed, since a difference may come from any of them. Raises DataError for files that are no results, for questions whose
    reference differs, and for different questions.
    """
    resampling = resampling or Resampling(num=RESAMPLES)
    a, b = read_result(first), read_result(second)
    rows = list(_shared(a, b, first, second, shared_only))
    comparisons = list(_comparisons(a, b, rows, resampling))
    if not comparisons:
        raise DataError(f"{first} and {second}: there is no question that could be judged in both")
    return {
        "first": _about(a, first),
        "second": _about(b, second),
        "shared_questions": len(rows),
        "only_first": len(a["questions"]) - len(rows),
        "only_second": len(b["questions"]) - len(rows),
        "resampling": asdict(resampling),
        "comparisons": [asdict(comparison) for comparison in comparisons],
        "differing_config": _differing(a["config"], b["config"]),
    }


def read_result(path: Path) -> dict[str, Any]:
    """A result file of `prmkit eval`. Raises DataError for anything else."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; give a result that prmkit eval --out has written") from None
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path}: cannot be read as JSON ({error}); give a result of prmkit eval") from None
    if not isinstance(found, dict) or not {"questions", "config", "accuracy"} <= found.keys():
        raise DataError(
            f"{path}: no result of prmkit eval (it has no questions, config and accuracy); give the file of --out"
        )
    return found


def _shared(
    a: Mapping[str, Any], b: Mapping[str, Any], first: Path, second: Path, shared_only: bool
) -> Iterator[tuple[Mapping[str, Any], Mapping[str, Any]]]:
    of_b = {question["prompt_id"]: question for question in b["questions"]}
    pairs = [(question, of_b[question["prompt_id"]]) for question in a["questions"] if question["prompt_id"] in of_b]
    missing = len(a["questions"]) + len(b["questions"]) - 2 * len(pairs)
    if not pairs:
        raise DataError(f"{first} and {second} have no question in common; compare results on the same task")
    if missing and not shared_only:
        raise DataError(
            f"{first} has {len(a['questions'])} questions and {second} {len(b['questions'])}, of which {len(pairs)} are the "
            "same; evaluate both on the same questions, or give --shared-only to compare on those"
        )
    for x, y in pairs:
        if x["answer"] != y["answer"]:
            raise DataError(
                f"{first} and {second}: the reference of question {x['prompt_id']!r} is {x['answer']!r} in one and "
                f"{y['answer']!r} in the other, so the data differ; evaluate both on the same data"
            )
    yield from pairs


def _comparisons(
    a: Mapping[str, Any],
    b: Mapping[str, Any],
    rows: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]],
    resampling: Resampling,
) -> Iterator[Comparison]:
    samples = sorted({result["config"]["samples"] for result in (a, b)})
    kinds: list[tuple[str, Value]] = [(f"avg@{'/'.join(map(str, samples))}", _average), ("greedy", _greedy)]
    for name, value in kinds:
        if (found := _compare(name, rows, value, resampling)) is not None:
            yield found
    groups: dict[str, list[tuple[Mapping[str, Any], Mapping[str, Any]]]] = {}
    for x, y in rows:
        for category, value_name in x.get("categories", {}).items():
            groups.setdefault(f"{category}: {value_name}", []).append((x, y))
    for name in sorted(groups):
        if len(groups[name]) < len(rows) and (found := _compare(name, groups[name], _average, resampling)) is not None:
            yield found


def _compare(
    name: str,
    rows: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]],
    value: Value,
    resampling: Resampling,
) -> Comparison | None:
    both = [(x["prompt_id"], u, v) for x, y in rows if (u := value(x)) is not None and (v := value(y)) is not None]
    of_a, of_b = ([Tally(item=row[0], problem=row[0], counts=(row[side], 1)) for row in both] for side in (1, 2))
    found = paired(of_a, of_b, mean_of, resampling)
    if found is None:
        return None
    better, worse = sum(u > v for _, u, v in both), sum(u < v for _, u, v in both)
    differences, interval = [u - v for _, u, v in both], found.difference
    p_value, exact = swap_test(differences, resampling.seed)
    spread = max(differences) - min(differences) > SAME
    return Comparison(
        name=name,
        questions=len(both),
        found=Found(
            first=found.first,
            second=found.second,
            difference=MeanDifference(
                mean=interval.mean,
                low=interval.low if spread else None,
                high=interval.high if spread else None,
                num=interval.num,
            ),
            p_value=p_value,
            exact=exact,
        ),
        better=better,
        worse=worse,
    )


def swap_test(differences: Sequence[float], seed: int = 0) -> tuple[float, bool]:
    """p of the two results being alike: the share of all ways to swap them question by question (random signs of the
    differences) whose mean is at least as far from 0 as the one seen, and whether it is exact.

    Only the sizes of the differences matter: k questions of one size add that size times (2 Binomial(k, 1/2) - k). So there
    are prod(k + 1) outcomes, which are all counted up to EXACT of them (16 differing questions are never more, nor are
    thousands of greedy ones, where it is the sign test). Beyond that: (1 + as far) / (1 + PERMUTATIONS) of random swaps.
    """
    sizes = Counter(round(abs(difference), 9) for difference in differences if abs(difference) > SAME)
    far = abs(math.fsum(differences)) - SAME * (1 + len(differences))
    num = sum(sizes.values())
    if math.prod(count + 1 for count in sizes.values()) <= EXACT:
        ways = {0.0: 1}
        for size, count in sizes.items():
            grown: Counter[float] = Counter()
            for total, number in ways.items():
                for heads in range(count + 1):
                    grown[round(total + size * (2 * heads - count), 9)] += number * math.comb(count, heads)
            ways = dict(grown)
        return sum(number for total, number in ways.items() if abs(total) >= far) / 2**num, True
    rng = random.Random(f"compare/swap/{seed}")
    as_far = sum(
        abs(sum(size * (2 * rng.getrandbits(count).bit_count() - count) for size, count in sizes.items())) >= far
        for _ in range(PERMUTATIONS)
    )
    return (1 + as_far) / (1 + PERMUTATIONS), False


def _average(question: Mapping[str, Any]) -> float | None:
    values = [reward for member in question["sampled"] if (reward := _reward(member)) is not None]
    return fmean(values) if values else None


def _greedy(question: Mapping[str, Any]) -> float | None:
    return None if question["greedy"] is None else _reward(question["greedy"])


def _reward(response: Mapping[str, Any]) -> float | None:
    reward: float | None = None if response["finish"] == "error" else response["reward"]
    return reward


def _about(result: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """What a reader needs to know which result it is."""
    model, task = result["config"]["model"], result.get("task", {})
    return {
        "file": str(path),
        "model": model_title(model, result.get("model", {})),
        "task": task.get("name"),
        "version": task.get("version"),
        "template": task.get("template", {}).get("name"),
        "data_sha256": result.get("data_sha256"),
        "commit": result.get("commit"),
        "truncated_share": result["accuracy"]["truncated_share"],
    }


def _differing(a: Mapping[str, Any], b: Mapping[str, Any], prefix: str = "") -> dict[str, list[Any]]:
    """Configuration keys on which the two differ, with both values; where they were written to is no difference."""
    found: dict[str, list[Any]] = {}
    for key in dict.fromkeys((*a, *b)):
        x, y = a.get(key), b.get(key)
        if isinstance(x, Mapping) and isinstance(y, Mapping):
            found |= _differing(x, y, f"{prefix}{key}.")
        elif x != y and prefix + key not in ("out", "html"):
            found[prefix + key] = [x, y]
    return found
