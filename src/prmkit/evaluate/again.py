"""Responses on record that the verifier could not judge: judged again from their texts, without sampling."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from prmkit.errors import VerifierError
from prmkit.evaluate.responses import Question, Response
from prmkit.protocols import Verifier


def is_open(response: Response) -> bool:
    """Whether the verifier broke or was late (`error`, `timeout`), which may be otherwise the next time."""
    return response.finish != "error" and response.verdict.status in ("error", "timeout")


def has_open(question: Question) -> bool:
    """Whether a response of the question is open."""
    return any(is_open(member) for member in _members(question))


def judge_again(verifier: Verifier, questions: Sequence[Question]) -> list[Question]:
    """The questions with new verdicts on their open responses; all other responses stay as they are.

    Raises VerifierError for a verifier that does not give one verdict for each response.
    """
    texts = [
        (question.prompt, member.text) for question in questions for member in _members(question) if is_open(member)
    ]
    verdicts = verifier.verify(texts)
    if len(verdicts) != len(texts):
        raise VerifierError(
            f"the verifier gave {len(verdicts)} verdicts for {len(texts)} responses; it must give one each"
        )
    said = iter(verdicts)

    def judged(member: Response) -> Response:
        return replace(member, verdict=next(said)) if is_open(member) else member

    return [
        replace(
            question,
            sampled=tuple(judged(member) for member in question.sampled),
            greedy=None if question.greedy is None else judged(question.greedy),
        )
        for question in questions
    ]


def _members(question: Question) -> tuple[Response, ...]:
    return (*question.sampled, *([question.greedy] if question.greedy else []))
