"""An explicit PRM: every labelled step is classified at the last token of the separator that follows it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from prmkit.data.formats import read_solutions
from prmkit.data.labels import is_right
from prmkit.data.layouts import separated
from prmkit.data.prm_spec import PRMSpec
from prmkit.data.types import Solution, StepLabel
from prmkit.errors import ConfigError, DataError
from prmkit.ops.stepwise_loss import CLASSES, StepBatch, stepwise_loss
from prmkit.protocols import Learner
from prmkit.train.loop import LoopConfig, batch_rows, data_digest, fixed_batch, train_fixed
from prmkit.train.run_folder import RunFolder
from prmkit.train.stepwise_config import OutcomeConfig, StepwiseConfig
from prmkit.train.stop import StopRequest

ROLE = "prm"
"""Name of the model's folder in a checkpoint."""


class Target(NamedTuple):
    """What a labelled step should be."""

    probabilities: tuple[float, float, float]
    """Of `CLASSES`."""
    kind: int
    """The class that counts in accuracies."""


WRONG, RIGHT, NEUTRAL = Target((1.0, 0.0, 0.0), 0), Target((0.0, 1.0, 0.0), 1), Target((0.0, 0.0, 1.0), 2)


@dataclass(frozen=True, kw_only=True)
class EncodedSteps:
    """One solution as tokens, with a target for each step: None where the step is not to be learned."""

    id: str
    token_ids: tuple[int, ...]
    prompt_length: int
    read_at: tuple[int, ...]
    targets: tuple[Target | None, ...]
    judged: bool
    """Whether every step of the whole solution has a label, so that it is known to be right where no target is wrong."""


@dataclass(frozen=True, kw_only=True)
class EncodedData:
    """What can be learned from, and a count of what cannot."""

    rows: Sequence[EncodedSteps]
    num_cut: int
    """Solutions cut after their last whole step that fits."""
    num_too_long: int
    """Solutions left out since not even their first step fits."""
    num_unlabelled: int
    """Solutions that fit, left out since no label is left in them."""

    def notes(self) -> list[str]:
        """What a user should know of it, in sentences."""
        steps = [target for row in self.rows for target in row.targets]
        counts = ", ".join(
            f"{sum(t is not None and t.kind == index for t in steps)} {name}"
            for index, name in enumerate(CLASSES)
            if index < 2 or any(t is not None and t.kind == index for t in steps)
        )
        said = [f"{len(self.rows)} solutions, {len(steps)} steps: {counts}, {steps.count(None)} not learned"]
        if self.num_cut:
            said.append(f"{self.num_cut} solutions are longer than max_tokens and were cut after a whole step")
        if self.num_too_long:
            said.append(f"{self.num_too_long} solutions have no step that fits into max_tokens and were left out")
        if self.num_unlabelled:
            said.append(f"{self.num_unlabelled} solutions have no label to learn from and were left out")
        return said


def load_solutions(paths: Sequence[str], config: StepwiseConfig | OutcomeConfig, *, training: bool) -> list[Solution]:
    """The solutions of some files; for training, of the languages asked for. Raises DataError where none is left."""
    if training and not paths:
        raise ConfigError("data is empty: name at least one file of solutions")
    solutions = [solution for path in paths for solution in read_solutions(path, format=config.format)]
    if not (training and config.languages):
        return solutions
    chosen = [solution for solution in solutions if solution.language in config.languages]
    if not chosen:
        there = ", ".join(sorted({repr(solution.language) for solution in solutions}))
        raise DataError(
            f"{', '.join(paths)}: no solution has one of the languages {list(config.languages)}; the data has {there}; "
            "correct languages, or leave it empty"
        )
    return chosen


def step_targets(labels: Sequence[StepLabel], config: StepwiseConfig) -> list[Target | None]:
    """A target for each label, by the configuration's `neutral`, `soft`, `threshold` and `up_to_first_error`.

    The first error is the first number that is not above the threshold; a neutral step is none, whatever it counts as.
    """
    neutral = {"right": RIGHT, "wrong": WRONG, "class": NEUTRAL, "drop": None}[config.neutral]
    targets: list[Target | None] = []
    for label in labels:
        if label is None:
            targets.append(None)
        elif label == "neutral":
            targets.append(neutral)
        else:
            assert isinstance(label, (int, float))
            hard = RIGHT if is_right(label, config.threshold) else WRONG
            targets.append(Target((1.0 - label, float(label), 0.0), hard.kind) if config.soft else hard)
            if hard is WRONG and config.up_to_first_error:
                break
    return targets + [None] * (len(labels) - len(targets))


def check_labels(solutions: Sequence[Solution], config: StepwiseConfig, paths: Sequence[str]) -> None:
    """Raises DataError where there is nothing to learn in any solution: that needs no model to be seen."""
    if any(target is not None for s in solutions for target in step_targets(s.labels or (), config)):
        return
    neutral = sum(label == "neutral" for s in solutions for label in s.labels or ())
    outcomes = sum(solution.outcome is not None for solution in solutions)
    why = f'; {neutral} steps are neutral, which neutral = "drop" leaves out' if neutral else ""
    instead = (
        f"; {outcomes} have an outcome: prmkit train outcome or train implicit learn from that" if outcomes else ""
    )
    raise DataError(
        f"{', '.join(paths)}: none of the {len(solutions)} solutions has a step label to learn from{why}; give data with "
        f"labels{instead}"
    )


def encode_solutions(
    tokenizer: Any, solutions: Sequence[Solution], config: StepwiseConfig, max_tokens: int
) -> EncodedData:
    """Tokens and targets of every solution with labels.

    Raises DataError for a solution longer than `max_tokens` (unless `too_long` is `cut`), and where no label is left at all.
    """
    rows, num_cut, num_too_long, num_unlabelled = [], 0, 0, 0
    for solution in solutions:
        row = _encode(tokenizer, solution, config, max_tokens)
        if not row.targets:
            num_too_long += 1
            continue
        num_cut += len(row.targets) < len(solution.steps)
        if any(target is not None for target in row.targets):
            rows.append(row)
        else:
            num_unlabelled += 1
    if not rows:
        raise DataError(
            f"none of the {len(solutions)} solutions has a step label to learn from ({num_cut} are cut by max_tokens = "
            f"{max_tokens}, and of {num_too_long} not even the first step fits); give data with "
            f"labels, raise max_tokens, or see whether neutral = {config.neutral!r} drops them"
        )
    return EncodedData(rows=rows, num_cut=num_cut, num_too_long=num_too_long, num_unlabelled=num_unlabelled)


def _encode(tokenizer: Any, solution: Solution, config: StepwiseConfig, max_tokens: int) -> EncodedSteps:
    laid = separated(tokenizer, solution, separator=config.separator, chat=config.layout == "chat")
    fitting = sum(at < max_tokens for at in laid.read_at)
    if fitting < len(laid.read_at) and config.too_long == "error":
        raise too_long(solution, len(laid.token_ids), max_tokens, 'set too_long = "cut"')
    labels = solution.labels or (None,) * len(solution.steps)
    end = laid.read_at[fitting - 1] + 1 if fitting else 0
    return EncodedSteps(
        id=solution.id,
        token_ids=laid.token_ids[:end],
        prompt_length=laid.prompt_length,
        read_at=laid.read_at[:fitting],
        targets=tuple(step_targets(labels, config)[:fitting]),
        judged=fitting == len(labels) and None not in labels,
    )


def too_long(solution: Solution, length: int, max_tokens: int, instead: str) -> DataError:
    """The error of a solution that does not fit."""
    return DataError(
        f"solution {solution.id!r} has {length} tokens with its prompt and separators, more than the {max_tokens} that "
        f"max_tokens and the model's context allow; shorten it, raise max_tokens, or {instead}"
    )


def step_batch(rows: Sequence[EncodedSteps], class_weights: Sequence[float] = ()) -> StepBatch:
    """The rows as tensors. `class_weights` are of right, wrong and neutral; the mean is over weights, as in torch.

    Token i with soft target t_i weighs sum_c w_c t_ic / sum_j sum_c w_c t_jc, and its target becomes w_c t_ic, normalised.
    """
    plain = fixed_batch([(row.token_ids, row.prompt_length) for row in rows])
    class_BT = torch.full(plain.token_BT.shape, -1)
    mass_CBT = torch.zeros(len(CLASSES), *plain.token_BT.shape)
    right, wrong, neutral = (*class_weights, *(1.0,) * (len(CLASSES) - len(class_weights)))
    weight_C = torch.tensor([wrong, right, neutral])
    num_steps = sum(len(row.targets) for row in rows)
    for i, row in enumerate(rows):
        for at, target in zip(row.read_at, row.targets, strict=True):
            if target is not None:
                class_BT[i, at] = target.kind
                mass_CBT[:, i, at] = weight_C * torch.tensor(target.probabilities)
    labelled_BT = class_BT >= 0
    if not labelled_BT.any():
        raise ValueError("a batch of steps needs at least one label")
    mass_BT = mass_CBT.sum(0)
    target_CBT = mass_CBT / torch.where(labelled_BT, mass_BT, torch.ones_like(mass_BT))
    return StepBatch(
        **vars(plain),
        class_BT=class_BT,
        wrong_BT=target_CBT[0],
        right_BT=target_CBT[1],
        neutral_BT=target_CBT[2],
        weight_BT=mass_BT / mass_BT.sum(),
        label_share_BT=labelled_BT / labelled_BT.sum(),
        class_share_BT=_class_share(class_BT),
        classes_present_B=torch.full((len(rows),), float(len(class_BT[labelled_BT].unique()))),
        masked_B=torch.tensor([row.targets.count(None) / num_steps for row in rows]),
    )


def train_stepwise(
    learner: Learner,
    rows: Sequence[EncodedSteps],
    folder: RunFolder,
    config: StepwiseConfig,
    *,
    evaluate: Callable[[int], Mapping[str, float]] | None = None,
    on_step: Callable[[int, Mapping[str, float]], None] = lambda step, metrics: None,
    stop: StopRequest | None = None,
) -> bool:
    """Train for the configured steps or epochs; True if it got there, False if asked to stop. `folder` is open."""

    def minibatch(step: int) -> StepBatch:
        chosen = batch_rows(len(rows), config.batch_size, config.seed, step)
        return step_batch([rows[i] for i in chosen], config.class_weights)

    loop = loop_config(config, len(rows))
    return train_fixed(
        learner,
        minibatch,
        stepwise_loss,
        folder,
        loop,
        role=ROLE,
        digest=steps_digest(rows),
        evaluate=evaluate,
        on_step=on_step,
        stop=stop,
    )


def steps_digest(rows: Sequence[EncodedSteps]) -> str:
    """`data_digest` of solutions: their tokens, where they are read, and targets."""
    return data_digest((row.token_ids, row.read_at, [t and tuple(t) for t in row.targets], row.judged) for row in rows)


def loop_config(config: StepwiseConfig | OutcomeConfig, num_rows: int) -> LoopConfig:
    """The loop's settings; epochs are counted in steps here."""
    return LoopConfig(
        steps=config.steps or -(-config.epochs * num_rows // config.batch_size),
        save_every=config.save_every,
        keep_checkpoints=config.keep_checkpoints,
        report_to=config.report_to,
    )


def stepwise_spec(config: StepwiseConfig) -> PRMSpec:
    """How the trained model is to be asked: exactly as it was trained."""
    head = config.form == "head"
    return PRMSpec(
        family="token_classification" if head else "label_tokens",
        separator=config.separator,
        labels=CLASSES[: config.num_classes] if head else config.labels,
        chat=config.layout == "chat",
    )


def _class_share(class_BT: Tensor) -> Tensor:
    share_BT = torch.zeros(class_BT.shape)
    for index in range(len(CLASSES)):
        share_BT[class_BT == index] = 1 / max(1, int((class_BT == index).sum()))
    return share_BT
