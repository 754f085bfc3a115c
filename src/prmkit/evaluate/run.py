"""From a sampler and a verifier to accuracy, question by question; and what a number depends on."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import platform
import random
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import prmkit
from prmkit.data.types import Group, Prompt, Rollout, SamplingParams, Verdict
from prmkit.errors import CheckpointError, ConfigError, DataError, SamplingError, VerifierError
from prmkit.evaluate.accuracy import Accuracy, clustered, wilson
from prmkit.evaluate.responses import Question, Response, rewards
from prmkit.protocols import Sampler, Verifier

PACKAGE = Path(prmkit.__file__).parent
NOT_SAMPLED = "not sampled: "
"""Before the reason why the sampler failed, in a verdict's detail."""
JUDGING = ("math-verify", "sympy", "latex2sympy2-extended")
"""Packages that verdicts depend on."""

AnswerOf = Callable[[Prompt, str], str | None]
"""The final answer that a response gives to a prompt, as written: what votes are counted by."""


@runtime_checkable
class SeededSampler(Protocol):
    """A sampler that takes a seed for each prompt, so that many questions can share a call and keep their own luck."""

    def sample_each(
        self, prompts: Sequence[Prompt], *, n: int, params: SamplingParams, seeds: Sequence[int]
    ) -> list[Group[Rollout]]:
        """n rollouts for each prompt, in prompt order, each prompt with its own seed."""
        ...


@runtime_checkable
class TryingSampler(Protocol):
    """A sampler of which a call may fail as a whole because of its prompts, so that other prompts are worth trying."""

    def try_each(
        self, prompts: Sequence[Prompt], *, n: int, params: SamplingParams, seeds: Sequence[int]
    ) -> list[Group[Rollout]]:
        """As `SeededSampler.sample_each`; what could not be had is a rollout with finish "error", even if that is all."""
        ...


GIVE_UP_AFTER = 64
"""Questions without a single response, none before and none on record, that say that the server takes none of them."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluationResult:
    """The accuracy, and every response that it was counted from."""

    questions: tuple[Question, ...]
    accuracy: Accuracy


def evaluate_policy(
    sampler: Sampler,
    verifier: Verifier,
    prompts: Sequence[Prompt],
    *,
    samples: int,
    params: SamplingParams,
    seed: int,
    greedy: bool = True,
) -> Accuracy:
    """The accuracy alone, with all prompts in one call of the sampler: what a training run looks at on its way.

    Raises as `evaluate_questions` does.
    """
    _check(prompts, samples)
    began = time.perf_counter()
    sampled = sampler.sample(prompts, n=samples, params=params, seed=_seed(seed))
    best = sampler.sample(prompts, n=1, params=_greedy(params), seed=0) if greedy else []
    seconds = time.perf_counter() - began
    return accuracy_of(_judged(verifier, prompts, sampled, best), seconds)


def evaluate_questions(
    sampler: Sampler,
    verifier: Verifier,
    prompts: Sequence[Prompt],
    *,
    samples: int,
    params: SamplingParams,
    seed: int,
    greedy: bool,
    batch_size: int,
    answer_of: AnswerOf | None = None,
    done: Mapping[str, Question] | None = None,
    on_questions: Callable[[Sequence[Question]], None] = lambda questions: None,
) -> EvaluationResult:
    """Sample, and judge, `samples` responses and if asked one greedy response for each prompt.

    A question's seed follows from `seed` and its id, so neither its place nor what is asked beside it decides its luck.
    Questions in `done`, by id, are taken as they are. A batch of which some questions are missing is sampled as a whole
    where the sampler works in batches, since the rounding of a forward pass depends a little on what shares it: a run
    that goes on then gives what it would have given without the cut. `on_questions` is told of each batch's new questions.
    Raises DataError without prompts, ConfigError without samples, VerifierError when no response at all can be judged,
    SamplingError when there is none: a `TryingSampler` may fail on whole batches, which count as not sampled.
    """
    _check(prompts, samples)
    _check_ids(prompts)
    known = done or {}
    found = dict(known)
    seconds, answered = 0.0, _any_response(known.values())
    for start in range(0, len(prompts), batch_size):
        part = prompts[start : start + batch_size]
        missing = [prompt for prompt in part if prompt.id not in known]
        if missing:
            in_batches = isinstance(sampler, SeededSampler) and not getattr(sampler, "remote", False)
            asked = part if in_batches else missing
            began = time.perf_counter()
            sampled, best = _responses(sampler, asked, samples, params, seed, greedy)
            seconds += time.perf_counter() - began
            judged = _judged(verifier, asked, sampled, best, answer_of)
            found |= {question.prompt.id: question for question in judged if question.prompt.id not in known}
            answered = answered or _any_response(judged)
            if not answered and len(found) >= GIVE_UP_AFTER:
                break
        on_questions([found[prompt.id] for prompt in missing])
    if not answered:
        raise SamplingError(_nothing_sampled(list(found.values())))
    questions = [found[prompt.id] for prompt in prompts]
    new = [question for question in questions if question.prompt.id not in known]
    return EvaluationResult(questions=tuple(questions), accuracy=accuracy_of(questions, seconds, new))


def accuracy_of(questions: Sequence[Question], seconds: float, timed: Sequence[Question] | None = None) -> Accuracy:
    """The numbers of judged questions; the responses of `timed` (None: of all) took so many seconds to sample.

    Raises VerifierError when no sampled response could be judged: there is no accuracy then, not one of 0.
    """
    sampled = [member for question in questions for member in question.sampled]
    made = [member for member in sampled if member.finish != "error"]
    best = [question.greedy for question in questions if question.greedy is not None]
    by_question = [rewards(question.sampled) for question in questions]
    decided = [values for values in by_question if values]
    if not decided:
        raise VerifierError(_nothing_judged(questions))
    greedy = rewards(best)
    num_timed = sum(r.num_tokens for q in (questions if timed is None else timed) for r in (*q.sampled, q.greedy) if r)
    return Accuracy(
        sampled=clustered(decided),
        greedy=wilson(sum(greedy), len(greedy)) if greedy else None,
        undecided=len(sampled) + len(best) - sum(map(len, decided)) - len(greedy),
        undecided_questions=len(by_question) - len(decided),
        truncated_share=sum(member.finish == "length" for member in made) / len(made),
        mean_length=sum(member.num_tokens for member in made) / len(made),
        tokens_per_second=num_timed / max(seconds, 1e-9),  # a coarse clock may not have moved
    )


def write_result(path: Path, result: Mapping[str, Any]) -> None:
    """Write the JSON aside and rename it, so that the file is whole or not there. Raises CheckpointError if it cannot be."""
    text = json.dumps(result, indent=1, allow_nan=False) + "\n"
    aside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            aside.write_text(text, encoding="utf-8")
            aside.replace(path)
        finally:
            aside.unlink(missing_ok=True)
    except OSError as error:
        raise CheckpointError(
            f"{path}: the result could not be written: {error}. Free some space or set out to another path"
        ) from error


def versions(*, local: bool = True, verifier: Mapping[str, Mapping[str, str]] | None = None) -> dict[str, str]:
    """The versions that a number depends on.

    `local`: whether a model was loaded here, and not asked at a server. `verifier`: `verify.verifier_identity`, of whose
    packages the versions are named too.
    """
    model = {name: version(name) for name in ("torch", "transformers")} if local else {}
    judged = {name: value for part in (verifier or {}).values() for name, value in part.items() if name in JUDGING}
    return {"prmkit": prmkit.__version__, **model, "python": platform.python_version(), **judged}


def git_commit(package: Path = PACKAGE) -> str | None:
    """The commit of the code in that folder, with `-dirty` when tracked files in it differ; None outside a git checkout."""

    def git(*args: str) -> str | None:
        try:
            done = subprocess.run(["git", *args], cwd=package, capture_output=True, text=True, check=False)
        except FileNotFoundError:  # no git on this machine
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    # A virtual environment may lie inside another project's checkout: only a tracked file belongs to the commit.
    if not git("ls-files", "--error-unmatch", "__init__.py"):
        return None
    commit = git("rev-parse", "HEAD")
    changed = git("status", "--porcelain", "--untracked-files=no", "--", ".")
    return f"{commit}-dirty" if commit and changed else commit


def data_hash(prompts: Sequence[Prompt]) -> str:
    """SHA-256 of what was asked and what judges it, in order: ids, turns, references, task and meta (tests of programs)."""
    digest = hashlib.sha256()
    for prompt in prompts:
        turns = [[message.role, message.content] for message in prompt.messages]
        asked = [prompt.id, turns, prompt.answer, prompt.task, dict(prompt.meta)]
        digest.update(json.dumps(asked, sort_keys=True, default=str).encode() + b"\n")
    return digest.hexdigest()


def question_seed(seed: int, prompt_id: str) -> int:
    """The seed of one question's responses."""
    return random.Random(f"evaluate/{seed}/{prompt_id}").getrandbits(62)


def statuses(members: Iterable[Response]) -> dict[str, int]:
    """How often each verdict status came; a response that the sampler failed to make is `not_sampled`."""
    return dict(Counter(member.status for member in members))


def _seed(seed: int) -> int:
    return random.Random(f"evaluate/{seed}/0").getrandbits(62)


def _greedy(params: SamplingParams) -> SamplingParams:
    return dataclasses.replace(params, temperature=0.0, top_p=1.0)


def _check(prompts: Sequence[Prompt], samples: int) -> None:
    if not prompts:
        raise DataError("there are no test prompts to evaluate on; set task.test, or check task.limit")
    if samples < 1:
        raise ConfigError(f"samples = {samples}, but at least 1 response per prompt is needed; set samples = 4")


def _check_ids(prompts: Sequence[Prompt]) -> None:
    name, count = Counter(prompt.id for prompt in prompts).most_common(1)[0]
    if count > 1:
        raise DataError(f"{count} prompts have the id {name!r}; questions are told apart by it, so make ids unique")


def _responses(
    sampler: Sampler, prompts: Sequence[Prompt], n: int, params: SamplingParams, seed: int, greedy: bool
) -> tuple[list[Group[Rollout]], list[Group[Rollout]]]:
    """n samples and one greedy response for each prompt: a call each where the sampler takes a seed for each prompt."""
    seeds = [question_seed(seed, prompt.id) for prompt in prompts]
    if isinstance(sampler, TryingSampler):
        sampled = sampler.try_each(prompts, n=n, params=params, seeds=seeds)
        return sampled, sampler.try_each(prompts, n=1, params=_greedy(params), seeds=seeds) if greedy else []
    if isinstance(sampler, SeededSampler):
        sampled = sampler.sample_each(prompts, n=n, params=params, seeds=seeds)
        return sampled, sampler.sample_each(prompts, n=1, params=_greedy(params), seeds=seeds) if greedy else []
    sampled = [
        group
        for prompt, own in zip(prompts, seeds, strict=True)
        for group in sampler.sample([prompt], n=n, params=params, seed=own)
    ]
    return sampled, sampler.sample(prompts, n=1, params=_greedy(params), seed=0) if greedy else []


def _judged(
    verifier: Verifier,
    prompts: Sequence[Prompt],
    sampled: Sequence[Group[Rollout]],
    best: Sequence[Group[Rollout]],
    answer_of: AnswerOf | None = None,
) -> list[Question]:
    """The responses of one batch with their verdicts; all go to the verifier at once, so that its workers are busy."""
    rows = [[*group.members] for group in sampled]
    if best:
        rows = [[*row, *group.members] for row, group in zip(rows, best, strict=True)]
    asked = [
        (prompt, rollout.text)
        for prompt, row in zip(prompts, rows, strict=True)
        for rollout in row
        if rollout.finish != "error"
    ]
    answers = verifier.verify(asked)
    if len(answers) != len(asked):
        raise VerifierError(
            f"the verifier gave {len(answers)} verdicts for {len(asked)} responses; it must give one each"
        )
    verdicts = iter(answers)
    questions = []
    for prompt, row in zip(prompts, rows, strict=True):
        members = [
            Response(
                text=rollout.text,
                num_tokens=len(rollout.token_ids),
                finish=rollout.finish,
                verdict=_not_sampled(rollout) if rollout.finish == "error" else next(verdicts),
                answer=answer_of(prompt, rollout.text) if answer_of else None,
            )
            for rollout in row
        ]
        greedy = members.pop() if best else None
        questions.append(Question(prompt=prompt, sampled=tuple(members), greedy=greedy))
    return questions


def _not_sampled(rollout: Rollout) -> Verdict:
    return Verdict(status="error", reward=None, detail=f"{NOT_SAMPLED}{rollout.failure or 'the sampler failed'}")


def _any_response(questions: Iterable[Question]) -> bool:
    return any(r.finish != "error" for q in questions for r in (*q.sampled, q.greedy) if r is not None)


def _nothing_sampled(questions: Sequence[Question]) -> str:
    reason = questions[0].sampled[0].verdict.detail.removeprefix(NOT_SAMPLED)
    return (
        f"there is no response to any of {len(questions)} questions. The first: {reason}. Check that the server runs and takes "
        "these requests; model.server has the timeout and the number of attempts"
    )


def _nothing_judged(questions: Sequence[Question]) -> str:
    members = [member for question in questions for member in question.sampled]
    counts = ", ".join(f"{status} {count}" for status, count in sorted(statuses(members).items()))
    first = members[0]
    return (
        f"none of {len(members)} sampled responses could be judged ({counts}), so there is no accuracy. The first, of "
        f"prompt {questions[0].prompt.id!r}: {first.verdict.detail or first.finish}. Check the verifier, its "
        "timeout_s, and the form in which answers are asked for (task.format, template)"
    )
