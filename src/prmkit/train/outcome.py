"""An outcome model: a value at the last token, or at every token, that says whether the final answer will be right."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from prmkit.data.labels import HALF, is_right
from prmkit.data.layouts import separated
from prmkit.data.prm_spec import PRMSpec
from prmkit.data.step_scores import probabilities
from prmkit.data.types import Solution, StepRewards
from prmkit.errors import DataError
from prmkit.ops.implicit_loss import area_under_curve
from prmkit.ops.reduce import token_weights
from prmkit.ops.stepwise_loss import OutcomeBatch, confidence_labels, outcome_loss
from prmkit.protocols import Learner, Unscored
from prmkit.train.loop import Evaluation, batch_rows, check_finite, data_digest, fixed_batch, train_fixed
from prmkit.train.run_folder import RunFolder
from prmkit.train.stepwise import ROLE, loop_config, too_long
from prmkit.train.stepwise_config import OutcomeConfig
from prmkit.train.stop import StopRequest

EVALUATED_AT_ONCE = 256
"""Validation solutions that become tensors at a time."""


@dataclass(frozen=True, kw_only=True)
class EncodedOutcome:
    """One solution as tokens, with a target for each response token: None where nothing is to be learned."""

    id: str
    token_ids: tuple[int, ...]
    prompt_length: int
    targets: tuple[float | None, ...]


@dataclass(frozen=True, kw_only=True)
class EncodedOutcomes:
    """What can be learned from, and a count of what cannot."""

    rows: Sequence[EncodedOutcome]
    num_too_long: int
    num_unlabelled: int

    def notes(self) -> list[str]:
        """What a user should know of it, in sentences."""
        ends = [row.targets[-1] for row in self.rows]
        right = sum(end is not None and is_right(end) for end in ends)
        said = [f"{len(self.rows)} solutions, {right} of them right at their end"]
        if self.num_too_long:
            said.append(f"{self.num_too_long} solutions are longer than max_tokens and were left out")
        if self.num_unlabelled:
            said.append(f"{self.num_unlabelled} solutions have nothing to learn from and were left out")
        return said


def encode_outcomes(
    tokenizer: Any, solutions: Sequence[Solution], config: OutcomeConfig, max_tokens: int
) -> EncodedOutcomes:
    """Tokens and targets of every solution.

    Raises DataError for a solution longer than `max_tokens` (unless `too_long` is `leave_out`), and where no target is left.
    """
    rows, num_too_long, num_unlabelled = [], 0, 0
    for solution in solutions:
        laid = separated(tokenizer, solution, separator=config.separator, chat=config.layout == "chat")
        if len(laid.token_ids) > max_tokens:
            if config.too_long == "error":
                raise too_long(solution, len(laid.token_ids), max_tokens, 'set too_long = "leave_out"')
            num_too_long += 1
            continue
        targets = _targets(solution, laid.step_of_token, config)
        if all(target is None for target in targets):
            num_unlabelled += 1
            continue
        rows.append(
            EncodedOutcome(id=solution.id, token_ids=laid.token_ids, prompt_length=laid.prompt_length, targets=targets)
        )
    if not rows:
        wanted = "an outcome" if config.target == "outcome" else "a step label"
        raise DataError(
            f"none of the {len(solutions)} solutions has {wanted} to learn from ({num_too_long} are longer than "
            f"{max_tokens} tokens); give data that has it, or raise max_tokens"
        )
    return EncodedOutcomes(rows=rows, num_too_long=num_too_long, num_unlabelled=num_unlabelled)


def check_targets(solutions: Sequence[Solution], config: OutcomeConfig, paths: Sequence[str]) -> None:
    """Raises DataError where no solution has what is to be learned: that needs no model to be seen."""
    if config.target == "outcome":
        if any(solution.outcome is not None for solution in solutions):
            return
        wanted, mend = (
            "an outcome",
            "prmkit data convert --outcome-from-labels true finds outcomes where steps are labelled",
        )
    else:
        if any(label is not None for solution in solutions for label in solution.labels or ()):
            return
        wanted, mend = "a step label", 'target = "outcome" learns from outcomes'
    raise DataError(
        f"{', '.join(paths)}: none of the {len(solutions)} solutions has {wanted} to learn from; give data that has it; {mend}"
    )


def _targets(solution: Solution, step_of_token: Sequence[int], config: OutcomeConfig) -> tuple[float | None, ...]:
    """Of each response token. A neutral step is right, since AutoPSV knows two kinds only."""
    if config.target == "steps":
        labels = [1.0 if label == "neutral" else label for label in solution.labels or (None,) * len(solution.steps)]
        return tuple(labels[step] for step in step_of_token)
    if config.where == "every":
        return (solution.outcome,) * len(step_of_token)
    return (*(None,) * (len(step_of_token) - 1), solution.outcome)


def outcome_batch(rows: Sequence[EncodedOutcome], reduce: str = "seq_mean_token_mean") -> OutcomeBatch:
    """The rows as tensors; `reduce` says how token losses are weighed (`ops.reduce.token_weights`)."""
    plain = fixed_batch([(row.token_ids, row.prompt_length) for row in rows])
    target_BT = torch.zeros(plain.token_BT.shape)
    mask_BT = torch.zeros(plain.token_BT.shape, dtype=torch.bool)
    end_BT = torch.zeros(plain.token_BT.shape)
    for i, row in enumerate(rows):
        for at, target in enumerate(row.targets, start=row.prompt_length):
            if target is not None:
                target_BT[i, at], mask_BT[i, at] = target, True
        end_BT[i, len(row.token_ids) - 1] = float(row.targets[-1] is not None)
    if not mask_BT.any():
        raise ValueError("a batch of outcomes needs at least one target")
    return OutcomeBatch(
        **vars(plain),
        target_BT=target_BT,
        weight_BT=token_weights(mask_BT, reduce),
        end_share_BT=end_BT / end_BT.sum().clamp(min=1),
    )


def train_outcome(
    learner: Learner,
    rows: Sequence[EncodedOutcome],
    folder: RunFolder,
    config: OutcomeConfig,
    *,
    evaluate: Callable[[int], Mapping[str, float]] | None = None,
    on_step: Callable[[int, Mapping[str, float]], None] = lambda step, metrics: None,
    stop: StopRequest | None = None,
) -> bool:
    """Train for the configured steps or epochs; True if it got there, False if asked to stop. `folder` is open."""

    def minibatch(step: int) -> OutcomeBatch:
        chosen = batch_rows(len(rows), config.batch_size, config.seed, step)
        return outcome_batch([rows[i] for i in chosen], config.reduce)

    return train_fixed(
        learner,
        minibatch,
        outcome_loss(config.loss),
        folder,
        loop_config(config, len(rows)),
        role=ROLE,
        digest=outcomes_digest(rows),
        evaluate=evaluate,
        on_step=on_step,
        stop=stop,
    )


def outcomes_digest(rows: Sequence[EncodedOutcome]) -> str:
    """`data_digest` of solutions: their tokens and targets."""
    return data_digest((row.token_ids, row.targets) for row in rows)


def validation(learner: Learner, rows: Sequence[EncodedOutcome], config: OutcomeConfig, total_steps: int) -> Evaluation:
    """`validate_outcomes` where it is due: every `validate_every` steps and at the end."""

    def evaluate(step: int) -> Mapping[str, float]:
        due = step % config.validate_every == 0 or step == total_steps
        return validate_outcomes(learner, rows, config) if due else {}

    return Evaluation(measure=evaluate, digest=outcomes_digest(rows))


def validate_outcomes(learner: Learner, rows: Sequence[EncodedOutcome], config: OutcomeConfig) -> dict[str, float]:
    """`validation/loss`; and of the last tokens `validation/accuracy` and `validation/auc`, how often a right solution is above a
    wrong one.

    A number that the rows do not define is left out: no last token has a target, or all are of one kind. Raises ModelError for
    a value that is not finite.
    """
    loss, value_ends, right_ends = 0.0, [], []
    total_weight = sum(_weight(row, config.reduce) for row in rows)
    for start in range(0, len(rows), EVALUATED_AT_ONCE):
        chosen = rows[start : start + EVALUATED_AT_ONCE]
        batch = outcome_batch(chosen, config.reduce)
        outputs = learner.outputs(batch)
        value_BT = outputs.output_BT.cpu()
        check_finite(value_BT[batch.weight_BT > 0])
        # a window's loss is a mean over its own tokens or rows
        share = sum(_weight(row, config.reduce) for row in chosen) / total_weight
        loss += share * float(outcome_loss(config.loss)(outputs, batch).loss)
        ends_BT = batch.end_share_BT > 0
        value_ends.append(value_BT[ends_BT])
        right_ends.append(batch.target_BT[ends_BT] > HALF)
    value_N, right_N = torch.cat(value_ends), torch.cat(right_ends)
    found = {"validation/loss": loss}
    if not len(value_N):
        return found
    found["validation/accuracy"] = float(((value_N > 0) == right_N).double().mean())
    auc = area_under_curve(value_N, right_N)
    return found if auc is None else {**found, "validation/auc": auc}


def _weight(row: EncodedOutcome, reduce: str) -> int:
    """What a solution counts in a mean over several mini-batches."""
    return sum(target is not None for target in row.targets) if reduce == "token_mean" else 1


def outcome_spec(config: OutcomeConfig) -> PRMSpec:
    """How the trained model is to be asked: exactly as it was trained."""
    return PRMSpec(family="value_head", separator=config.separator, chat=config.layout == "chat")


def label_by_confidence(
    solutions: Sequence[Solution], scored: Sequence[StepRewards | Unscored], *, threshold: float = -0.5
) -> list[Solution]:
    """AutoPSV's annotation: the solutions with step labels from an outcome model's values of their prefixes.

    `scored` comes from `load_prm(outcome model).score_all(solutions)`; no gold answer is used. Raises DataError for a
    solution that was not scored.
    """
    labelled = []
    for solution, values in zip(solutions, scored, strict=True):
        if isinstance(values, Unscored):
            raise DataError(f"solution {solution.id!r} has no values ({values.reason}); leave it out before labelling")
        labels = confidence_labels(probabilities(values), threshold=threshold)
        labelled.append(replace(solution, labels=tuple(labels)))
    return labelled
