"""Losses of explicit reward models: classes of steps, and values of tokens. Sums, weighted for the whole mini-batch.

Sources: one target at the last token of each step, Let's Verify (arXiv:2305.20050, section 2.6) and Math-Shepherd
(arXiv:2312.08935, equation 2); soft targets, OmegaPRM (arXiv:2406.06592, section 3.4); values at every token, Cobbe et al.
(arXiv:2110.14168, section 4) and AutoPSV (arXiv:2405.16802, section 3).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from prmkit.data.labels import HALF
from prmkit.ops.batch import Batch, LossSum, TokenOutputs
from prmkit.ops.masked import masked_sum

CLASSES = ("wrong", "right", "neutral")
"""What a step can be, in the order of a head's outputs: as in TRL, 0 is wrong and 1 right."""

NO_PREDECESSOR = 1e-5
"""Below this a value has no relative change: AutoPSV's released code takes the step after it for wrong."""


@dataclass(frozen=True, kw_only=True)
class StepBatch(Batch):
    """Solutions with a target at the last token of each labelled step. Made by `train.stepwise.step_batch`.

    `wrong_BT + right_BT + neutral_BT` is 1 where a step is labelled and 0 elsewhere; `weight_BT` sums to 1 over the
    mini-batch.
    """

    class_BT: Tensor
    """int64: index into `CLASSES` of what the label says, -1 where no labelled step ends."""
    wrong_BT: Tensor
    right_BT: Tensor
    neutral_BT: Tensor
    weight_BT: Tensor
    label_share_BT: Tensor
    """1 / (labelled steps of the mini-batch)."""
    class_share_BT: Tensor
    """1 / (labelled steps of this class in the mini-batch)."""
    classes_present_B: Tensor
    """How many classes the mini-batch has, the same in every row."""
    masked_B: Tensor
    """Steps of the row without a target, as a share of all steps of the mini-batch."""


@dataclass(frozen=True, kw_only=True)
class StepOutputs(TokenOutputs):
    """Log-likelihoods of the targets, and what the model itself would have said."""

    guess_BT: Tensor
    """int64: the most probable class where a labelled step ends, -1 elsewhere."""


def stepwise_loss(outputs: TokenOutputs, part: StepBatch) -> LossSum:
    """Cross-entropy of the steps' classes: -sum_i w_i sum_c t_ic log p_ic, in nats.

    `outputs.output_BT` holds sum_c t_c log p_c at the last token of each labelled step. Metrics are over labelled steps:
    `accuracy`, `accuracy/<class>` of each class that is there, `balanced_accuracy` (their mean), and `labels_masked`, the
    share of steps that teach nothing.
    """
    output_BT = outputs.output_BT
    here = _Fields(part, output_BT.device)
    labelled_BT = here("class_BT") >= 0
    metrics = {"labels_masked": part.masked_B.sum()}
    if isinstance(outputs, StepOutputs):
        hit_BT = (outputs.guess_BT == here("class_BT")) & labelled_BT
        of_class_BT = hit_BT * here("class_share_BT")
        metrics["accuracy"] = (hit_BT * here("label_share_BT")).sum()
        metrics["balanced_accuracy"] = (of_class_BT / here("classes_present_B")[:, None]).sum()
        for index, name in enumerate(CLASSES):
            if (here("class_BT") == index).any():
                metrics[f"accuracy/{name}"] = masked_sum(of_class_BT, here("class_BT") == index)
    return LossSum(loss=masked_sum(-output_BT * here("weight_BT"), labelled_BT), metrics=metrics)


@dataclass(frozen=True, kw_only=True)
class OutcomeBatch(Batch):
    """Solutions with a target value at their last token, or at every token. Made by `train.outcome.outcome_batch`."""

    target_BT: Tensor
    """float32 in [0, 1], 0 where there is no target."""
    weight_BT: Tensor
    """0 where there is no target."""
    end_share_BT: Tensor
    """1 / (rows of the mini-batch) at the last token of each row that has a target, 0 elsewhere."""


def outcome_loss(name: str) -> Callable[[TokenOutputs, OutcomeBatch], LossSum]:
    """sum_i w_i l(z_i, y_i) over tokens with a target y in [0, 1]; z is the model's logit.

    bce: -y log sigma(z) - (1 - y) log(1 - sigma(z)), in nats. mse: (sigma(z) - y)^2; AutoPSV regresses an unbounded value,
    here it is a probability. The metric `accuracy` compares the value at the last token with the outcome, both cut at 1/2.
    """
    if name not in ("bce", "mse"):
        raise ValueError(f"the outcome loss is bce or mse, got {name!r}")

    def loss(outputs: TokenOutputs, part: OutcomeBatch) -> LossSum:
        logit_BT = outputs.output_BT
        here = _Fields(part, logit_BT.device)
        target_BT = here("target_BT")
        if name == "bce":
            loss_BT = F.binary_cross_entropy_with_logits(logit_BT, target_BT, reduction="none")
        else:
            loss_BT = (logit_BT.sigmoid() - target_BT).square()
        hit_BT = (logit_BT > 0) == (target_BT > HALF)
        total = masked_sum(loss_BT * here("weight_BT"), here("weight_BT") > 0)
        return LossSum(loss=total, metrics={"accuracy": (hit_BT * here("end_share_BT")).sum()})

    return loss


def confidence_labels(values: Sequence[float], *, threshold: float = -0.5, start: float | None = None) -> list[float]:
    """Labels of steps from an outcome model's values of the prefixes, by relative change (AutoPSV, equation 3).

    Delta_k = (v_k - v_{k-1}) / v_{k-1}. The first step with Delta_k < threshold and all that follow are wrong (0), those
    before it right (1). `values` lie in [0, 1], one a step; `start` is the value before the first step, which counts as
    right where there is none. After a value below 1e-5 the next step is wrong, as in the released code.
    """
    if any(not 0.0 <= value <= 1.0 for value in values):
        bad = next(k for k, value in enumerate(values) if not 0.0 <= value <= 1.0)
        raise ValueError(f"the value of step {bad + 1} is {values[bad]}; relative changes need values in [0, 1]")
    before = start
    for k, value in enumerate(values):
        if before is not None and (abs(before) < NO_PREDECESSOR or (value - before) / before < threshold):
            return [1.0] * k + [0.0] * (len(values) - k)
        before = value
    return [1.0] * len(values)


class _Fields:
    """Fields of a batch, on the device of the outputs."""

    def __init__(self, part: Batch, device: torch.device) -> None:
        self.part, self.device = part, device

    def __call__(self, name: str) -> Tensor:
        value: Tensor = getattr(self.part, name)
        return value.to(self.device)
