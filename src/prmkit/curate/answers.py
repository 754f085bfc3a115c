r"""Step `answer`: a reference that the verifier can compare with, and that the row's own solution agrees with.

Three questions are put to the verifier that RL will use. Is `\boxed{answer}` right? If not, no response can be. Is a number that
is certainly another one judged at all? If not, only an identical text would ever get a verdict. Is the row's solution right?
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace

from prmkit.curate.choices import chosen, find_options
from prmkit.curate.config import AnswerConfig
from prmkit.curate.record import Dropped, Outcome, Record
from prmkit.data.types import Verdict
from prmkit.protocols import Verifier
from prmkit.verify.answers import marked_answer
from prmkit.verify.boxes import last_boxes

OTHER = "-98765.4321"
"""Stands for any wrong answer."""
RIGHT = 1.0


def boxed(answer: str) -> str:
    """A response that gives this answer and says nothing else."""
    return rf"\boxed{{{answer}}}"


def solution_answer(solution: str, config: AnswerConfig) -> str | None:
    """The answer that a worked solution marks as final; None where it marks none."""
    if config.phrases or last_boxes(solution) or "####" in solution:
        return marked_answer(solution)
    return None


def answer_step(config: AnswerConfig, verifier: Verifier) -> Callable[[Sequence[Record]], Outcome]:
    """The step."""

    def run(records: Sequence[Record]) -> Outcome:
        notes: Counter[str] = Counter()
        given: list[Record | Dropped] = [_with_answer(record, config, notes) for record in records]
        checked = iter(check_answers([r for r in given if isinstance(r, Record)], config, verifier))
        done = [next(checked) if isinstance(result, Record) else result for result in given]
        if config.solution != "ignore":
            compared = iter(_agreeing([r for r in done if isinstance(r, Record)], config, verifier, notes))
            done = [next(compared) if isinstance(result, Record) else result for result in done]
        return Outcome(
            kept=[result for result in done if isinstance(result, Record)],
            dropped=[result for result in done if isinstance(result, Dropped)],
            notes=notes,
        )

    return run


def check_answers(records: Sequence[Record], config: AnswerConfig, verifier: Verifier) -> list[Record | Dropped]:
    """Each record, or why the verifier cannot work with its answer; in order."""
    own = verifier.verify([(record.prompt(), boxed(record.answer)) for record in records])
    other = verifier.verify([(record.prompt(), boxed(OTHER)) for record in records]) if config.probe else own
    return [_checked(*item, config) for item in zip(records, own, other, strict=True)]


def _checked(record: Record, own: Verdict, other: Verdict, config: AnswerConfig) -> Record | Dropped:
    if 0 < config.most_characters < len(record.answer):
        detail = f"{len(record.answer)} characters, at most {config.most_characters}"
        return Dropped(record=record, reason="long_answer", detail=detail)
    if own.reward is None:
        detail = f"the verifier cannot judge the answer itself: {own.status}: {own.detail}"
        return Dropped(record=record, reason="answer_undecided", detail=detail)
    if own.reward < RIGHT:
        detail = f"the verifier does not accept the answer as its own: {own.detail or 'wrong'}"
        return Dropped(record=record, reason="answer_not_itself", detail=detail)
    if other.reward is None:
        detail = f"only the same text would be judged: {other.status}: {other.detail}"
        return Dropped(record=record, reason="answer_unreadable", detail=detail)
    return record


def _with_answer(record: Record, config: AnswerConfig, notes: Counter[str]) -> Record | Dropped:
    """The solution's answer where the row has none."""
    if record.answer.strip():
        return record
    if not (record.solution or "").strip():
        return Dropped(record=record, reason="empty_answer", detail="neither an answer nor a solution")
    found = solution_answer(record.solution or "", config)
    if not found:
        return Dropped(record=record, reason="no_answer_in_solution", detail="the solution marks no final answer")
    notes["answers taken from the solution"] += 1
    return replace(record, answer=found)


def _agreeing(
    records: Sequence[Record], config: AnswerConfig, verifier: Verifier, notes: Counter[str]
) -> list[Record | Dropped]:
    marked = [solution_answer(record.solution, config) if record.solution else None for record in records]
    verdicts = iter(_verdicts([r for r, answer in zip(records, marked, strict=True) if answer], verifier))
    done: list[Record | Dropped] = []
    for record, answer in zip(records, marked, strict=True):
        if answer:
            done.append(_compared(record, answer, next(verdicts)))
        elif record.solution is None or config.solution != "require":
            if record.solution is not None:
                notes["solutions that mark no answer, kept with the row's"] += 1
            done.append(record)
        else:
            detail = "the solution marks no final answer"
            done.append(Dropped(record=record, reason="no_answer_in_solution", detail=detail))
    return done


def _verdicts(records: Sequence[Record], verifier: Verifier) -> list[Verdict]:
    """The verifier's word on each solution. In multiple choice a solution may give letter or content of the row's option."""
    found = verifier.verify([(record.prompt(), record.solution or "") for record in records]) if records else []
    others: list[tuple[int, str]] = []
    for k, (record, verdict) in enumerate(zip(records, found, strict=True)):
        options = find_options(record.question, record.row) if verdict.reward != RIGHT else None
        if options and (letter := chosen(record, options)):
            others += [(k, letter), (k, options.texts[letter])]
    asked = [(replace(records[k].prompt(), answer=answer), records[k].solution or "") for k, answer in others]
    for (k, _), verdict in zip(others, verifier.verify(asked) if asked else [], strict=True):
        if verdict.reward == RIGHT:
            found[k] = verdict
    return found


def _compared(record: Record, answer: str, verdict: Verdict) -> Record | Dropped:
    if verdict.reward is None:
        detail = f"the solution ends in {answer!r}, the answer is {record.answer!r}: {verdict.status}: {verdict.detail}"
        return Dropped(record=record, reason="solution_undecided", detail=detail)
    if verdict.reward < RIGHT:
        detail = f"the solution ends in {answer!r}, the answer is {record.answer!r}"
        return Dropped(record=record, reason="solution_disagrees", detail=detail)
    return record
