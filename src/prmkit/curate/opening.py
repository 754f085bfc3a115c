r"""A model that opens multiple choice: it decides whether the question can stand alone, and writes question and solution anew.

PRIME does so with Llama-3.1-8B-Instruct at temperature 0.8 and at most 2048 tokens. The wording of the prompt is this library's.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace

from prmkit.curate.answers import RIGHT, boxed
from prmkit.curate.choices import Options, Rewrite, chosen, refers, reworded
from prmkit.curate.config import ChoicesConfig
from prmkit.curate.record import Dropped, Record
from prmkit.curate.sampling import Model, OnProgress, ResponseCache, Sampled, failed, refuse_failures, sample_all
from prmkit.data.types import Message, Prompt
from prmkit.protocols import Verifier
from prmkit.verify.answers import after_thinking, marked_answer

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
        asked = [pair for pair, result in zip(found, results, strict=True) if isinstance(result, Record)]
        records = [record for record, _ in asked]
        if not records:
            return results
        groups = sample_all(
            model(),
            cache,
            [_asked(record, options) for record, options in asked],
            n=1,
            params=config.sampling,
            seed=seed,
            batch_size=config.batch_size,
            failures=config.failures,
            on_progress=on_progress,
        )
        failures = [drop for r, group in zip(records, groups, strict=True) if (drop := failed(r, group))]
        refuse_failures("choices", config.failures, failures, len(records))
        contents = [_content(record, options) for record, options in asked]
        written = [
            _written(record, group[0], options, config) for (record, options), group in zip(asked, groups, strict=True)
        ]
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


def _asked(record: Record, options: Options) -> Prompt:
    """The question with its options, also those of a field, and its solution; without one, the option that is right."""
    question = record.question
    if not options.shown:
        question += "".join(f"\n({letter}) {text}" for letter, text in options.texts.items())
    solution = record.solution or f"The answer is ({chosen(record, options)}) {_content(record, options)}."
    content = OPEN.replace("{question}", question).replace("{solution}", solution)
    return replace(record.prompt(), messages=(Message(role="user", content=content),))


def _written(record: Record, response: Sampled, options: Options, config: ChoicesConfig) -> Record | Dropped:
    """The record as the model has written it, after its thinking."""
    if drop := failed(record, [response]):
        return drop
    reply = _REPLY.match(after_thinking(response.text).strip())
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
    return reworded(record, options, question=question, answer=answer, solution=solution)


def _same_answers(
    written: Sequence[Record | Dropped], contents: Sequence[str], verifier: Verifier
) -> list[Record | Dropped]:
    """What the model has written, unless its answer is not the chosen option's, or cannot be compared with it."""
    pairs = list(zip(written, contents, strict=True))
    asked = [
        (replace(record.prompt(), answer=content), boxed(record.answer))
        for record, content in pairs
        if isinstance(record, Record)
    ]
    verdicts = iter(verifier.verify(asked) if asked else [])
    done: list[Record | Dropped] = []
    for result, content in pairs:
        verdict = next(verdicts) if isinstance(result, Record) else None
        if verdict is None or verdict.reward == RIGHT or isinstance(result, Dropped):
            done.append(result)
            continue
        detail = f"the model's answer is {result.answer!r}, the option's content {content!r}"
        if verdict.reward is None:
            detail += f": {verdict.status}: {verdict.detail}"
        reason = "answer_changed" if verdict.reward is not None else "rewritten_undecided"
        done.append(Dropped(record=result, reason=reason, detail=detail))
    return done
