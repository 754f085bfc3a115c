"""The values that flow through prmkit. Plain, frozen, without torch.

prompts -> rollouts -> verdicts -> kept groups -> batch -> process rewards -> advantages -> update
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any, Generic, Literal, TypeVar

from prmkit.data.labels import is_right

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
    failure: str = ""
    """Why the sampler failed; empty unless finish is `error`."""


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
        if not 0 <= self.temperature < math.inf:  # False for NaN too
            raise ValueError(f"temperature must be >= 0 (0 = greedy) and finite, got {self.temperature}")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p must be in (0, 1], got {self.top_p}")
        if not 1 <= self.max_tokens < math.inf:
            raise ValueError(f"max_tokens must be at least 1 and finite, got {self.max_tokens}")
        if "" in self.stop:
            raise ValueError(f"stop has an empty string, which every text holds, got {list(self.stop)}; leave it out")


StepLabel = float | Literal["neutral"] | None
"""What is known of one step: how right it is, in [0, 1] (1 right, 0 wrong, between: soft), neutral (valid, no progress), or
None: not labelled."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Solution:
    """A response cut into steps, with what is known of them: the row of PRM data, and what a PRM scores.

    The response's text is the steps joined by `separator`; steps hold no separator themselves. Where the steps came as a list,
    what the response had between them is not known.
    """

    id: str
    prompt: Prompt
    steps: tuple[str, ...]
    separator: str | None = None
    """Text between the steps; None where that is not known."""
    labels: tuple[StepLabel, ...] | None = None
    """One per step; None where no step is labelled."""
    outcome: float | None = None
    """Whether the final answer is right, in [0, 1]; None if that is not known."""
    answer: str | None = None
    """The final answer of this response, where it has been extracted."""
    language: str = ""
    """ISO 639-1 code where the data names one."""
    meta: Mapping[str, Any] = field(default_factory=dict)
    """What else the row said; kept through conversions where the format has room."""

    def __post_init__(self) -> None:
        if not self.steps:
            raise ValueError(f"solution {self.id!r} has no steps")
        if any(not step.strip() for step in self.steps):
            blank = next(i for i, step in enumerate(self.steps) if not step.strip())
            raise ValueError(f"solution {self.id!r}: step {blank + 1} of {len(self.steps)} is empty")
        if self.labels is not None and len(self.labels) != len(self.steps):
            raise ValueError(f"solution {self.id!r} has {len(self.labels)} labels for {len(self.steps)} steps")
        for k, label in enumerate(self.labels or ()):
            if isinstance(label, bool) or not (label in (None, "neutral") or _in_unit(label)):
                raise ValueError(
                    f"solution {self.id!r}: the label of step {k + 1} is {label!r}; it must lie in [0, 1], or be neutral or null"
                )
        if self.outcome is not None and not _in_unit(self.outcome):
            raise ValueError(f"solution {self.id!r}: the outcome is {self.outcome!r}; it must lie in [0, 1]")

    @property
    def text(self) -> str:
        """The whole response, its steps joined by `between`."""
        return self.between.join(self.steps)

    @property
    def between(self) -> str:
        """The separator; a blank line where that is not known."""
        return "\n\n" if self.separator is None else self.separator

    @property
    def first_error(self) -> int | None:
        """Index of the first step labelled wrong (see `labels.is_right`; neutral is no error); None if there is none."""
        labels = self.labels or ()
        return next((k for k, v in enumerate(labels) if isinstance(v, (int, float)) and not is_right(v)), None)


@dataclass(frozen=True, kw_only=True, slots=True)
class Pair:
    """A preferred and a refused response to one prompt."""

    chosen: Solution
    rejected: Solution


RewardKind = Literal["probability", "logit", "log_ratio"]
"""`probability`: P(step is right) in [0, 1]; `logit`: a real number whose sigmoid is one; `log_ratio`: beta times the sum over
the step's tokens of log(pi / pi_ref), or of log pi, in nats."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenRewards:
    """Rewards of the single tokens of a response, the end token last. Those of a step's tokens sum to the step's reward."""

    values: tuple[float, ...]
    """beta * (log pi - log pi_ref) of each token, or its log pi, in nats."""
    texts: tuple[str, ...]
    """The characters that each token completes; joined they are the response as it was read. Empty for the end token, and for
    all but the last token of a character whose bytes span several."""
    ends: tuple[int, ...]
    """For each token, the number of characters of the response that exist once it is decoded (non-decreasing)."""
    step_of_token: tuple[int, ...]
    """The step that each token belongs to, from 0."""

    def __post_init__(self) -> None:
        counts = {len(self.values), len(self.texts), len(self.ends), len(self.step_of_token)}
        if len(counts) != 1:
            raise ValueError(f"token rewards need one value, text, end and step for each token, got {sorted(counts)}")
        bad = [i for i, value in enumerate(self.values) if not math.isfinite(value)]
        if bad:
            raise ValueError(f"the reward of token {bad[0] + 1} is {self.values[bad[0]]}; a reward is finite")


@dataclass(frozen=True, kw_only=True, slots=True)
class StepRewards:
    """What a PRM says of one solution: one finite number per step."""

    values: tuple[float, ...]
    kind: RewardKind
    tokens: TokenRewards | None = None
    """What the steps' rewards are the sums of; None unless it was asked for, of a family that has it."""

    def __post_init__(self) -> None:
        if not self.values:
            raise ValueError("step rewards need at least one step")
        bad = [k for k, value in enumerate(self.values) if not math.isfinite(value)]
        if bad:
            raise ValueError(f"the reward of step {bad[0] + 1} is {self.values[bad[0]]}; a reward is finite")

    @property
    def cumulative(self) -> tuple[float, ...]:
        """Prefix sums q_1..q_K: the value of each prefix where rewards are log-ratios (arXiv:2412.01981, Prop. 3.1)."""
        return tuple(accumulate(self.values))


def _in_unit(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0.0 <= value <= 1.0
