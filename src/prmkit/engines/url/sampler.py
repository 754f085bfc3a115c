"""A sampler whose model answers over HTTP."""

from __future__ import annotations

import codecs
import hashlib
from collections.abc import Sequence
from typing import Any

from prmkit.config import ModelConfig
from prmkit.data.types import Group, Prompt, Rollout, SamplingParams
from prmkit.errors import SamplingError
from prmkit.models.chat_server import ChatServer, Failure, Reply, chat_messages

UNKNOWN_TOKEN = -1
"""Stands for each token of a response, since a server tells how many there are and not which."""


class URLSampler:
    """Asks a server for one response per request, so that each has its own seed, its own count of tokens and its own retries.

    A response that could not be had is a rollout with finish "error" and the reason in `failure`. Token ids are not known;
    log-probs are there if the server offers them (`server.extra = '{"logprobs": true}'`) and they fit the text.
    """

    remote = True
    """What is asked beside a question does not change its answer, so nothing has to be asked again."""

    def __init__(self, config: ModelConfig) -> None:
        """Raises ConfigError and ModelError as `ChatServer` does."""
        self.server = ChatServer(config.url, config.name, config.server)

    @property
    def name(self) -> str:
        """The model's name at the server."""
        return self.server.name

    def sample(self, prompts: Sequence[Prompt], *, n: int, params: SamplingParams, seed: int) -> list[Group[Rollout]]:
        """n rollouts for each prompt, in prompt order. Whether the same seed gives the same rollouts is up to the server.

        Raises ModelError for a server that is set up wrongly, SamplingError when it gave no response at all.
        """
        seeds = [_derived(seed, index) for index in range(len(prompts))]
        return self.sample_each(prompts, n=n, params=params, seeds=seeds)

    def sample_each(
        self, prompts: Sequence[Prompt], *, n: int, params: SamplingParams, seeds: Sequence[int]
    ) -> list[Group[Rollout]]:
        """As `sample`, each prompt with its own seed."""
        groups = self.try_each(prompts, n=n, params=params, seeds=seeds)
        rollouts = [rollout for group in groups for rollout in group.members]
        if rollouts and all(rollout.finish == "error" for rollout in rollouts):
            raise SamplingError(_nothing(self.server, len(rollouts), rollouts[0].failure))
        return groups

    def try_each(
        self, prompts: Sequence[Prompt], *, n: int, params: SamplingParams, seeds: Sequence[int]
    ) -> list[Group[Rollout]]:
        """As `sample_each`, also where the server answers and all of its answers are refusals: it may take other prompts.

        Raises SamplingError where nobody takes a connection.
        """
        requests = [
            _request(prompt, params, _derived(seed, k))
            for prompt, seed in zip(prompts, seeds, strict=True)
            for k in range(n)
        ]
        answers = self.server.ask_all(requests)
        lost = [answer for answer in answers if isinstance(answer, Failure) and answer.unreachable]
        if answers and len(lost) == len(answers):
            raise SamplingError(_nothing(self.server, len(answers), lost[0].reason))
        rollouts = iter(answers)
        return [
            Group(prompt=prompt, members=[_rollout(prompt.id, next(rollouts)) for _ in range(n)]) for prompt in prompts
        ]


def _nothing(server: ChatServer, num_requests: int, reason: str) -> str:
    return (
        f"{server.url} ({server.name}) gave no response to any of {num_requests} requests. The first: {reason}. Check that the "
        "server runs and takes these requests; model.server has the timeout and the number of attempts"
    )


def _request(prompt: Prompt, params: SamplingParams, seed: int) -> dict[str, Any]:
    return {
        "messages": chat_messages(prompt.messages),
        "n": 1,
        "temperature": params.temperature,
        "top_p": params.top_p,
        "max_tokens": params.max_tokens,
        "seed": seed,
        "stop": list(params.stop) or None,
    }


def _rollout(prompt_id: str, answer: Reply | Failure) -> Rollout:
    if isinstance(answer, Failure):
        return Rollout(
            prompt_id=prompt_id,
            prompt_token_ids=(),
            token_ids=(),
            logprobs=(),
            token_ends=(),
            text="",
            finish="error",
            failure=answer.reason,
        )
    ends = _token_ends(answer)
    return Rollout(
        prompt_id=prompt_id,
        prompt_token_ids=(),
        token_ids=(UNKNOWN_TOKEN,) * (answer.num_tokens or 0),
        logprobs=tuple(logprob for _, logprob in answer.tokens) if ends else (),
        token_ends=ends,
        text=answer.text,
        finish=answer.finish,
    )


def _token_ends(answer: Reply) -> tuple[int, ...]:
    """Characters that exist after each token; empty where the tokens do not spell the text (the server hides some of it)."""
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    text, ends = "", []
    for piece, _ in answer.tokens:
        text += decoder.decode(piece)
        ends.append(min(len(text), len(answer.text)))
    return tuple(ends) if text.startswith(answer.text) else ()


def _derived(seed: int, index: int) -> int:
    """31 bits, which every server takes."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{index}".encode()).digest()[:4], "big") >> 1
