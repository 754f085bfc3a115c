"""From a sampler and a verifier to accuracy, and the file that says what made the number."""

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
from typing import Any

import prmkit
from prmkit.data.types import Group, Prompt, Rollout, SamplingParams, Verified
from prmkit.errors import CheckpointError, ConfigError, DataError, VerifierError
from prmkit.evaluate.accuracy import CONFIDENCE, Accuracy, Interval, clustered, pass_at_k, wilson
from prmkit.evaluate.config import EvalConfig
from prmkit.protocols import Sampler, Verifier

PACKAGE = Path(prmkit.__file__).parent


@dataclasses.dataclass(frozen=True, kw_only=True)
class Question:
    """One test prompt with its judged responses."""

    prompt: Prompt
    sampled: tuple[Verified, ...]
    greedy: Verified | None
    """None when no greedy response was asked for."""


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
    """`evaluate_questions`, the accuracy alone, with all prompts in one call of the sampler."""
    result = evaluate_questions(
        sampler, verifier, prompts, samples=samples, params=params, seed=seed, greedy=greedy, batch_size=len(prompts)
    )
    return result.accuracy


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
    after_batch: Callable[[int], None] = lambda num_done: None,
) -> EvaluationResult:
    """Sample, and judge, `samples` responses and if asked one greedy response for each prompt.

    The same sampler, prompts, seed and batch size give the same responses. `after_batch` is told how many prompts are done.
    Raises DataError without prompts, ConfigError without samples, VerifierError when no response at all can be judged.
    """
    if not prompts:
        raise DataError("there are no test prompts to evaluate on; set task.test, or check task.limit")
    if samples < 1:
        raise ConfigError(f"samples = {samples}, but at least 1 response per prompt is needed; set samples = 4")
    greedy_params = dataclasses.replace(params, temperature=0.0, top_p=1.0)
    questions: list[Question] = []
    seconds = 0.0
    for start in range(0, len(prompts), batch_size):
        part = prompts[start : start + batch_size]
        began = time.perf_counter()
        sampled = sampler.sample(part, n=samples, params=params, seed=_seed(seed, start))
        best = sampler.sample(part, n=1, params=greedy_params, seed=0) if greedy else []
        seconds += time.perf_counter() - began
        questions += _judged(verifier, part, sampled, best)
        after_batch(len(questions))
    return EvaluationResult(questions=tuple(questions), accuracy=accuracy_of(questions, seconds))


def accuracy_of(questions: Sequence[Question], seconds: float) -> Accuracy:
    """The numbers of judged questions whose responses took so many seconds to sample.

    Raises VerifierError when no sampled response could be judged: there is no accuracy then, not one of 0.
    """
    sampled = [member for question in questions for member in question.sampled]
    best = [question.greedy for question in questions if question.greedy is not None]
    by_question = [_rewards(question.sampled) for question in questions]
    decided = [values for values in by_question if values]
    if not decided:
        raise VerifierError(_nothing_judged(sampled))
    greedy = _rewards(best)
    num_tokens = sum(len(member.rollout.token_ids) for member in sampled)
    num_greedy_tokens = sum(len(member.rollout.token_ids) for member in best)
    return Accuracy(
        sampled=clustered(decided),
        greedy=wilson(sum(greedy), len(greedy)) if greedy else None,
        undecided=len(sampled) + len(best) - sum(map(len, decided)) - len(greedy),
        undecided_questions=len(by_question) - len(decided),
        truncated_share=sum(member.rollout.finish == "length" for member in sampled) / len(sampled),
        mean_length=num_tokens / len(sampled),
        tokens_per_second=(num_tokens + num_greedy_tokens) / max(seconds, 1e-9),  # a coarse clock may not have moved
    )


def pass_at(questions: Sequence[Question], k: int) -> Interval | None:
    """pass@k over the questions with at least k judged samples; right is a reward of 1. None where there are none."""
    rewards = [_rewards(question.sampled) for question in questions]
    values = [[pass_at_k(len(row), sum(r == 1 for r in row), k)] for row in rewards if len(row) >= k]
    return clustered(values) if values else None


def result_json(config: EvalConfig, result: EvaluationResult, prompt_template: str) -> dict[str, Any]:
    """Everything that made the number, as JSON values. `prompt_template` is the tokenizer's chat template."""
    questions = result.questions
    accuracy = dataclasses.asdict(result.accuracy)
    powers = [k for k in (2**i for i in range(config.samples.bit_length())) if k <= config.samples]
    passes = {str(k): pass_at(questions, k) for k in powers}
    return {
        "accuracy": accuracy,
        "confidence": CONFIDENCE,
        "pass_at_k": {k: dataclasses.asdict(found) for k, found in passes.items() if found is not None},
        "verdicts": {
            "sampled": _statuses(member for question in questions for member in question.sampled),
            "greedy": _statuses(question.greedy for question in questions if question.greedy is not None),
        },
        "num_questions": len(questions),
        "seed": config.seed,
        "config": dataclasses.asdict(config),
        "versions": versions(),
        "commit": git_commit(),
        "data_sha256": data_hash([question.prompt for question in questions]),
        "prompt_template_sha256": hashlib.sha256(prompt_template.encode()).hexdigest(),
        "questions": [_question_json(question) for question in questions],
    }


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


def versions() -> dict[str, str]:
    """The versions that a number depends on."""
    return {
        "prmkit": prmkit.__version__,
        "torch": version("torch"),
        "transformers": version("transformers"),
        "python": platform.python_version(),
    }


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
    """SHA-256 of what was asked, in order: ids, messages and reference answers."""
    digest = hashlib.sha256()
    for prompt in prompts:
        turns = [[message.role, message.content] for message in prompt.messages]
        digest.update(json.dumps([prompt.id, turns, prompt.answer]).encode() + b"\n")
    return digest.hexdigest()


def _seed(seed: int, start: int) -> int:
    return random.Random(f"evaluate/{seed}/{start}").getrandbits(62)


def _judged(
    verifier: Verifier, prompts: Sequence[Prompt], sampled: Sequence[Group[Rollout]], best: Sequence[Group[Rollout]]
) -> list[Question]:
    """The responses of one batch with their verdicts; all go to the verifier at once, so that its workers are busy."""
    rows = [[*group.members] for group in sampled]
    if best:
        rows = [[*row, *group.members] for row, group in zip(rows, best, strict=True)]
    asked = [(prompt, rollout.text) for prompt, row in zip(prompts, rows, strict=True) for rollout in row]
    answers = verifier.verify(asked)
    if len(answers) != len(asked):
        raise VerifierError(
            f"the verifier gave {len(answers)} verdicts for {len(asked)} responses; it must give one each"
        )
    verdicts = iter(answers)
    questions = []
    for prompt, row in zip(prompts, rows, strict=True):
        members = [Verified(rollout=rollout, verdict=next(verdicts)) for rollout in row]
        greedy = members.pop() if best else None
        questions.append(Question(prompt=prompt, sampled=tuple(members), greedy=greedy))
    return questions


def _rewards(members: Sequence[Verified]) -> list[float]:
    """Rewards of the judged members; what the sampler failed to finish is no response."""
    return [m.verdict.reward for m in members if m.verdict.reward is not None and m.rollout.finish != "error"]


def _nothing_judged(members: Sequence[Verified]) -> str:
    first = members[0]
    statuses = ", ".join(f"{status} {count}" for status, count in sorted(_statuses(members).items()))
    return (
        f"none of {len(members)} sampled responses could be judged ({statuses}), so there is no accuracy. The first, of "
        f"prompt {first.rollout.prompt_id!r}: {first.verdict.detail or first.rollout.finish}. Check the verifier, its "
        "timeout_s, and the form in which answers are asked for (task.format)"
    )


def _statuses(members: Iterable[Verified]) -> dict[str, int]:
    """How often each verdict status came; a response that the sampler failed to make is `not_sampled`."""
    return dict(Counter("not_sampled" if m.rollout.finish == "error" else m.verdict.status for m in members))


def _question_json(question: Question) -> dict[str, Any]:
    return {
        "prompt_id": question.prompt.id,
        "answer": question.prompt.answer,
        "sampled": [_response_json(member) for member in question.sampled],
        "greedy": None if question.greedy is None else _response_json(question.greedy),
    }


def _response_json(member: Verified) -> dict[str, Any]:
    return {
        "text": member.rollout.text,
        "num_tokens": len(member.rollout.token_ids),
        "finish": member.rollout.finish,
        "status": member.verdict.status,
        "reward": member.verdict.reward,
        "detail": member.verdict.detail,
    }
