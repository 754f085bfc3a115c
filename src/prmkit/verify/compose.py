"""The verifiers that a run uses, put together: by data source, as a weighted mean, or one alone."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from fnmatch import fnmatchcase
from types import TracebackType
from typing import Any, Literal, Protocol, Self, cast

from prmkit.config import MathConfig, Use, VerifierConfig, VerifierPart
from prmkit.data.types import Prompt, Verdict, VerdictStatus
from prmkit.errors import ConfigError
from prmkit.verify.cache import CachedVerifier, behind, identity
from prmkit.verify.judge import JudgeVerifier
from prmkit.verify.math import Comparison, fast_verdict, load_math_verify
from prmkit.verify.pool import error_verdict
from prmkit.verify.pooled import PoolVerifier
from prmkit.verify.qa import QAVerifier
from prmkit.verify.user_function import FunctionVerifier, data_source

Responses = Sequence[tuple[Prompt, str]]

_AUTO: tuple[Use, ...] = ("math", "qa", "code")
"""What `use = "auto"` chooses from, by prompt."""

_WORST: tuple[VerdictStatus, ...] = ("error", "timeout", "unparsed")
"""Which status an undecided whole has, where its parts differ."""


class OpenVerifier(Protocol):
    """A verifier that is closed at the end."""

    def verify(self, responses: Responses) -> list[Verdict]:
        """One verdict per (prompt, response text), in order."""
        ...

    def close(self) -> None:
        """End what it started."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


_MATHS = MathConfig()


class MathVerifier(PoolVerifier):
    """Compares the final answer of a response with `Prompt.answer` as mathematics.

    What exact arithmetic can decide is decided in this process; anything else by math-verify in workers that are killed at
    the deadline. Equal comparisons within one call are made once.
    """

    def __init__(
        self,
        *,
        workers: int,
        timeout_s: float,
        options: MathConfig = _MATHS,
        recycle_after: int = 0,
        memory_mb: int = 0,
    ) -> None:
        """timeout_s: seconds for one answer."""
        super().__init__(
            load_math_verify, workers=workers, timeout_s=timeout_s, recycle_after=recycle_after, memory_mb=memory_mb
        )
        self._options = options

    def verify(self, responses: Responses) -> list[Verdict]:
        """One verdict per (prompt, response text), in order. Raises VerifierError when no worker can run at all."""
        found = [fast_verdict(prompt.answer, text, options=self._options) for prompt, text in responses]
        open_items = list(dict.fromkeys(item for item in found if isinstance(item, Comparison)))
        judged = dict(zip(open_items, self._pool.run(open_items), strict=True)) if open_items else {}
        return [judged[item] if isinstance(item, Comparison) else item for item in found]


@dataclass(frozen=True, kw_only=True)
class Part:
    """One verifier of several."""

    name: str
    verifier: OpenVerifier
    judges: Callable[[Prompt], bool]
    """Whether it judges the responses to this prompt."""
    weight: float = 1.0


class ComposedVerifier:
    """Several verifiers: each judges what it is for, and where several judge one response, the reward is their mean.

    reward = sum of weight_i * reward_i / sum of weight_i, over the parts that judge the response. Where a part is undecided
    the whole is undecided (`undecided="whole"`), or the mean is over the rest (`"rest"`); without any decided part it is
    undecided either way. A response that no part judges is an `error` that names its data source.
    """

    def __init__(self, parts: Sequence[Part], *, undecided: Literal["whole", "rest"] = "whole") -> None:
        self._parts, self._undecided = tuple(parts), undecided

    def verify(self, responses: Responses) -> list[Verdict]:
        """One verdict per (prompt, response text), in order; each part is asked once, for all that it judges."""
        found: list[list[tuple[Part, Verdict]]] = [[] for _ in responses]
        for part in self._parts:
            mine = [i for i, (prompt, _) in enumerate(responses) if part.judges(prompt)]
            verdicts = part.verifier.verify([responses[i] for i in mine]) if mine else []
            for i, verdict in zip(mine, verdicts, strict=True):
                found[i].append((part, verdict))
        return [self._whole(prompt, said) for (prompt, _), said in zip(responses, found, strict=True)]

    def check(self, prompts: Sequence[Prompt]) -> None:
        """Whether responses to these prompts could be judged, before any is sampled.

        Raises ConfigError for a prompt that no part is for, and for a part that cannot run here (no sandbox for programs).
        """
        for prompt in prompts:
            if not any(part.judges(prompt) for part in self._parts):
                raise ConfigError(_nobody(prompt))
        for part in self._parts:
            if isinstance(part.verifier, _Lazy) and any(map(part.judges, prompts)):
                part.verifier.make()

    def close(self) -> None:
        """Close every part."""
        with ExitStack() as stack:
            for part in self._parts:
                stack.callback(part.verifier.close)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _whole(self, prompt: Prompt, said: Sequence[tuple[Part, Verdict]]) -> Verdict:
        if not said:
            return error_verdict(_nobody(prompt))
        if len(said) == 1:
            return said[0][1]
        decided = [(part, verdict.reward) for part, verdict in said if verdict.reward is not None]
        undecided = [(part, verdict) for part, verdict in said if verdict.reward is None]
        if undecided and (self._undecided == "whole" or not decided):
            part, verdict = min(undecided, key=lambda pair: _WORST.index(pair[1].status))
            return Verdict(status=verdict.status, reward=None, detail=f"{part.name}: {verdict.detail}")
        total = sum(part.weight for part, _ in decided)
        reward = sum(part.weight / total * value for part, value in decided)
        detail = "; ".join(f"{part.name} {_shown(verdict)}" for part, verdict in said)
        return Verdict(status="ok", reward=min(1.0, max(0.0, reward)), detail=detail)


def make_verifier(config: VerifierConfig) -> OpenVerifier:
    """The configured verifier. Raises ConfigError for values that cannot run."""
    if config.parts:
        with ExitStack() as opened:
            parts = [_part(config, part, opened) for part in config.parts]
            opened.pop_all()
        return ComposedVerifier(parts, undecided=config.undecided)
    alone = _alone(config)
    if config.use == "auto" and not config.function:
        return ComposedVerifier([_named(config, alone, use) for use in _AUTO])
    return _verifier(config, alone)


def verifier_identity(config: VerifierConfig, prompts: Sequence[Prompt]) -> dict[str, dict[str, str]]:
    """What verdicts on these prompts depend on that the configuration does not say, by part: versions of packages, a function's
    source, a judge's template and model. prmkit's own version is left to the caller.

    Raises ConfigError and ModelError for a judge that cannot be set up, or whose model has to be asked for and cannot be told.
    """
    alone = _alone(config)
    auto = config.use == "auto" and not config.function
    wanted = {prompt.meta.get("verifier", "math") for prompt in prompts}
    parts = config.parts or ([replace(alone, use=use) for use in _AUTO if use in wanted] if auto else [alone])
    found: dict[str, dict[str, str]] = {}
    for index, part in enumerate(parts):
        named = behind(part.use, part.function)
        if part.use == "judge":
            judge = JudgeVerifier(part.judge)
            named |= {"template_sha256": hashlib.sha256(judge.template.encode()).hexdigest(), "model": judge.name}
        found[f"{index}.{part.use}" if config.parts else part.use] = named
    return found


def _alone(config: VerifierConfig) -> VerifierPart:
    """The one part of a configuration that names none."""
    return VerifierPart(
        use="function" if config.function else "math" if config.use == "auto" else config.use,
        function=config.function,
        signature=config.signature,
        function_range=config.function_range,
        math=config.math,
        qa=config.qa,
        code=config.code,
        judge=config.judge,
    )


def _nobody(prompt: Prompt) -> str:
    named = prompt.meta.get("verifier")
    wanted = f" and the verifier {named!r}" if named else ""
    return (
        f"no part of the verifier is for the data source {data_source(prompt)!r}{wanted} (prompt {prompt.id!r}); add one to "
        "verifier.parts, or a part without sources for all the rest"
    )


def _part(config: VerifierConfig, part: VerifierPart, opened: ExitStack) -> Part:
    verifier = _verifier(config, part)
    opened.callback(verifier.close)

    def judges(prompt: Prompt) -> bool:
        source = data_source(prompt)
        return not part.sources or any(fnmatchcase(source, pattern) for pattern in part.sources)

    return Part(name=part.function or part.use, verifier=verifier, judges=judges, weight=part.weight)


def _named(config: VerifierConfig, alone: VerifierPart, use: Use) -> Part:
    """What judges the prompts whose `verifier` is this one; `math` those that name none too."""
    part = replace(alone, use=use)
    verifier = _Lazy(lambda: _verifier(config, part)) if use == "code" else _verifier(config, part)
    return Part(name=use, verifier=verifier, judges=lambda prompt: prompt.meta.get("verifier", "math") == use)


class _Lazy(OpenVerifier):
    """Made when it is first needed: what it needs (a sandbox) may be missing where no prompt asks for it."""

    def __init__(self, make: Callable[[], OpenVerifier]) -> None:
        self._make, self._made = make, cast(OpenVerifier | None, None)
        self._lock = threading.Lock()

    def verify(self, responses: Responses) -> list[Verdict]:
        return self.make().verify(responses)

    def make(self) -> OpenVerifier:
        """The verifier itself. Raises ConfigError where it cannot run."""
        with self._lock:  # two threads would start two sandboxes, of which one is never closed
            if self._made is None:
                self._made = self._make()
            return self._made

    def close(self) -> None:
        if self._made is not None:
            self._made.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _verifier(config: VerifierConfig, part: VerifierPart) -> OpenVerifier:
    pool = {
        "workers": config.workers,
        "timeout_s": config.timeout_s,
        "recycle_after": config.recycle_after,
        "memory_mb": config.memory_mb,
    }
    settings: dict[str, Any] = {}
    inner: OpenVerifier
    match part.use:
        case "qa":
            return QAVerifier(part.qa)
        case "math":
            inner = MathVerifier(options=part.math, **cast(dict[str, Any], pool))
            settings = asdict(part.math)
        case "judge":
            inner = judge = JudgeVerifier(part.judge)
            settings = asdict(part.judge) | {"template": judge.template, "extra": part.judge.server.extra}
            settings["model"] = judge.name if config.cache else ""
            settings.pop("server")
        case "code":
            from prmkit.verify.code.verifier import code_verifier  # looks for a sandbox: only where one is needed

            inner, settings = code_verifier(part.code), asdict(part.code)
        case "function":
            inner = FunctionVerifier(
                part.function,
                signature=part.signature,
                value_range=part.function_range,
                **cast(dict[str, Any], pool),
            )
            settings = {"signature": part.signature, "range": part.function_range}
    if not config.cache:
        return inner
    named = part.use == "function"  # it sees the prompt's id, and may look something up by it
    return CachedVerifier(inner, config.cache, identity(part.use, settings, part.function), by_id=named)


def _shown(verdict: Verdict) -> str:
    return f"{verdict.reward:g}" if verdict.reward is not None else f"{verdict.status} ({verdict.detail})"
