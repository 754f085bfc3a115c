r"""A model that opens multiple choice: it decides whether the question can stand alone, and writes question and solution anew.

PRIME does so with Llama-3.1-8B-Instruct at temperature 0.8 and at most 2048 tokens. The wording of the prompt is this library's.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace

from prmkit.curate.answers import RIGHT, boxed
from prmkit.curate.choices import Options, Rewrite, chosen, refers
from prmkit.curate.config import ChoicesConfig
from prmkit.curate.record import Dropped, Record
from prmkit.curate.sampling import Model, OnProgress, ResponseCache, Sampled, failed, refuse_failures, sample_all
from prmkit.data.types import Message, Prompt
from prmkit.protocols import Verifier
from prmkit.verify.answers import marked_answer

OPEN = r"""Below is a multiple-choice problem with its solution. Decide whether it can be asked as an open question, without
options, such that a reader can work out one definite short answer from the question alone. It cannot if the options are needed to
understand it, if it asks which of several statements holds, or if more than one answer would be right without the options.

---- question
{question}
---- solution
{solution}
---- end

If it cannot, reply with this line alone:
Convertible: no

If it can, write the question anew without its options and without any mention of them, changing nothing else of its content, and
the solution anew so that it names no option and ends in \boxed{} with the answer itself, not a letter. Reply in exactly this
form:
Convertible: yes
Question:
(the open question)
Solution:
(the solution)"""
"""What the model is asked."""

_REPLY = re.compile(
    r"\W*convertible\W*:\W*(?P<decision>yes|no)\b(?:.*?\n\W*question\W*:\s*(?P<question>.+?)\n\W*solution\W*:\s*(?P<solution>.+))?",
    re.IGNORECASE | re.DOTALL,
)


def model_rewrite(
    config: ChoicesConfig,
    model: Callable[[], Model],
    cache: ResponseCache,
    verifier: Verifier,
    *,
    seed: int,
    on_progress: OnProgress,
) -> Rewrite:
    """Opens questions by a model. What it writes is used only where its answer equals the chosen option's content."""

    def rewrite(found: Sequence[tuple[Record, Options]]) -> list[Record | Dropped]:
        results = [_candidate(record, options, config) for record, options in found]
        records = [result for result in results if isinstance(result, Record)]
        if not records:
            return results
        groups = sample_all(
            model(),
            cache,
            [_asked(record) for record in records],
            n=1,
            params=config.sampling,
            seed=seed,
            batch_size=config.batch_size,
            failures=config.failures,
            on_progress=on_progress,
        )
        failures = [drop for r, group in zip(records, groups, strict=True) if (drop := failed(r, group))]
        refuse_failures("choices", config.failures, failures, len(records))
        contents = {record.id: _content(record, options) for record, options in found}
        written = [_written(r, group[0], contents[r.id], config) for r, group in zip(records, groups, strict=True)]
        checked = iter(_same_answers(written, contents, verifier))
        return [next(checked) if isinstance(result, Record) else result for result in results]

    return rewrite


def _candidate(record: Record, options: Options, config: ChoicesConfig) -> Record | Dropped:
    if chosen(record, options) is None:
        detail = f"the answer {record.answer!r} is none of the options"
        return Dropped(record=record, reason="answer_is_no_option", detail=detail)
    if word := refers(options.stem, config):
        return Dropped(record=record, reason="needs_options", detail=f"the question has {word!r}")
    return record


def _content(record: Record, options: Options) -> str:
    letter = chosen(record, options)
    return options.texts[letter] if letter else ""


def _asked(record: Record) -> Prompt:
    solution = record.solution or f"The answer is {record.answer}."
    content = OPEN.replace("{question}", record.question).replace("{solution}", solution)
    return replace(record.prompt(), messages=(Message(role="user", content=content),))


def _written(record: Record, response: Sampled, content: str, config: ChoicesConfig) -> Record | Dropped:
    """The record as the model has written it."""
    if drop := failed(record, [response]):
        return drop
    reply = _REPLY.match(response.text.strip())
    if reply is None or (reply["decision"].lower() == "yes" and not reply["question"]):
        detail = f"the model's reply has not the form that was asked for: {response.text[:200]!r}"
        return Dropped(record=record, reason="reply_unreadable", detail=detail)
    if reply["decision"].lower() == "no":
        return Dropped(record=record, reason="needs_options", detail="the model says that it cannot stand alone")
    question, solution = reply["question"].strip(), reply["solution"].strip()
    answer = marked_answer(solution)
    if not answer:
        return Dropped(
            record=record, reason="reply_without_answer", detail=f"its solution marks none: {solution[-200:]!r}"
        )
    if word := refers(question, config):
        return Dropped(record=record, reason="needs_options", detail=f"the rewritten question has {word!r}")
    return record.changed("choices", question=question, answer=answer, solution=solution)


def _same_answers(
    written: Sequence[Record | Dropped], contents: dict[str, str], verifier: Verifier
) -> list[Record | Dropped]:
    """What the model has written, unless its answer is not the chosen option's."""
    records = [result for result in written if isinstance(result, Record)]
    asked = [(replace(record.prompt(), answer=contents[record.id]), boxed(record.answer)) for record in records]
    verdicts = iter(verifier.verify(asked) if asked else [])
    done: list[Record | Dropped] = []
    for result in written:
        if isinstance(result, Record) and next(verdicts).reward != RIGHT:
            detail = f"the model's answer is {result.answer!r}, the option's content {contents[result.id]!r}"
            done.append(Dropped(record=result, reason="answer_changed", detail=detail))
        else:
            done.append(result)
    return done
