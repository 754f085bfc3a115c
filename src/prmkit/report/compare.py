"""Right and wrong responses compared: what the process rewards make of each.

A response's process reward is the mean over its tokens, a step's the mean over the tokens of that step.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from prmkit.report.collect import Recorded, Response
from prmkit.report.curves import compact

BINS = 20
POSITIONS = 8
AROUND = 3
"""How many steps before and after the first wrong one are shown."""

Samples = Mapping[int, Sequence[float]]
"""For each place, one number per response."""


def compare(recorded: Sequence[Recorded]) -> dict[str, Any] | None:
    """Histograms and profiles for each recorded step, on shared scales; None without process rewards to compare."""
    judged = [(r.step, [x for x in r.responses if x.process_rewards and x.outcome is not None]) for r in recorded]
    judged = [(step, responses) for step, responses in judged if responses]
    if not judged:
        return None
    everyone = [response for _, responses in judged for response in responses]
    response_edges = bin_edges([_mean(r.process_rewards or ()) for r in everyone])
    step_edges = bin_edges([m for r in everyone for m in step_means(r).values()])
    return {
        "response_edges": response_edges,
        "step_edges": step_edges,
        "steps": [
            {
                "step": step,
                "response": _histogram(responses, response_edges, lambda r: [_mean(r.process_rewards or ())]),
                "step_mean": _histogram(responses, step_edges, lambda r: list(step_means(r).values())),
                "position": {v: profile(_by_position(rs)) for v, rs in _split(responses).items()},
                "around": profile(_around_first_error(_split(responses)["wrong"])),
            }
            for step, responses in judged
        ],
    }


def step_means(response: Response) -> dict[int, float]:
    """Mean process reward of each step that holds a token, by step index."""
    by_step: dict[int, list[float]] = defaultdict(list)
    for step, reward in zip(response.step_of_token, response.process_rewards or (), strict=True):
        by_step[step].append(reward)
    return {step: _mean(rewards) for step, rewards in sorted(by_step.items())}


def auc(high: Sequence[float], low: Sequence[float]) -> float | None:
    """P(a of `high` > b of `low`) + P(equal) / 2: how well the number tells the two apart; None if one is empty."""
    if not high or not low:
        return None
    below = sorted(low)
    wins = 0.0
    for value in high:
        less = bisect_left(below, value)
        wins += less + (bisect_right(below, value) - less) / 2
    return wins / (len(high) * len(low))


def bin_edges(values: Sequence[float]) -> list[float]:
    """BINS + 1 even edges over the middle 99% of the values; what lies beyond falls into the end bins."""
    ordered = sorted(values)
    cut = len(ordered) // 200
    low, high = ordered[cut], ordered[-1 - cut]
    if low == high:
        low, high = low - 0.5, high + 0.5
    return [low + (high - low) * i / BINS for i in range(BINS + 1)]


def profile(samples: Samples) -> list[dict[str, float]]:
    """Mean over responses at each place, with its normal 95% interval where there are two responses or more."""
    points = []
    for place, values in sorted(samples.items()):
        mean = _mean(values)
        point = {"x": place, "n": len(values), "mean": compact(mean)}
        if len(values) > 1:
            variance = sum((v - mean) ** 2 for v in values) / (len(values) - 1)
            half = 1.96 * math.sqrt(variance / len(values))
            point |= {"low": compact(mean - half), "high": compact(mean + half)}
        points.append(point)
    return points


def _histogram(
    responses: Sequence[Response], edges: Sequence[float], values_of: Callable[[Response], list[float]]
) -> dict[str, Any]:
    values = {verdict: [v for r in rs for v in values_of(r)] for verdict, rs in _split(responses).items()}
    counts = {}
    for verdict, numbers in values.items():
        counts[verdict] = [0] * BINS
        for number in numbers:
            counts[verdict][min(max(bisect_right(edges, number) - 1, 0), BINS - 1)] += 1
    area = auc(values["right"], values["wrong"])
    return {**counts, "auc": None if area is None else compact(area)}


def _split(responses: Iterable[Response]) -> dict[str, list[Response]]:
    split: dict[str, list[Response]] = {"right": [], "wrong": []}
    for response in responses:
        split[response.verdict].append(response)
    return split


def _by_position(responses: Sequence[Response]) -> Samples:
    """Step means at POSITIONS even places of the response: each place takes the step that holds it, so that short and
    long responses count alike everywhere."""
    samples: dict[int, list[float]] = defaultdict(list)
    for response in responses:
        means = list(step_means(response).values())
        for place in range(POSITIONS):
            samples[place].append(means[int((place + 0.5) / POSITIONS * len(means))])
    return samples


def _around_first_error(responses: Sequence[Response]) -> Samples:
    """Step means by distance from the first wrong step, where it is known."""
    samples: dict[int, list[float]] = defaultdict(list)
    for response in responses:
        if response.first_error_step is None or response.first_error_step < 0:
            continue
        for step, value in step_means(response).items():
            if abs(step - response.first_error_step) <= AROUND:
                samples[step - response.first_error_step].append(value)
    return samples


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
