"""A learner: a model with its optimizer. Micro-batches by token budget; the loss does not depend on how they are cut."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor, nn

from prmkit.config import OptimizerConfig
from prmkit.engines.local.microbatches import PADDING, microbatches, prompts_of
from prmkit.errors import TrainingError
from prmkit.ops.batch import Batch, LossSum, TokenOutputs, UpdateResult, take

BatchT = TypeVar("BatchT", bound=Batch)


class TokenModel(Protocol):
    """What a learner trains: tokens in, one number per token out."""

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        ...

    @property
    def shares_prompts(self) -> bool:
        """Whether rows of one micro-batch that begin with the same prompt have it read once."""
        ...

    def outputs(self, batch: Batch, *, entropy: bool = False) -> TokenOutputs:
        """Differentiable outputs, with entropies where asked and where there are any."""
        ...

    def trainable(self) -> list[tuple[str, nn.Parameter]]:
        """The parameters to train, by name."""
        ...


def learning_rate_factor(step: int, config: OptimizerConfig, total_steps: int) -> float:
    """Multiplier of the learning rate at optimizer step `step` (from 0).

    Linear warm-up (s+1)/warmup, never 0: a schedule that starts at 0 wastes its first step, as PRIME's released run does.
    Then constant, or cosine or linear down to min_rate_ratio at `total_steps`.
    """
    if step < config.warmup_steps:
        return (step + 1) / config.warmup_steps
    if config.schedule == "constant" or total_steps <= config.warmup_steps:
        return 1.0
    progress = min(1.0, (step - config.warmup_steps) / (total_steps - config.warmup_steps))
    low = config.min_rate_ratio
    if config.schedule == "linear":
        return low + (1 - low) * (1 - progress)
    return low + (1 - low) * 0.5 * (1 + math.cos(math.pi * progress))


class LocalLearner:
    """AdamW on one device. `role` names it in errors; `entropy`: whether losses are given the entropies."""

    def __init__(
        self,
        model: TokenModel,
        config: OptimizerConfig,
        *,
        role: str,
        entropy: bool = False,
        total_steps: int = 0,
        save: Callable[[Path], None] | None = None,
    ) -> None:
        self.model, self.config, self.role, self.entropy = model, config, role, entropy
        self.total_steps = config.total_steps or total_steps
        self._save = save
        self.step = 0
        self.parameters = model.trainable()
        for _, parameter in self.parameters:
            parameter.requires_grad_(True)
        self.optimizer = torch.optim.AdamW(
            [p for _, p in self.parameters],
            lr=config.learning_rate,
            betas=(config.beta1, config.beta2),
            eps=config.eps,
            weight_decay=config.weight_decay,
            fused=True,
        )

    def outputs(self, batch: Batch, *, entropy: bool = False) -> TokenOutputs:
        """Per-token outputs without gradient."""
        return forward_only(self.model, batch, self.config.tokens_per_microbatch, entropy=entropy)

    def update(self, minibatches: Sequence[BatchT], loss: Callable[[TokenOutputs, BatchT], LossSum]) -> UpdateResult:
        """One optimizer step per mini-batch."""
        totals: dict[str, float] = defaultdict(float)
        seen = []
        for minibatch in minibatches:
            output_BT, metrics = self._accumulate(minibatch, loss)
            metrics["grad_norm"] = self._optimizer_step()
            seen.append(output_BT)
            for name, value in metrics.items():
                totals[name] += value / len(minibatches)
        return UpdateResult(metrics=dict(totals), output_BT=seen)

    def _accumulate(
        self, minibatch: BatchT, loss: Callable[[TokenOutputs, BatchT], LossSum]
    ) -> tuple[Tensor, dict[str, float]]:
        """Forward and backward of all micro-batches; returns the outputs seen and the summed metrics."""
        self.optimizer.zero_grad(set_to_none=True)
        seen_BT = torch.zeros(minibatch.token_BT.shape)
        metrics: dict[str, float] = defaultdict(float)
        for rows in parts_of(minibatch, self.model, self.config.tokens_per_microbatch):
            part = take(minibatch, rows)
            outputs = self.model.outputs(part, entropy=self.entropy)
            result = loss(outputs, part)
            if not torch.isfinite(result.loss):
                raise TrainingError(
                    f"{self.role}: the loss is {result.loss.item()} at optimizer step {self.step + 1}, which was not taken. "
                    "Lower the learning rate, or use dtype float32"
                )
            result.loss.backward()
            seen_BT[rows, : part.token_BT.shape[1]] = outputs.output_BT.detach().cpu()
            metrics["loss"] += result.loss.item()
            for name, value in result.metrics.items():
                metrics[name] += float(value)
        return seen_BT, dict(metrics)

    def _optimizer_step(self) -> float:
        parameters = [p for _, p in self.parameters]
        limit = self.config.max_grad_norm or math.inf
        grad_norm = float(torch.nn.utils.clip_grad_norm_(parameters, limit))
        if not math.isfinite(grad_norm):
            raise TrainingError(
                f"{self.role}: the gradient norm is {grad_norm} at optimizer step {self.step + 1}, which was not taken. "
                "Lower the learning rate, or use dtype float32"
            )
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1
        return grad_norm

    @property
    def learning_rate(self) -> float:
        """The rate of the next optimizer step."""
        return self.config.learning_rate * learning_rate_factor(self.step, self.config, self.total_steps)

    def save(self, path: Path) -> None:
        """Write the model in Hugging Face form."""
        if self._save is None:
            raise ValueError(f"{self.role}: this learner was made without a way to save")
        self._save(path)

    def state_dict(self) -> Mapping[str, Any]:
        """Weights by name, optimizer state and step count. Not copies: write them before the next update."""
        return {
            "weights": {name: p.detach().cpu() for name, p in self.parameters},
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from `state_dict()`."""
        weights = state["weights"]
        with torch.no_grad():
            for name, parameter in self.parameters:
                parameter.copy_(weights[name])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step = state["step"]


def parts_of(batch: Batch, model: TokenModel, tokens_per_microbatch: int) -> Iterator[Tensor]:
    """Rows of the batch in micro-batches, as suits the model."""
    prompts = prompts_of(batch.token_BT, batch.response_mask_BT) if model.shares_prompts else None
    return microbatches(batch.length_B, tokens_per_microbatch, PADDING[model.device.type], prompts)


def forward_only(model: TokenModel, batch: Batch, tokens_per_microbatch: int, *, entropy: bool = False) -> TokenOutputs:
    """Outputs of a whole batch without gradient, in micro-batches, on the CPU."""
    output_BT = torch.zeros(batch.token_BT.shape)
    entropy_BT = torch.zeros(batch.token_BT.shape) if entropy else None
    with torch.no_grad():
        for rows in parts_of(batch, model, tokens_per_microbatch):
            part = take(batch, rows)
            outputs = model.outputs(part, entropy=entropy)
            width = part.token_BT.shape[1]
            output_BT[rows, :width] = outputs.output_BT.cpu()
            if entropy_BT is not None and outputs.entropy_BT is not None:
                entropy_BT[rows, :width] = outputs.entropy_BT.cpu()
    return TokenOutputs(output_BT=output_BT, entropy_BT=entropy_BT)
