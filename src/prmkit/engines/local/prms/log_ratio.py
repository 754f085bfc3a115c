"""Implicit PRM: beta times the log-ratio of two language models, summed over a step's tokens; and plain log-probs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, DynamicCache, PreTrainedTokenizerBase

from prmkit.data.chat import check_tokenizer
from prmkit.data.layouts import LaidOut, as_response
from prmkit.data.prm_spec import PRMSpec, base_folder
from prmkit.data.types import RewardKind, Solution
from prmkit.engines.local.architecture import all_positions_kept
from prmkit.engines.local.language_model import LanguageModel
from prmkit.engines.local.microbatches import PADDING, sharing_pays
from prmkit.engines.local.prms.prm import in_batches
from prmkit.engines.local.prms.reading import (
    check_prompt_form,
    check_speech,
    context_of,
    read_adapted,
    read_merged,
    read_tokenizer,
)
from prmkit.errors import ModelError
from prmkit.models.load import is_adapter
from prmkit.ops.scoring_logprobs import scoring_logprobs

Rewards = Callable[..., Tensor]
"""Tokens of a batch, its rows and, as `prompts`, what the models made of a prompt that was read before -> numbers."""


@dataclass(frozen=True, kw_only=True)
class LogRatioHead:
    """r_k = beta * sum over step k's tokens of log pi(token) - log pi_ref(token) (arXiv:2412.01981, eq. 3)."""

    policy: LanguageModel
    reference: LanguageModel | None
    """None: log pi alone."""
    tokenizer: PreTrainedTokenizerBase
    spec: PRMSpec
    kind: RewardKind = "log_ratio"

    @property
    def context(self) -> int | None:
        """The shorter of the two."""
        return min((limit for model in self.models if (limit := context_of(model.causal_lm))), default=None)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.policy.device

    def lay_out(self, solution: Solution) -> Sequence[LaidOut]:
        """As the policy itself would write it; steps without a text between them are joined by the spec's separator."""
        keeps = self.spec.keep_text and solution.separator is not None
        return (
            as_response(
                self.tokenizer, solution, separator=None if keeps else self.spec.separator, system=self.spec.system
            ),
        )

    @property
    def beta(self) -> float:
        """1 for plain log-probs."""
        return self.spec.beta if self.spec.family == "implicit" else 1.0

    def read(self, rows: Sequence[LaidOut], tokens_per_batch: int) -> list[list[float]]:
        """beta times each step's log-ratio. A prompt that several rows share is read once where that pays."""
        return self._read(rows, tokens_per_batch, _num_steps, self._step_rewards)

    def read_tokens(self, rows: Sequence[LaidOut], tokens_per_batch: int) -> list[tuple[list[float], list[float]]]:
        """beta times each step's log-ratio, and that of each response token."""
        read = self._read(rows, tokens_per_batch, _num_steps_and_tokens, self._all_rewards)
        return [(found[: _num_steps(row)], found[_num_steps(row) :]) for row, found in zip(rows, read, strict=True)]

    def _read(
        self, rows: Sequence[LaidOut], tokens_per_batch: int, count: Callable[[LaidOut], int], rewards: Rewards
    ) -> list[list[float]]:
        by_prompt: dict[tuple[int, ...], list[int]] = defaultdict(list)
        for i, row in enumerate(rows):
            by_prompt[row.token_ids[: row.prompt_length]].append(i)
        values: list[list[float]] = [[] for _ in rows]
        alone: list[int] = []
        for prompt, group in by_prompt.items():
            if not self._sharing_pays(len(prompt), len(group)):
                alone += group
                continue
            chosen = [rows[i] for i in group]
            read = in_batches(
                partial(rewards, prompts=self._read_prompt(prompt)),
                chosen,
                tokens_per_batch,
                self.device,
                skip=len(prompt),
                count=count,
            )
            for i, value in zip(group, read, strict=True):
                values[i] = value
        rest = in_batches(rewards, [rows[i] for i in alone], tokens_per_batch, self.device, count=count)
        for i, value in zip(alone, rest, strict=True):
            values[i] = value
        return values

    def _sharing_pays(self, prompt_length: int, num_rows: int) -> bool:
        """One more forward pass, and batches of one prompt only, cost about as much as two batches' padding may."""
        saved = (num_rows - 1) * prompt_length
        kept = all(all_positions_kept(model.causal_lm) for model in self.models)
        return kept and sharing_pays(saved, PADDING[self.device.type])

    @property
    def models(self) -> tuple[LanguageModel, ...]:
        """The policy, and the reference where there is one."""
        return (self.policy,) if self.reference is None else (self.policy, self.reference)

    def _read_prompt(self, token_ids: tuple[int, ...]) -> list[PromptStates]:
        with torch.inference_mode():
            return [read_prompt(model, token_ids) for model in self.models]

    def _all_rewards(
        self, token_BT: Tensor, rows: Sequence[LaidOut], prompts: Sequence[PromptStates] | None = None
    ) -> Tensor:
        """Row after row, beta times each step's log-ratio, then that of each response token."""
        ratio_N = self._ratios(token_BT, rows, prompts)
        steps = self._step_sums(ratio_N, rows).split([_num_steps(row) for row in rows])
        tokens = (self.beta * ratio_N.double()).split([len(row.step_of_token) for row in rows])
        return torch.cat([part for both in zip(steps, tokens, strict=True) for part in both])

    def _step_rewards(
        self, token_BT: Tensor, rows: Sequence[LaidOut], prompts: Sequence[PromptStates] | None = None
    ) -> Tensor:
        """beta times each step's log-ratio, row after row."""
        return self._step_sums(self._ratios(token_BT, rows, prompts), rows)

    def _ratios(self, token_BT: Tensor, rows: Sequence[LaidOut], prompts: Sequence[PromptStates] | None) -> Tensor:
        """log pi - log pi_ref of each response token; `token_BT` begins after the prompt where that has been read."""
        states = [None] * len(self.models) if prompts is None else prompts
        ratio_N = response_logprobs(self.policy, token_BT, rows, states[0])
        if self.reference is not None:
            ratio_N = ratio_N - response_logprobs(self.reference, token_BT, rows, states[1])
        return ratio_N

    def _step_sums(self, ratio_N: Tensor, rows: Sequence[LaidOut]) -> Tensor:
        """beta times the sum over each step's tokens, row after row."""
        step_N, first = [], 0
        for row in rows:
            step_N += [first + step for step in row.step_of_token]
            first += len(row.read_at)
        sum_K = torch.zeros(first, dtype=torch.float64, device=ratio_N.device)
        sum_K.index_add_(0, torch.tensor(step_N, device=ratio_N.device), ratio_N.double())
        return self.beta * sum_K


def _num_steps(row: LaidOut) -> int:
    return len(row.read_at)


def _num_steps_and_tokens(row: LaidOut) -> int:
    return len(row.read_at) + len(row.step_of_token)


@dataclass(frozen=True, kw_only=True)
class PromptStates:
    """What a model has made of one prompt: keys and values of each layer, and the last token's hidden state."""

    keys_values: tuple[tuple[Tensor, Tensor], ...]
    """Per layer, each (1, heads, prompt tokens, head size)."""
    last_1D: Tensor


def read_prompt(model: LanguageModel, token_ids: tuple[int, ...]) -> PromptStates:
    """Read a prompt once, so that several responses can go on from it."""
    cache = DynamicCache(config=model.causal_lm.config)
    with model.speaking():
        hidden_1TD = model.causal_lm.get_decoder()(
            input_ids=torch.tensor([token_ids], device=model.device), past_key_values=cache, use_cache=True
        ).last_hidden_state
    layers: list[Any] = cache.layers
    return PromptStates(
        keys_values=tuple((layer.keys, layer.values) for layer in layers), last_1D=hidden_1TD[:, -1].clone()
    )


def response_logprobs(
    model: LanguageModel,
    token_BT: Tensor,
    rows: Sequence[LaidOut],
    prompt: PromptStates | None = None,
) -> Tensor:
    """log pi of every response token, row after row; `token_BT` begins after the prompt where that has been read.

    Only hidden states that predict a response token meet the vocabulary, in blocks.
    """
    row_N = torch.tensor([i for i, row in enumerate(rows) for _ in row.step_of_token], device=token_BT.device)
    starts = [row.prompt_length if prompt is None else 0 for row in rows]
    spans = [range(start, start + len(row.step_of_token)) for start, row in zip(starts, rows, strict=True)]
    token_N = torch.tensor([at for span in spans for at in span], device=token_BT.device)
    with model.speaking():
        before_BTD = model.hidden_states(token_BT[:, :-1]) if prompt is None else _after(model, token_BT, prompt)
        head = model.causal_lm.get_output_embeddings()
        return scoring_logprobs(
            before_BTD[row_N, token_N - 1 if prompt is None else token_N],
            head.weight,
            token_BT[row_N, token_N],
            bias_V=head.bias,
            multiplier=model.logits_multiplier,
        )


def _after(model: LanguageModel, token_BT: Tensor, prompt: PromptStates) -> Tensor:
    """(B, T, D): the hidden state before each of the tokens that follow the prompt."""
    rows, width = token_BT.shape
    last_B1D = prompt.last_1D[:, None].expand(rows, 1, -1)
    if width == 1:
        return last_B1D
    cache = DynamicCache([(k.expand(rows, -1, -1, -1), v.expand(rows, -1, -1, -1)) for k, v in prompt.keys_values])
    hidden_BTD = model.causal_lm.get_decoder()(
        input_ids=token_BT[:, :-1], past_key_values=cache, use_cache=True
    ).last_hidden_state
    return torch.cat([last_B1D, hidden_BTD], dim=1)


def load_log_ratio(folder: Path, spec: PRMSpec, reference: str, dtype: torch.dtype) -> LogRatioHead:
    """Policy and reference. With `base`, or the base's own folder, one set of weights serves both."""
    tokenizer = read_tokenizer(folder)
    check_tokenizer(tokenizer, folder)
    check_prompt_form(tokenizer, spec, folder)
    where = reference_folder(folder, reference)
    if is_adapter(folder) and where is not None and where.resolve() == base_folder(folder).resolve():
        adapted = read_adapted(folder, AutoModelForCausalLM, dtype)
        policy = LanguageModel(model=adapted, adapter=adapted.active_adapter)
        frozen_reference: LanguageModel | None = LanguageModel(model=adapted, adapters_off=True)
    else:
        policy = LanguageModel(model=read_merged(folder, AutoModelForCausalLM, dtype))
        other = None if where is None else read_merged(where, AutoModelForCausalLM, dtype)
        frozen_reference = None if other is None else LanguageModel(model=other)
    for model, source in ((policy, folder), (frozen_reference, where)):
        if model is not None and source is not None:
            check_speech(model, tokenizer, source)
    return LogRatioHead(policy=policy, reference=frozen_reference, tokenizer=tokenizer, spec=spec)


def reference_folder(folder: Path, reference: str) -> Path | None:
    """Where the reference of the PRM in `folder` is; None for none. Raises ModelError where it is not there."""
    if not reference:
        return None
    if reference == "base":
        if not is_adapter(folder):
            raise ModelError(
                f'{folder}: reference = "base" needs an adapter, and these are whole weights; give the reference\'s folder'
            )
        return base_folder(folder)
    for where in (folder / reference, Path(reference)):
        if (where / "config.json").is_file() or is_adapter(where):
            return where
    raise ModelError(f"{folder}: its reference {reference} is no model folder; give the path of the reference")
