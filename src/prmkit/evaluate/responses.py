"""Judged responses of an evaluation: as values, and as the JSON that the record and the result hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from prmkit.data.types import FinishReason, Prompt, Verdict
from prmkit.errors import DataError


@dataclass(frozen=True, kw_only=True, slots=True)
class Response:
    """One response and what the verifier says of it."""

    text: str
    num_tokens: int
    """The end token included."""
    finish: FinishReason
    verdict: Verdict
    answer: str | None = None
    """The final answer as it was found in the text; None where there is none, or where the task has none."""

    @property
    def reward(self) -> float | None:
        """None where it could not be judged; what the sampler failed to finish is no response."""
        return None if self.finish == "error" else self.verdict.reward

    @property
    def status(self) -> str:
        """The verdict's status; `not_sampled` where the sampler failed."""
        return "not_sampled" if self.finish == "error" else self.verdict.status


@dataclass(frozen=True, kw_only=True, slots=True)
class Question:
    """One test prompt with its judged responses."""

    prompt: Prompt
    sampled: tuple[Response, ...]
    greedy: Response | None
    """None when no greedy response was asked for."""

    @property
    def is_sampled(self) -> bool:
        """Whether the sampler could make every response."""
        members = (*self.sampled, *([self.greedy] if self.greedy else []))
        return all(member.finish != "error" for member in members)

    @property
    def categories(self) -> Mapping[str, str]:
        """Subject, level, language and the like."""
        found = self.prompt.meta.get("categories", {})
        return found if isinstance(found, Mapping) else {}


def rewards(members: Sequence[Response]) -> list[float]:
    """Rewards of those that were judged."""
    return [member.reward for member in members if member.reward is not None]


def question_json(question: Question) -> dict[str, Any]:
    """A question as the result holds it."""
    prompt = question.prompt
    return {
        "prompt_id": prompt.id,
        "question": str(prompt.meta.get("question", prompt.messages[-1].content)),
        "answer": prompt.answer,
        "categories": dict(question.categories),
        **record_json(question),
    }


def record_json(question: Question) -> dict[str, Any]:
    """What the record of a run holds of a question: its responses; the rest stands in the data."""
    return {
        "sampled": [response_json(member) for member in question.sampled],
        "greedy": None if question.greedy is None else response_json(question.greedy),
    }


def response_json(response: Response) -> dict[str, Any]:
    """A response as the record and the result hold it."""
    return {
        "text": response.text,
        "num_tokens": response.num_tokens,
        "finish": response.finish,
        "extracted": response.answer,
        "status": response.status,
        "reward": response.verdict.reward,
        "detail": response.verdict.detail,
    }


def read_question(prompt: Prompt, row: Mapping[str, Any], where: str) -> Question:
    """The inverse of `record_json`. Raises DataError for a row that is none."""
    try:
        greedy = row["greedy"]
        return Question(
            prompt=prompt,
            sampled=tuple(read_response(member) for member in row["sampled"]),
            greedy=None if greedy is None else read_response(greedy),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"{where}: no line of an evaluation's record ({error!r}); remove the file to start again"
        ) from None


def read_response(row: Mapping[str, Any]) -> Response:
    """The inverse of `response_json`. Raises KeyError, TypeError or ValueError for a row that is none."""
    status: Any = "error" if row["status"] == "not_sampled" else row["status"]  # no verdict has that status
    return Response(
        text=row["text"],
        num_tokens=row["num_tokens"],
        finish=row["finish"],
        answer=row.get("extracted"),
        verdict=Verdict(status=status, reward=row["reward"], detail=row["detail"]),
    )
