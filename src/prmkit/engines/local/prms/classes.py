"""Classes of right and wrong at the separator after each step: TRL's token classifiers, and Qwen2.5-Math-PRM."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForTokenClassification, PreTrainedTokenizerBase

from prmkit.data.layouts import LaidOut
from prmkit.data.prm_spec import PRMSpec
from prmkit.data.types import RewardKind, Solution
from prmkit.engines.local.prms.prm import in_batches, read_positions, separated_by
from prmkit.engines.local.prms.process_reward import Qwen2ForProcessRewardModel
from prmkit.engines.local.prms.reading import (
    check_prompt_form,
    check_separator,
    check_vocabulary,
    configuration,
    context_of,
    one_token,
    read_merged,
    read_tokenizer,
    read_weights,
)
from prmkit.errors import ModelError

NAMES = {
    "right": ("right", "correct", "positive", "good", "true", "yes", "+", "1"),
    "wrong": ("wrong", "incorrect", "negative", "bad", "false", "no", "-", "0", "error"),
    "neutral": ("neutral",),
}
"""What class names mean, in lower case."""


@dataclass(frozen=True, kw_only=True)
class ClassHead:
    """P(right) = softmax over the classes at the separator's last token; P(neutral) is added where the spec says so."""

    model: Any
    """A token classifier: logits of every class at every token."""
    tokenizer: PreTrainedTokenizerBase
    spec: PRMSpec
    right: tuple[int, ...]
    """Classes whose probabilities add up to the reward."""
    kind: RewardKind = "probability"

    @property
    def context(self) -> int | None:
        """The body's."""
        return context_of(self.model)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        device: torch.device = next(self.model.parameters()).device
        return device

    def lay_out(self, solution: Solution) -> Sequence[LaidOut]:
        """TRL's layout."""
        return (separated_by(self.tokenizer, solution, self.spec),)

    def read(self, rows: Sequence[LaidOut], tokens_per_batch: int) -> list[list[float]]:
        """The reward of each step."""
        return in_batches(self.rewards, rows, tokens_per_batch, self.device)

    def rewards(self, token_BT: Tensor, rows: Sequence[LaidOut]) -> Tensor:
        """P(right) at each separator."""
        p_NC = self._logits(token_BT, rows).float().softmax(-1)
        return p_NC[:, list(self.right)].sum(-1)

    def _logits(self, token_BT: Tensor, rows: Sequence[LaidOut]) -> Tensor:
        at = read_positions(rows, token_BT.device)
        if isinstance(self.model, Qwen2ForProcessRewardModel):
            hidden_BTD = self.model.model(input_ids=token_BT, use_cache=False).last_hidden_state
            at_NC: Tensor = self.model.score(hidden_BTD[at])
            return at_NC
        length_B = torch.tensor([len(row.token_ids) for row in rows], device=token_BT.device)
        # a classifier's body may look both ways, so padding is masked
        mask_BT = (torch.arange(token_BT.shape[1], device=token_BT.device) < length_B[:, None]).long()
        logits_NC: Tensor = self.model(input_ids=token_BT, attention_mask=mask_BT).logits[at]
        return logits_NC


def load_classes(folder: Path, spec: PRMSpec, dtype: torch.dtype) -> ClassHead:
    """The classifier in a folder, or the adapter of one. Of Qwen2.5-Math-PRM's architecture, our own small module."""
    tokenizer = read_tokenizer(folder)
    check_prompt_form(tokenizer, spec, folder)
    if "Qwen2ForProcessRewardModel" in configuration(folder).get("architectures", ()):
        model = read_weights(folder, Qwen2ForProcessRewardModel, dtype)
        right: tuple[int, ...] = (1,)
    else:
        settings: dict[str, Any] = {"num_labels": len(spec.labels)} if spec.labels else {}
        model = read_merged(folder, AutoModelForTokenClassification, dtype, **settings)
        right = right_classes(model.config.id2label, spec, folder)
    check_vocabulary(tokenizer, model, folder)
    if spec.family == "process_reward":
        one_token(tokenizer, spec.separator, "the step tag", folder)
    check_separator(tokenizer, spec.separator, folder)
    return ClassHead(model=model, tokenizer=tokenizer, spec=spec, right=right)


def right_classes(id2label: Mapping[int, str], spec: PRMSpec, folder: Path) -> tuple[int, ...]:
    """Which of the head's outputs count for right: by the spec's labels, else by the configuration's id2label.

    Two classes without names are wrong and right, in this order: TRL trains on int(label). Raises ModelError for any other
    head whose order is not told.
    """
    meant = class_senses(list(spec.labels) or [str(id2label[i]) for i in range(len(id2label))], folder)
    counted = ("right", "neutral") if spec.neutral_is_right else ("right",)
    return tuple(i for i, sense in enumerate(meant) if sense in counted)


def class_senses(names: Sequence[str], folder: Path) -> tuple[str, ...]:
    """wrong, right or neutral for each of a head's outputs, from their names. Raises ModelError as `right_classes`."""
    if list(names) == ["LABEL_0", "LABEL_1"]:
        return ("wrong", "right")
    meant = [next((sense for sense, words in NAMES.items() if name.lower() in words), "") for name in names]
    expected = ["right", "wrong"] if len(names) == 2 else ["neutral", "right", "wrong"]
    if sorted(meant) != expected:
        raise ModelError(
            f"{folder}: which of the head's {len(names)} classes {list(names)} means right is not told; set id2label in "
            'config.json, or give spec with labels in the order of the head, such as ("wrong", "neutral", "right")'
        )
    return tuple(meant)
