"""The offline implicit PRM (arXiv:2412.01981): a language model whose log-ratio to a reference predicts the outcome."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from prmkit.data.labels import HALF
from prmkit.errors import ModelError
from prmkit.ops.batch import Batch, LossSum, TokenOutputs, UpdateResult, take
from prmkit.ops.implicit_loss import (
    area_under_curve,
    clamped_kl,
    cross_entropy_terms,
    kto_terms,
    noise_contrastive_terms,
    outcome_accuracy,
    pair_accuracy,
    preference_loss,
    preference_slope,
)
from prmkit.protocols import Learner, Loss
from prmkit.train.implicit_config import ImplicitConfig, ImplicitLoss
from prmkit.train.implicit_data import (
    ImplicitBatch,
    Items,
    implicit_batch,
    mismatched_rows,
    sibling_pairs,
    token_row,
)
from prmkit.train.loop import Evaluation, LoopConfig, batch_rows, check_finite, fixed_batch, train_fixed
from prmkit.train.run_folder import RunFolder
from prmkit.train.stop import StopRequest

ROLE = "prm"
"""The model's name in checkpoints."""
EVALUATED_AT_ONCE = 256
"""Responses of the held-out set that become tensors at a time."""


class FrozenScorer(Protocol):
    """The reference: log-probs only."""

    def outputs(self, batch: Batch, *, entropy: bool = False) -> TokenOutputs:
        """Per-token log-probs without gradient."""
        ...


@dataclass(frozen=True, kw_only=True)
class Objective:
    """What is minimised."""

    loss: ImplicitLoss
    beta: float
    max_tokens: int = 2048
    """Longest mismatched row."""


def response_logp(output_BT: Tensor, mask_BT: Tensor) -> Tensor:
    """(B,) float64: sum of the response tokens' log-probs. In float64, since h is a small difference of two large sums."""
    return torch.where(mask_BT, output_BT, torch.zeros_like(output_BT)).double().sum(1)


def implicit_loss(objective: Objective) -> Loss[ImplicitBatch]:
    """The loss of some rows; a sum, so that parts of a mini-batch add up to the whole."""

    def loss(outputs: TokenOutputs, part: ImplicitBatch) -> LossSum:
        device = outputs.output_BT.device
        logp_B = response_logp(outputs.output_BT, part.response_mask_BT.to(device))
        z_B = objective.beta * (logp_B - part.reference_B.to(device))
        if objective.loss == "dpo":
            linear_B = part.slope_B.to(device) * (z_B - part.seen_z_B.to(device))
            return LossSum(loss=(linear_B + part.loss_share_B.to(device)).sum(), metrics={})
        if objective.loss == "ce":
            right_B, wrong_B = cross_entropy_terms(z_B)
        elif objective.loss == "nca":
            right_B, wrong_B = noise_contrastive_terms(z_B)
        else:
            right_B, wrong_B = kto_terms(z_B, *part.baselines)
        return LossSum(loss=(part.right_B.to(device) * right_B + part.wrong_B.to(device) * wrong_B).sum(), metrics={})

    return loss


@dataclass(kw_only=True)
class ReferenceSums:
    """log pi_ref of whole responses, computed when first asked for and kept. Without a reference all are 0."""

    scorer: FrozenScorer | None
    known_N: Tensor
    """float64, NaN where it is not known yet."""

    def of(self, batch: ImplicitBatch) -> tuple[Tensor, int]:
        """(B,) sums, and how many tokens the reference has read for them now."""
        if self.scorer is None:
            return torch.zeros(len(batch.length_B), dtype=torch.float64), 0
        missing = torch.isnan(self.known_N[batch.response_B]).nonzero().squeeze(1)
        if not len(missing):
            return self.known_N[batch.response_B], 0
        part = take(batch, missing)
        self.known_N[part.response_B] = self.once(part)
        return self.known_N[batch.response_B], int(part.length_B.sum())

    def once(self, batch: Batch) -> Tensor:
        """(B,) sums that are not kept. Raises ModelError for one that is not finite."""
        if self.scorer is None:
            return torch.zeros(len(batch.length_B), dtype=torch.float64)
        return _finite_reference(response_logp(self.scorer.outputs(batch).output_BT, batch.response_mask_BT))


def _finite_reference(sums_B: Tensor) -> Tensor:
    if not torch.isfinite(sums_B).all():
        raise ModelError("the reference gives a log-prob that is not finite; use another reference, or dtype float32")
    return sums_B


@dataclass(kw_only=True)
class ImplicitLearner:
    """A learner that sees each mini-batch through the reference, and for losses that couple rows through itself, first."""

    inner: Learner
    reference: ReferenceSums
    data: Items
    objective: Objective
    loss: Loss[ImplicitBatch] = field(init=False)

    def __post_init__(self) -> None:
        self.loss = implicit_loss(self.objective)

    def outputs(self, batch: Batch, *, entropy: bool = False) -> TokenOutputs:
        """Per-token log-probs without gradient."""
        return self.inner.outputs(batch, entropy=entropy)

    def update(self, minibatches: Sequence[Any], loss: Loss[Any]) -> UpdateResult:
        """One optimizer step per mini-batch, with what the loss has to know beforehand filled in."""
        totals: dict[str, list[float]] = defaultdict(list)
        seen: list[Tensor] = []
        for plain in minibatches:
            minibatch, before = self.prepared(plain)
            result = self.inner.update([minibatch], loss)
            seen += result.output_BT
            for name, value in (before | dict(result.metrics) | self._observed(minibatch, result.output_BT[0])).items():
                totals[name].append(value)
        return UpdateResult(metrics={name: sum(v) / len(v) for name, v in totals.items()}, output_BT=seen)

    def prepared(self, plain: ImplicitBatch) -> tuple[ImplicitBatch, dict[str, float]]:
        """The mini-batch with reference sums, KL and slopes at the present weights, and metrics of what that took."""
        reference_B, reference_tokens = self.reference.of(plain)
        batch, forward_tokens, kl = replace(plain, reference_B=reference_B), 0, None
        match self.objective.loss:
            case "dpo":
                batch, forward_tokens = self._with_slopes(batch), int(batch.length_B.sum())
            case "kto_even":
                right_kl, wrong_kl = self._even_kl(batch)
                beta, forward_tokens, kl = self.objective.beta, int(batch.length_B.sum()), (right_kl + wrong_kl) / 2
                batch = replace(batch, baselines=(beta * wrong_kl, beta * right_kl))
            case "kto":
                rows = mismatched_rows(self.data, batch.response_B.tolist(), self.objective.max_tokens)
                mixed = fixed_batch(rows)
                kl, forward_tokens = (
                    clamped_kl(self._log_ratio(mixed, self.reference.once(mixed))),
                    int(mixed.length_B.sum()),
                )
                reference_tokens += forward_tokens if self.reference.scorer is not None else 0
                batch = replace(batch, baselines=(self.objective.beta * kl,) * 2)
        spent = {
            "tokens/forward": float(forward_tokens),
            "tokens/reference": float(reference_tokens),
        }
        return batch, spent if kl is None else {"kl": kl, **spent}

    def save(self, path: Path) -> None:
        """Write the model in Hugging Face form."""
        self.inner.save(path)

    def state_dict(self) -> Mapping[str, Any]:
        """The learner's state and the reference sums known so far, so that none is computed in another company."""
        return {"learner": self.inner.state_dict(), "reference": self.reference.known_N}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from `state_dict()`. The reference sums are kept by position, so the data must be the same (`train_fixed`)."""
        self.inner.load_state_dict(state["learner"])
        self.reference.known_N = state["reference"].clone()

    def _log_ratio(self, batch: Batch, reference_B: Tensor) -> Tensor:
        return response_logp(self.inner.outputs(batch).output_BT, batch.response_mask_BT) - reference_B

    def _with_slopes(self, batch: ImplicitBatch) -> ImplicitBatch:
        z_B = self.objective.beta * self._log_ratio(batch, batch.reference_B)
        chosen_P, rejected_P = _sides(batch)
        loss = preference_loss(z_B, chosen_P, rejected_P)
        return replace(
            batch,
            seen_z_B=z_B,
            slope_B=preference_slope(z_B, chosen_P, rejected_P),
            loss_share_B=(loss / len(z_B)).expand(len(z_B)),
        )

    def _even_kl(self, batch: ImplicitBatch) -> tuple[float, float]:
        """Clamped mean log-ratios of the chosen and of the rejected sides."""
        h_B = self._log_ratio(batch, batch.reference_B)
        chosen_P, rejected_P = _sides(batch)
        return clamped_kl(h_B[chosen_P]), clamped_kl(h_B[rejected_P])

    def _observed(self, batch: ImplicitBatch, output_BT: Tensor) -> dict[str, float]:
        """What the forward pass that made the gradient says of the mini-batch; a row counts once for each item that names it."""
        z_B = self.objective.beta * (response_logp(output_BT, batch.response_mask_BT) - batch.reference_B)
        rows_I = torch.tensor([row for item in batch.items for row in item])
        z_I, outcome_I = z_B[rows_I], batch.outcome_B[rows_I]
        length_I = batch.response_mask_BT.sum(1).double()[rows_I]
        on_pairs = len(batch.items[0]) == 2
        found = {
            "accuracy": pair_accuracy(z_B, *_sides(batch)) if on_pairs else outcome_accuracy(z_I, outcome_I),
            **_means("z", z_I, outcome_I),
            "completions/mean_length": float(length_I.mean()),
            **_means("completions/mean_length", length_I, outcome_I),
        }
        return {name: value for name, value in found.items() if value is not None}


def _sides(batch: ImplicitBatch) -> tuple[Tensor, Tensor]:
    """Rows of the chosen and of the rejected side of each pair."""
    rows_P2 = torch.tensor(batch.items)
    return rows_P2[:, 0], rows_P2[:, 1]


def _means(name: str, value_B: Tensor, outcome_B: Tensor) -> dict[str, float]:
    """Mean over right and over wrong responses; a class that is not there has none."""
    classes = {"right": outcome_B > HALF, "wrong": outcome_B < HALF}
    return {f"{name}/{side}": float(value_B[rows].mean()) for side, rows in classes.items() if rows.any()}


@dataclass(kw_only=True)
class HeldOut:
    """The validation responses. Reference sums are computed once."""

    data: Items
    scorer: FrozenScorer | None
    beta: float
    reference_N: Tensor | None = None

    def evaluate(self, learner: Learner) -> dict[str, float]:
        """AUC over all responses, accuracy over all pairs of siblings that differ in outcome; accuracy, cross-entropy and
        class means of z.

        A figure that the data cannot give (no two outcomes, no such siblings) is left out. Raises ModelError for a log-prob of
        either model that is not finite: NaN would rank above all.
        """
        scorer = self.scorer
        if self.reference_N is None:
            zeros_N = torch.zeros(len(self.data.responses), dtype=torch.float64)
            self.reference_N = zeros_N if scorer is None else _finite_reference(self._sums(scorer))
        rows = [row for item in self.data.items for row in item]
        members = [self.data.responses[row] for row in rows]
        sums_N = self._sums(learner)
        check_finite(sums_N)
        z_N = (self.beta * (sums_N - self.reference_N))[rows]
        outcome_N = torch.tensor([r.outcome for r in members], dtype=torch.float64)
        decided_N = outcome_N != HALF  # a soft outcome of one half ranks neither above nor below
        right_N, wrong_N = cross_entropy_terms(z_N)
        pairs = sibling_pairs(members)
        found = {
            "validation/auc": area_under_curve(z_N[decided_N], outcome_N[decided_N] > HALF),
            "validation/pair_accuracy": pair_accuracy(z_N, *torch.tensor(pairs).T) if pairs else None,
            "validation/accuracy": outcome_accuracy(z_N, outcome_N),
            "validation/cross_entropy": float((outcome_N * right_N + (1 - outcome_N) * wrong_N).mean()),
            **_means("validation/z", z_N, outcome_N),
        }
        return {name: value for name, value in found.items() if value is not None}

    def _sums(self, model: Learner | FrozenScorer) -> Tensor:
        rows = [token_row(r.prompt_token_ids, r.token_ids) for r in self.data.responses]
        order = sorted(range(len(rows)), key=lambda i: -len(rows[i][0]))
        sums_N = torch.zeros(len(rows), dtype=torch.float64)
        for start in range(0, len(order), EVALUATED_AT_ONCE):
            part = order[start : start + EVALUATED_AT_ONCE]
            batch = fixed_batch([rows[i] for i in part])
            sums_N[part] = response_logp(model.outputs(batch).output_BT, batch.response_mask_BT)
        return sums_N


def num_steps(config: ImplicitConfig, num_items: int) -> int:
    """Optimizer steps of a run."""
    return config.steps or math.ceil(config.epochs * num_items / config.batch_size)


def train_implicit(
    learner: Learner,
    reference: FrozenScorer | None,
    data: Items,
    folder: RunFolder,
    config: ImplicitConfig,
    *,
    max_tokens: int | None = None,
    validation: Items | None = None,
    save: Callable[[Path], None] | None = None,
    on_step: Callable[[int, Mapping[str, float]], None] = lambda step, metrics: None,
    stop: StopRequest | None = None,
) -> bool:
    """Train for `num_steps`; True if it got there, False if it was asked to stop before. `folder` is open.

    `max_tokens` bounds KTO's mismatched rows; by default config.max_tokens. `save` writes a checkpoint's model with prm.json.
    """
    known_N = torch.full((len(data.responses),), math.nan, dtype=torch.float64)
    objective = Objective(loss=config.loss, beta=config.beta, max_tokens=max_tokens or config.max_tokens)
    wrapped = ImplicitLearner(
        inner=learner, reference=ReferenceSums(scorer=reference, known_N=known_N), data=data, objective=objective
    )
    held_out = None if validation is None else HeldOut(data=validation, scorer=reference, beta=config.beta)
    total = num_steps(config, len(data.items))

    def minibatch(step: int) -> ImplicitBatch:
        rows = batch_rows(len(data.items), config.batch_size, config.seed, step)
        return implicit_batch(data, rows, side_weights=side_weights(config))

    def evaluate(step: int) -> Mapping[str, float]:
        due = held_out is not None and (step % config.validate_every == 0 or step == total)
        return held_out.evaluate(learner) if held_out is not None and due else {}

    loop = LoopConfig(
        steps=total, save_every=config.save_every, keep_checkpoints=config.keep_checkpoints, report_to=config.report_to
    )
    return train_fixed(
        wrapped,
        minibatch,
        wrapped.loss,
        folder,
        loop,
        role=ROLE,
        digest=data.digest,
        evaluate=Evaluation(measure=evaluate, digest="" if validation is None else validation.digest),
        save=save,
        on_step=on_step,
        stop=stop,
    )


def side_weights(config: ImplicitConfig) -> tuple[float, float]:
    """What right and wrong responses weigh. kto_even is a mean over both sides of n pairs: 1 / 2n each."""
    if not config.loss.startswith("kto"):
        return 1.0, 1.0
    share = 0.5 if config.loss == "kto_even" else 1.0
    return share * config.desirable_weight, share * config.undesirable_weight
