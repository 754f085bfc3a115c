"""The values that flow through prmkit. Plain, frozen, without torch.

prompts -> rollouts -> verdicts -> kept groups -> batch -> process rewards -> advantages -> update
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, TypeVar

T = TypeVar("T")

FinishReason = Literal["stop", "length", "error"]
VerdictStatus = Literal["ok", "unparsed", "timeout", "error"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Message:
    """One chat turn."""

    role: Literal["system", "user", "assistant"]
    content: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Prompt:
    """What is asked, and what verifies the answer."""

    id: str
    messages: tuple[Message, ...]
    answer: str
    """The reference answer that the task's verifier compares with."""
    task: str = "math"
    meta: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class Rollout:
    """One sampled response. Its tokens are the tokens that are trained: nothing re-tokenises its text."""

    prompt_id: str
    prompt_token_ids: tuple[int, ...]
    token_ids: tuple[int, ...]
    """The response, the end token included when there is one."""
    logprobs: tuple[float, ...]
    """Behaviour log-probs: log pi(token | before) at the sampling temperature, before any top-p cut."""
    token_ends: tuple[int, ...]
    """For each token, the number of characters of `text` that exist once it is decoded (non-decreasing)."""
    text: str
    finish: FinishReason
    """`stop`: ended by itself; `length`: cut at max_tokens (truncated); `error`: the sampler failed."""
    policy_version: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """What the verifier says of one response. A failure is never a reward of 0.

    status `ok`: decided, `reward` in [0, 1]. Otherwise `reward` is None: `unparsed` (an answer is there but cannot be
    read), `timeout` (the deadline killed it), `error` (the verifier broke); `detail` says why.
    """

    status: VerdictStatus
    reward: float | None
    detail: str = ""

    def __post_init__(self) -> None:
        if (self.status == "ok") != (self.reward is not None):
            raise ValueError(f"a verdict has a reward exactly when its status is ok, got {self.status}, {self.reward}")
        if self.reward is not None and not 0.0 <= self.reward <= 1.0:  # False for NaN too
            raise ValueError(f"a verdict's reward lies in [0, 1], got {self.reward}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Verified:
    """A rollout with its verdict."""

    rollout: Rollout
    verdict: Verdict


@dataclass(frozen=True, kw_only=True, slots=True)
class Group(Generic[T]):
    """Siblings: what was sampled for one prompt. The unit of baselines."""

    prompt: Prompt
    members: Sequence[T]


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """A span of characters [start, end) of a response. Every character is in exactly one step."""

    start: int
    end: int


@dataclass(frozen=True, kw_only=True, slots=True)
class SamplingParams:
    """How to sample."""

    temperature: float = 1.0
    """0 means greedy. PRIME samples at 1.0 (released script, `rollout` block)."""
    top_p: float = 1.0
    max_tokens: int = 64
    stop: tuple[str, ...] = ()
    """Strings that end a response; the response keeps the string."""

    def __post_init__(self) -> None:
        if self.temperature < 0:
            raise ValueError(f"temperature must be >= 0 (0 = greedy), got {self.temperature}")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p must be in (0, 1], got {self.top_p}")
        if self.max_tokens < 1:
            raise ValueError(f"max_tokens must be at least 1, got {self.max_tokens}")
