"""From judged questions to the numbers of a result: pass@k, avg@k, majority@k, categories, and what made them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any

from prmkit.evaluate.accuracy import CONFIDENCE, Interval, clustered, clustered_error, pass_at_k, wilson
from prmkit.evaluate.config import EvalConfig
from prmkit.evaluate.responses import Question, Response, question_json, rewards
from prmkit.evaluate.run import EvaluationResult, data_hash, git_commit, statuses, versions
from prmkit.evaluate.voting import majority_at_k
from prmkit.verify.answers import normalise, read_number
from prmkit.verify.qa import normalise as normalise_words

CUT_OFF_SHARE = 0.02
"""Above this share of responses cut at max_tokens the number says more about the limit than about the model."""


@dataclass(frozen=True, kw_only=True)
class CategoryRow:
    """One line of a table by category."""

    category: str
    """Such as `subject`."""
    value: str
    """Such as `Algebra`."""
    questions: int
    sampled: Interval | None
    """None where none of its responses could be judged."""
    greedy: Interval | None
    truncated_share: float | None
    """Of the sampled responses that came; None where none did."""


def pass_at(questions: Sequence[Question], k: int) -> Interval | None:
    """pass@k over the questions with at least k judged samples; right is a reward of 1. None where there are none."""
    rows = [rewards(question.sampled) for question in questions]
    values = [[pass_at_k(len(row), sum(r == 1 for r in row), k)] for row in rows if len(row) >= k]
    return clustered(values) if values else None


def majority_at(questions: Sequence[Question], k: int, judge: str = "math") -> Interval | None:
    """majority@k over the questions with at least k judged samples. None where there are none, or where nobody answers.

    Answers are one where their plain spellings are (`vote_key`): no verdict is asked for that, so right answers are not
    brought together by their being right.
    """
    if not any(member.answer is not None for question in questions for member in question.sampled):
        return None
    values = []
    for question in questions:
        votes = [(vote_key(m.answer, judge), m.reward) for m in question.sampled if m.reward is not None]
        if len(votes) >= k:
            values.append([majority_at_k([(key, reward) for key, reward in votes], k)])
    return clustered(values) if values else None


def vote_key(answer: str | None, judge: str = "math") -> str | None:
    """Equal for answers that are the same plain number, or the same text but for layout and letter case.

    Short answers in words (`qa`) are also the same but for articles and punctuation.
    """
    if answer is None:
        return None
    if judge == "qa":
        return normalise_words(answer)
    plain = normalise(answer)
    number = read_number(plain)
    return plain.casefold() if number is None else f"{number.value}{'%' if number.percent else ''}"


def powers_of_two(most: int) -> list[int]:
    """1, 2, 4, ... up to `most`, and `most` itself."""
    powers = [2**i for i in range(most.bit_length()) if 2**i <= most]
    return powers if powers[-1] == most else [*powers, most]


def by_category(questions: Sequence[Question]) -> list[CategoryRow]:
    """One row for each value of each category, categories in the order they come, values by name."""
    groups: dict[tuple[str, str], list[Question]] = {}
    for question in questions:
        for category, value in question.categories.items():
            groups.setdefault((category, value), []).append(question)
    order = list(dict.fromkeys(category for category, _ in groups))
    return [_category_row(*key, groups[key]) for key in sorted(groups, key=lambda key: (order.index(key[0]), key[1]))]


def result_json(
    config: EvalConfig,
    result: EvaluationResult,
    prompt_template: str,
    *,
    task: Mapping[str, Any] | None = None,
    written_by: Sequence[Mapping[str, Any]] | None = None,
    more: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Everything that made the number, as JSON values; nothing in it depends on the clock.

    `prompt_template` is the tokenizer's chat template, `task` the entry of the evaluation set with its template,
    `written_by` the versions that judged the questions where several did, `more` what else the caller knows.
    """
    questions = result.questions
    accuracy = asdict(result.accuracy)
    accuracy.pop("tokens_per_second")
    return {
        "accuracy": accuracy,
        "confidence": CONFIDENCE,
        "standard_error": clustered_error([values for q in questions if (values := rewards(q.sampled))]),
        **_at_k(questions, config.samples, str((task or {}).get("judge", "math"))),
        "categories": [asdict(row) for row in by_category(questions)],
        "truncation": _truncation(questions, config),
        "verdicts": {
            "sampled": statuses(member for question in questions for member in question.sampled),
            "greedy": statuses(question.greedy for question in questions if question.greedy is not None),
        },
        "num_questions": len(questions),
        "seed": config.seed,
        "task": dict(task or {}),
        "config": config_json(config),
        "versions": versions(local=not config.model.url, verifier=(more or {}).get("verifier")),
        "commit": git_commit(),
        "written_by": [dict(writer) for writer in written_by or ()],
        "data_sha256": data_hash([question.prompt for question in questions]),
        "prompt_template_sha256": hashlib.sha256(prompt_template.encode()).hexdigest(),
        **(more or {}),
        "questions": [question_json(question) for question in questions],
    }


def config_json(config: EvalConfig) -> dict[str, Any]:
    """The configuration as JSON values. Of a model at a server, without what is about a model that is loaded here."""
    values = asdict(config)
    if config.model.url:
        values["model"] = {name: values["model"][name] for name in ("url", "name", "server")}
    return values


def _at_k(questions: Sequence[Question], samples: int, judge: str) -> dict[str, Any]:
    """pass@k and majority@k for k = 1, 2, 4, ..., and avg@n for the n that were drawn.

    avg@k for a smaller k has the same expectation as avg@n, so there is one.
    """
    sizes = powers_of_two(samples)
    passes = {str(k): pass_at(questions, k) for k in sizes}
    votes = {str(k): majority_at(questions, k, judge) for k in sizes}
    average = clustered([values for q in questions if (values := rewards(q.sampled))])
    return {
        "pass_at_k": {k: asdict(found) for k, found in passes.items() if found is not None},
        "avg_at_k": {str(samples): asdict(average)},
        "majority_at_k": {k: asdict(found) for k, found in votes.items() if found is not None},
    }


def _truncation(questions: Sequence[Question], config: EvalConfig) -> dict[str, Any]:
    sampled = [member for question in questions for member in question.sampled]
    greedy = [question.greedy for question in questions if question.greedy is not None]
    return {
        "max_tokens": config.sampling.max_tokens,
        "sampled_share": _cut_off(sampled),
        "greedy_share": _cut_off(greedy),
    }


def _category_row(category: str, value: str, questions: Sequence[Question]) -> CategoryRow:
    judged = [values for question in questions if (values := rewards(question.sampled))]
    greedy = rewards([question.greedy for question in questions if question.greedy is not None])
    return CategoryRow(
        category=category,
        value=value,
        questions=len(questions),
        sampled=clustered(judged) if judged else None,
        greedy=wilson(sum(greedy), len(greedy)) if greedy else None,
        truncated_share=_cut_off([member for question in questions for member in question.sampled]),
    )


def _cut_off(members: Sequence[Response]) -> float | None:
    """Share of the responses that were cut at max_tokens; those that the sampler failed to make are none. None without any."""
    made = [member.finish == "length" for member in members if member.finish != "error"]
    return fmean(made) if made else None
