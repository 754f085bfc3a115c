"""One number for a solution from the rewards of its steps."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from typing import Literal, get_args

from prmkit.data.types import StepRewards

Aggregate = Literal["min", "prod", "last", "mean", "sum"]
AGGREGATES: tuple[Aggregate, ...] = get_args(Aggregate)


def aggregate(rewards: StepRewards, name: Aggregate) -> float:
    """min, prod, last, mean or sum over the steps' rewards.

    A product needs probabilities: for logits and log-ratios it is that of their sigmoids. For log-ratios the `sum` is the
    outcome reward of the whole response, and `min` the implicit PRM's own choice (arXiv:2412.01981, section 4.1). Summing
    or multiplying favours few steps: long solutions get the smaller product. A product below what a float holds is 0;
    `ranked` compares such ones.
    """
    values = rewards.values
    match name:
        case "min":
            return min(values)
        case "prod":
            return math.prod(probabilities(rewards))
        case "last":
            return values[-1]
        case "mean":
            return math.fsum(values) / len(values)
        case "sum":
            return math.fsum(values)


def ranked(rewards: StepRewards, name: Aggregate) -> float:
    """A number to compare solutions by: in the order of `aggregate`, also where products are too small for a float.

    A product below the smallest normal float (e^-708, which log-probs of a page of text reach) is replaced by its logarithm.
    That is negative, so it stays below every other product, and only a product of exactly 0 is -inf.
    """
    value = aggregate(rewards, name)
    return log_aggregate(rewards, name) if name == "prod" and value < sys.float_info.min else value


def log_aggregate(rewards: StepRewards, name: Aggregate) -> float:
    """The logarithm of an aggregate that is not negative, -inf where it is 0; of `prod` without making the product."""
    if name != "prod":
        return _log(aggregate(rewards, name))
    if rewards.kind == "probability":
        return math.fsum(_log(value) for value in rewards.values)
    return math.fsum(log_sigmoid(value) for value in rewards.values)


def aggregates(rewards: StepRewards) -> Mapping[Aggregate, float]:
    """All of them."""
    return {name: aggregate(rewards, name) for name in AGGREGATES}


def probabilities(rewards: StepRewards) -> tuple[float, ...]:
    """The rewards as numbers in [0, 1]: probabilities as they are, others through the sigmoid."""
    if rewards.kind == "probability":
        return rewards.values
    return tuple(_sigmoid(value) for value in rewards.values)


def log_sigmoid(x: float) -> float:
    """log(1 / (1 + e^-x)), which is about x where x is far below 0."""
    return min(x, 0.0) - math.log1p(math.exp(-abs(x)))


def _log(x: float) -> float:
    return math.log(x) if x > 0 else -math.inf


def _sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))
