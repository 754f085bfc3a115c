"""The loop of every training on fixed data: the mini-batch of each step follows from the step alone, so it can be resumed."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor

from prmkit.config import ReportTo
from prmkit.errors import ConfigError, DataError, ModelError
from prmkit.ops.batch import Batch
from prmkit.protocols import BatchT, Learner, Loss
from prmkit.train.loggers import make_loggers
from prmkit.train.run_folder import RunFolder
from prmkit.train.stop import StopRequest


@dataclass(frozen=True, kw_only=True)
class LoopConfig:
    """What the loop itself needs; part of every training configuration."""

    steps: int
    save_every: int
    keep_checkpoints: int
    report_to: tuple[ReportTo, ...] = ()

    def __post_init__(self) -> None:
        for key in ("steps", "save_every", "keep_checkpoints"):
            if getattr(self, key) < 1:
                raise ConfigError(f"{key} = {getattr(self, key)} is out of range; it must be at least 1")


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Metrics of a step (from 1) from data of its own; an empty mapping where they are not due."""

    measure: Callable[[int], Mapping[str, float]]
    digest: str
    """Of the data (`data_digest`)."""

    def __call__(self, step: int) -> Mapping[str, float]:
        """The metrics of this step."""
        return self.measure(step)


def data_digest(rows: Iterable[object]) -> str:
    """SHA-256 of what is learned from or measured: rows of token ids and targets, in their order."""
    total = hashlib.sha256()
    for row in rows:
        total.update(repr(row).encode())
    return total.hexdigest()


def train_fixed(
    learner: Learner,
    minibatch: Callable[[int], BatchT],
    loss: Loss[BatchT],
    folder: RunFolder,
    config: LoopConfig,
    *,
    role: str,
    digest: str = "",
    evaluate: Callable[[int], Mapping[str, float]] | None = None,
    save: Callable[[Path], None] | None = None,
    on_step: Callable[[int, Mapping[str, float]], None] = lambda step, metrics: None,
    stop: StopRequest | None = None,
) -> bool:
    """Train until `config.steps`; True if it got there, False if it was asked to stop before. `folder` is open, and closed at
    the end.

    `minibatch(step)` gives the rows of a step (from 0). `evaluate(step)` (from 1) may add metrics, an empty mapping where it
    is not due. Checkpoints hold the model under `role`, written by `save`, or by the learner's own, and `digest`
    (`data_digest` of the rows) with that of an `Evaluation`. Raises DataError where a checkpoint was made from other data.

    The metric `tokens/trained` counts the tokens that the update has read, prompts included.
    """
    digests = {"training": digest, "validation": evaluate.digest if isinstance(evaluate, Evaluation) else ""}
    start = _restore(learner, folder, role, digests)
    folder.prune(config.keep_checkpoints)
    loggers = make_loggers(config.report_to, folder.path, start + 1)
    try:
        for step in range(start + 1, config.steps + 1):
            batch = minibatch(step - 1)
            metrics = {**learner.update([batch], loss).metrics, "tokens/trained": float(batch.length_B.sum())}
            if evaluate is not None:
                metrics |= evaluate(step)
            folder.append("metrics.jsonl", {"step": step, **metrics})
            for logger in loggers:
                logger.log(step, metrics)
            on_step(step, metrics)
            stopping = stop is not None and stop.asked
            if step % config.save_every == 0 or step == config.steps or stopping:
                state = {"step": step, "data": digests, role: learner.state_dict()}
                folder.save_checkpoint(step, state, {role: save or learner.save}, config.keep_checkpoints)
            if stopping and step < config.steps:
                return False
    finally:
        for logger in loggers:
            logger.close()
        folder.close()
    return True


def check_finite(values: Tensor) -> None:
    """Raises ModelError where a model in training gives NaN or infinity: any order of such numbers would be arbitrary."""
    if not torch.isfinite(values).all():
        raise ModelError(
            "the model in training gives a number that is not finite on the validation data; lower "
            'optimizer.learning_rate, or use model.dtype = "float32"'
        )


def batch_rows(num_rows: int, batch_size: int, seed: int, step: int) -> list[int]:
    """Which rows optimizer step `step` (from 0) learns from: epochs, each in its own order, no state."""
    chosen = []
    for k in range(step * batch_size, (step + 1) * batch_size):
        epoch, offset = divmod(k, num_rows)
        chosen.append(_order(num_rows, seed, epoch)[offset])
    return chosen


@lru_cache(maxsize=2)
def _order(num_rows: int, seed: int, epoch: int) -> tuple[int, ...]:
    order = list(range(num_rows))
    random.Random(f"sft/{seed}/{epoch}").shuffle(order)
    return tuple(order)


def fixed_batch(rows: Sequence[tuple[Sequence[int], int]]) -> Batch:
    """Right-padded tensors of (token ids, prompt length) rows; the fields that only rollouts have are empty (0)."""
    lengths = [len(ids) for ids, _ in rows]
    token_BT = torch.zeros(len(rows), max(lengths), dtype=torch.long)
    mask_BT = torch.zeros(token_BT.shape, dtype=torch.bool)
    for i, (ids, prompt_length) in enumerate(rows):
        token_BT[i, : lengths[i]] = torch.tensor(ids)
        mask_BT[i, prompt_length : lengths[i]] = True
    return Batch(
        token_BT=token_BT,
        length_B=torch.tensor(lengths),
        response_mask_BT=mask_BT,
        step_BT=torch.where(mask_BT, 0, -1),
        behaviour_logp_BT=torch.zeros(token_BT.shape),
        outcome_B=torch.zeros(len(rows)),
        group_B=torch.arange(len(rows)),
        truncated_B=torch.zeros(len(rows), dtype=torch.bool),
    )


def _restore(learner: Learner, folder: RunFolder, role: str, digests: Mapping[str, str]) -> int:
    steps = folder.saved_steps()
    state = folder.load_checkpoint(steps[-1]) if steps else {}
    for name, digest in digests.items() if steps else ():
        known = state.get("data", {}).get(name, "")
        if known != digest and (known or name != "training"):  # older checkpoints may not know
            raise DataError(
                f"the {name} data are not those that this run began with: a file, the tokenizer, max_tokens or the meaning of "
                "labels has changed; put the old files back, or give the run another run_dir"
            )
    folder.rewind(steps[-1] if steps else -1)
    if not steps:
        return 0
    learner.load_state_dict(state[role])
    return steps[-1]
