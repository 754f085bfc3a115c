r"""Step `verifiability`: strong models answer, and a question stays where they agree among themselves and with the reference.

PRIME samples five responses each from two models, which may also say "No solution", and keeps what is consistently solvable, with
agreeing answers that agree with the ground truth; its released scripts write majority and share and state no threshold, so the
thresholds here are this library's own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from prmkit.curate.answers import RIGHT, boxed
from prmkit.curate.config import VerifiabilityConfig
from prmkit.curate.record import Dropped, Outcome, Record
from prmkit.curate.sampling import Model, OnProgress, ResponseCache, Sampled, failed, refuse_failures, sample_all
from prmkit.data.types import Message, Prompt, Verdict
from prmkit.protocols import Verifier
from prmkit.verify.answers import extract_answer
from prmkit.verify.spelling import normalise

SOLVE = r"""{question}

Reason step by step and put your final answer in \boxed{}. If the question cannot be answered as it stands, because something is
missing or contradicts itself, answer \boxed{No solution}."""
"""What the models are asked."""
NO_SOLUTION = "no solution"
_ROUNDING = 1e-9


def verifiability_step(
    config: VerifiabilityConfig,
    models: Sequence[Callable[[], Model]],
    cache: ResponseCache,
    verifier: Verifier,
    *,
    seed: int,
    on_progress: OnProgress,
) -> Callable[[Sequence[Record]], Outcome]:
    """The step; the models answer one after the other."""

    def run(records: Sequence[Record]) -> Outcome:
        if not records:
            return Outcome(kept=[])
        prompts = [_asked(record) for record in records]
        groups: list[list[tuple[str, Sampled]]] = [[] for _ in records]
        for make in models:
            model = make()
            found = sample_all(
                model,
                cache,
                prompts,
                n=config.samples,
                params=config.sampling,
                seed=seed,
                batch_size=config.batch_size,
                failures=config.failures,
                on_progress=on_progress,
            )
            for group, responses in zip(groups, found, strict=True):
                group += [(model.name, response) for response in responses]
        failures = [failed(r, [s for _, s in group]) for r, group in zip(records, groups, strict=True)]
        refuse_failures("verifiability", config.failures, [f for f in failures if f], len(records))
        answers = [[_answer(response) for _, response in group] for group in groups]
        votes = _votes(records, answers, verifier)
        agrees = _majority_verdicts(records, answers, votes, verifier)
        results = [
            failure or _judged(record, said, classes, right, config)
            for record, said, classes, right, failure in zip(records, answers, votes, agrees, failures, strict=True)
        ]
        return Outcome(
            kept=[result for result in results if isinstance(result, Record)],
            dropped=[result for result in results if isinstance(result, Dropped)],
            samples=[
                _line(record, name, response, answer)
                for record, group, said in zip(records, groups, answers, strict=True)
                for (name, response), answer in zip(group, said, strict=True)
                if not response.failure
            ],
        )

    return run


def _asked(record: Record) -> Prompt:
    user = Message(role="user", content=SOLVE.replace("{question}", record.question))
    return replace(record.prompt(), messages=(user,))


def _answer(response: Sampled) -> str | None:
    return None if response.failure else extract_answer(response.text)


def _says_unsolvable(record: Record, answer: str) -> bool:
    """Whether an answer is "No solution", where the reference is not just that."""
    return _plain(answer) == NO_SOLUTION != _plain(record.answer)


def _plain(answer: str) -> str:
    return normalise(answer).replace(r"\text{", "").strip("{} .").lower()


def _votes(
    records: Sequence[Record], answers: Sequence[Sequence[str | None]], verifier: Verifier
) -> list[list[list[int]]]:
    """For each record the classes of equal answers, as indices of its responses; the largest first, then the earliest.

    Two answers are equal where the verifier accepts one for the other; what it cannot decide is not equal. Each round, over
    all records at once, compares what is left with the first of it. "No solution" is in no class.
    """
    left = [
        [i for i, a in enumerate(said) if a and not _says_unsolvable(record, a)]
        for record, said in zip(records, answers, strict=True)
    ]
    classes: list[list[list[int]]] = [[] for _ in records]
    while any(left):
        asked: list[tuple[Prompt, str]] = []
        places: list[tuple[int, int]] = []
        for k, open_ones in enumerate(left):
            if not open_ones:
                continue
            first = answers[k][open_ones[0]] or ""
            classes[k].append([open_ones[0]])
            for i in open_ones[1:]:
                other = answers[k][i] or ""
                if normalise(other) == normalise(first):
                    classes[k][-1].append(i)
                else:
                    asked.append((replace(records[k].prompt(), answer=first), boxed(other)))
                    places.append((k, i))
        for (k, i), verdict in zip(places, verifier.verify(asked) if asked else [], strict=True):
            if verdict.reward == RIGHT:
                classes[k][-1].append(i)
        for k, open_ones in enumerate(left):
            if open_ones:
                placed = set(classes[k][-1])
                left[k] = [i for i in open_ones if i not in placed]
    return [sorted(found, key=lambda members: (-len(members), min(members))) for found in classes]


def _majority_verdicts(
    records: Sequence[Record],
    answers: Sequence[Sequence[str | None]],
    votes: Sequence[Sequence[Sequence[int]]],
    verifier: Verifier,
) -> list[Verdict | None]:
    """Whether the largest class's answer equals the reference; None where nobody gave an answer."""
    with_votes = [k for k, classes in enumerate(votes) if classes]
    asked = [(records[k].prompt(), boxed(answers[k][votes[k][0][0]] or "")) for k in with_votes]
    found = dict(zip(with_votes, verifier.verify(asked) if asked else [], strict=True))
    return [found.get(k) for k in range(len(records))]


def _judged(
    record: Record,
    said: Sequence[str | None],
    classes: Sequence[Sequence[int]],
    right: Verdict | None,
    config: VerifiabilityConfig,
) -> Record | Dropped:
    total = len(said)
    unsolvable = sum(answer is not None and _says_unsolvable(record, answer) for answer in said) / total
    share = len(classes[0]) / total if classes else 0.0
    majority = said[classes[0][0]] if classes else None
    found = {"majority": majority, "agreement": share, "unsolvable": unsolvable, "samples": total}
    record = record.with_found("verifiability", found)
    if unsolvable > config.unsolvable + _ROUNDING:
        return Dropped(record=record, reason="unsolvable", detail=f"{unsolvable:.0%} of {total} say it has no solution")
    if right is None:
        return Dropped(record=record, reason="no_answers", detail=f"none of {total} responses gives an answer")
    if share < config.agreement - _ROUNDING:
        detail = (
            f"the majority's answer {majority!r} has {share:.0%} of {total} responses, at least {config.agreement:.0%}"
        )
        return Dropped(record=record, reason="no_agreement", detail=detail)
    if config.reference and right.reward is None:
        detail = f"majority {majority!r}, reference {record.answer!r}: {right.status}: {right.detail}"
        return Dropped(record=record, reason="reference_undecided", detail=detail)
    if config.reference and right.reward != RIGHT:
        detail = f"the majority's answer is {majority!r}, the reference {record.answer!r}"
        return Dropped(record=record, reason="reference_disagrees", detail=detail)
    return record


def _line(record: Record, name: str, response: Sampled, answer: str | None) -> dict[str, object]:
    return {
        "id": record.id,
        "step": "verifiability",
        "model": name,
        "response": response.text,
        "finish": response.finish,
        "answer": answer,
    }
