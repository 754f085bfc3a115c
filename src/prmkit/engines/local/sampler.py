"""The local sampler: a prompt is read once for its whole group, and responses that have ended leave the batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from prmkit.data.chat import encode_prompt, end_token_ids, token_ends
from prmkit.data.types import Group, Prompt, Rollout, SamplingParams
from prmkit.engines.local.architecture import all_positions_kept
from prmkit.engines.local.cache import KeyValues, PlainKeyValues
from prmkit.engines.local.language_model import LanguageModel
from prmkit.engines.local.plain_decoder import PlainDecoder, is_plain
from prmkit.errors import SamplingError

LEAVING_SHARE = 0.25
"""Ended rows leave once they are this share of the batch: dropping them copies the cache, so not at every token."""

SPARE_TOKENS = 8
"""How many more tokens are looked at for a stop string than could hold it."""


class LocalSampler:
    """Samples from the policy's own weights: no copy, no version lag."""

    def __init__(
        self, model: LanguageModel, tokenizer: Any, *, max_rows: int = 512, version: Callable[[], int] = lambda: 0
    ) -> None:
        """`version` tells how often the policy has been updated; every rollout carries it."""
        self.model, self.tokenizer, self.max_rows, self.version = model, tokenizer, max_rows, version
        self.plain = is_plain(model) and all_positions_kept(model.causal_lm)
        """Whether decoding takes the short way (the results are the same)."""
        self.end_ids = frozenset(end_token_ids(model.causal_lm, tokenizer))
        self.special_texts = frozenset(t.content for t in tokenizer.added_tokens_decoder.values() if t.special)

    def sample(self, prompts: Sequence[Prompt], *, n: int, params: SamplingParams, seed: int) -> list[Group[Rollout]]:
        """n rollouts for each prompt, in prompt order; the same weights, prompts and seed give the same rollouts.

        Raises SamplingError for a prompt that does not fit the context, before anything is sampled.
        """
        # A generator for each prompt, so that a row's luck depends neither on other prompts nor on max_rows.
        seeds = torch.randint(2**62, (len(prompts),), generator=torch.Generator().manual_seed(seed)).tolist()
        return self.sample_each(prompts, n=n, params=params, seeds=seeds)

    def sample_each(
        self, prompts: Sequence[Prompt], *, n: int, params: SamplingParams, seeds: Sequence[int]
    ) -> list[Group[Rollout]]:
        """As `sample`, with a seed for each prompt: a prompt's luck is then the same in whatever company it is asked."""
        encoded = [self._encode(prompt, params) for prompt in prompts]
        groups = []
        per_call = max(1, self.max_rows // n)
        with torch.inference_mode(), _evaluating(self.model.model):
            decoder = PlainDecoder(self.model) if self.plain else None
            for start in range(0, len(prompts), per_call):
                part = range(start, min(start + per_call, len(prompts)))
                uniform_RT = torch.cat([_uniform(n, params.max_tokens, seeds[i]) for i in part])
                tokens, logprobs = self._decode([encoded[i] for i in part], n, params, uniform_RT, decoder)
                for i in part:
                    rows = range((i - start) * n, (i - start + 1) * n)
                    members = [self._rollout(prompts[i].id, encoded[i], tokens[r], logprobs[r], params) for r in rows]
                    groups.append(Group(prompt=prompts[i], members=members))
        return groups

    def check(self, prompts: Sequence[Prompt], params: SamplingParams) -> None:
        """Raises SamplingError for the first prompt that does not fit, so that a run need not fail in its middle."""
        for prompt in prompts:
            self._encode(prompt, params)

    def _encode(self, prompt: Prompt, params: SamplingParams) -> tuple[int, ...]:
        ids = encode_prompt(self.tokenizer, prompt)
        context = self.model.causal_lm.config.max_position_embeddings
        if len(ids) + params.max_tokens > context:
            raise SamplingError(
                f"prompt {prompt.id!r} has {len(ids)} tokens; with max_tokens = {params.max_tokens} it exceeds the model's "
                f"context of {context}. Drop the prompt or lower max_tokens"
            )
        return ids

    def _decode(
        self,
        prompts: Sequence[tuple[int, ...]],
        n: int,
        params: SamplingParams,
        uniform_RT: Tensor,
        decoder: PlainDecoder | None,
    ) -> tuple[list[list[int]], list[list[float]]]:
        """Token ids and log-probs of all responses; row r belongs to prompt r // n. `uniform_RT`: its luck at each token."""
        num_rows = len(prompts) * n
        tokens: list[list[int]] = [[] for _ in range(num_rows)]
        logprobs: list[list[float]] = [[] for _ in range(num_rows)]
        past: KeyValues | PlainKeyValues
        with self.model.speaking():
            past = KeyValues(self.model, prompts)
        if decoder is not None:
            past = PlainKeyValues(decoder, past)
        past.keep(torch.arange(len(prompts)).repeat_interleave(n))
        active = list(range(num_rows))
        ended = [False] * num_rows
        for position in range(params.max_tokens):
            uniform_B = uniform_RT[active, position]
            token_B, logp_B = draw(past.logits_BV, uniform_B.to(self.model.device), params)
            for row, token, logp in zip(active, token_B.tolist(), logp_B.tolist(), strict=True):
                if not ended[row]:
                    tokens[row].append(token)
                    logprobs[row].append(logp)
                    ended[row] = self._has_ended(tokens[row], params)
            alive = [k for k, row in enumerate(active) if not ended[row]]
            if not alive or position + 1 == params.max_tokens:
                break
            if len(active) - len(alive) >= LEAVING_SHARE * len(active):
                keep = torch.tensor(alive, device=self.model.device)
                past.keep(keep)
                active, token_B = [active[k] for k in alive], token_B[keep]
            if decoder is None:
                with self.model.speaking():
                    past.append(token_B)
            else:
                past.append(token_B)
        return tokens, logprobs

    def _has_ended(self, token_ids: list[int], params: SamplingParams) -> bool:
        return token_ids[-1] in self.end_ids or bool(params.stop and self._stopped(token_ids, params))

    def _stopped(self, token_ids: list[int], params: SamplingParams) -> bool:
        # A stop string of k bytes lies inside the last k tokens: a token may be less than a character, but not than a byte.
        # More to be safe, for special tokens that have no text and for a character that the window cuts.
        window = token_ids[-SPARE_TOKENS - 2 * max(len(stop.encode()) for stop in params.stop) :]
        tail = self._text(window, skip_special_tokens=True)
        return any(
            stop in (self._text(window, skip_special_tokens=False) if self._names_special(stop) else tail)
            for stop in params.stop
        )

    def _text(self, token_ids: list[int], *, skip_special_tokens: bool) -> str:
        text: str = self.tokenizer.decode(
            token_ids, skip_special_tokens=skip_special_tokens, clean_up_tokenization_spaces=False
        )
        return text

    def _names_special(self, stop: str) -> bool:
        """Whether the stop string holds a special token, which the text of a response leaves out."""
        return any(special in stop for special in self.special_texts)

    def _rollout(
        self,
        prompt_id: str,
        prompt_token_ids: tuple[int, ...],
        token_ids: list[int],
        logprobs: list[float],
        params: SamplingParams,
    ) -> Rollout:
        text, ends = token_ends(self.tokenizer, token_ids)
        return Rollout(
            prompt_id=prompt_id,
            prompt_token_ids=prompt_token_ids,
            token_ids=tuple(token_ids),
            logprobs=tuple(logprobs),
            token_ends=tuple(ends),
            text=text,
            finish="stop" if self._has_ended(token_ids, params) else "length",
            policy_version=self.version(),
        )


def _uniform(num_rows: int, max_tokens: int, seed: int) -> Tensor:
    return torch.rand(num_rows, max_tokens, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@contextmanager
def _evaluating(model: torch.nn.Module) -> Iterator[None]:
    """In train mode, gradient checkpointing would drop the cache."""
    training = model.training
    model.train(False)
    try:
        yield
    finally:
        model.train(training)


def draw(logits_BV: Tensor, uniform_B: Tensor, params: SamplingParams) -> tuple[Tensor, Tensor]:
    """A token for each row by inverting the cumulative distribution at `uniform_B`, and its behaviour log-prob.

    The log-prob is of the whole distribution at the temperature (at 1.0 when greedy): top-p cuts what can be drawn, not
    what the policy is. Float32 log-probs.
    """
    logits_BV = logits_BV.float()
    if params.temperature == 0:
        p_BV = logits_BV.softmax(-1)
        token_B = logits_BV.argmax(-1)
    else:
        scaled_BV = logits_BV if params.temperature == 1 else logits_BV / params.temperature
        p_BV = scaled_BV.softmax(-1)
        drawn_BV = nucleus(p_BV, params.top_p) if params.top_p < 1 else p_BV
        cumulative_BV = drawn_BV.cumsum(-1, dtype=torch.float64)
        # Strictly below the total, so that rounding never picks a token of probability 0.
        target_B = uniform_B * cumulative_BV[:, -1]
        token_B = (
            torch.searchsorted(cumulative_BV, target_B[:, None], right=True).squeeze(-1).clamp(max=p_BV.shape[-1] - 1)
        )
    return token_B, p_BV.gather(-1, token_B[:, None]).squeeze(-1).log()


def nucleus(p_BV: Tensor, top_p: float) -> Tensor:
    """Probabilities with everything outside the smallest set of mass >= top_p set to 0 (Holtzman et al., 2020)."""
    sorted_BV, index_BV = p_BV.sort(-1, descending=True)
    before_BV = sorted_BV.cumsum(-1) - sorted_BV
    kept_BV = torch.where(before_BV < top_p, sorted_BV, torch.zeros_like(sorted_BV))
    return torch.zeros_like(p_BV).scatter(-1, index_BV, kept_BV)
