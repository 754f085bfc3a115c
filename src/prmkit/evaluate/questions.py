"""The questions of an evaluation, and what is known of the set that they come from."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from prmkit.data.types import Prompt
from prmkit.errors import ConfigError
from prmkit.evaluate.config import EvalConfig
from prmkit.tasks.library import EvalSet, find_task, load_template, read_set
from prmkit.tasks.task import FORMAT_TEMPLATES, load_task
from prmkit.verify.code.preambles import PREAMBLES
from prmkit.verify.math import final_answer
from prmkit.verify.qa_answers import find_answer

ARITHMETIC_VERSION = "1"
MOST_NAMED = 12
"""Values of a category in a note."""
OWN_FORM = ("gsm8k", "math")
"""Tasks that are asked as `task.format` says, `plain` included, when no template is named."""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What an evaluation asks."""

    prompts: list[Prompt]
    about: dict[str, Any]
    """The task's entry and the template, as JSON values: part of the result."""
    left_out: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Category -> values of which the first so many questions have none."""
    notes: Sequence[str] = ()
    """What to know before they are asked."""
    answer_of: Callable[[Prompt, str], str | None] | None
    """The final answer of a response, by which votes are counted; None where a response is no single answer."""


def load_questions(config: EvalConfig) -> Asked:
    """The first `config.prompts` test questions of the configured task.

    Raises ConfigError for a task or template that cannot be used, DataError for rows that cannot be read.
    """
    if config.task.name == "arithmetic":
        if config.template:
            raise ConfigError(
                f'template = "{config.template}", but arithmetic has only its own form; leave template out'
            )
        prompts = load_task(config.task, seed=config.seed).test
        about = {"name": "arithmetic", "version": ARITHMETIC_VERSION, "judge": "math", "chain": config.task.chain}
        return Asked(prompts=prompts[: config.prompts or None], about=about, answer_of=_maths_answer(config))
    spec, part = find_task(config.task.name)
    own = "plain" if config.task.name in OWN_FORM else spec.template
    template = load_template(config.template or FORMAT_TEMPLATES.get(config.task.format, own))
    limits = [limit for limit in (config.prompts, config.task.limit) if limit]
    found = read_set(spec, config.task.test, template, part=part, limit=min(limits, default=0))
    return Asked(
        prompts=found.prompts,
        about=set_json(found),
        left_out=found.left_out,
        notes=tuple(left_out_notes(found)),
        answer_of=_answer_of(found, config),
    )


def left_out_notes(found: EvalSet) -> Iterator[str]:
    """A line for each category of which the first so many questions leave out some values altogether."""
    for category, values in found.left_out.items():
        there = sorted({str(prompt.meta["categories"].get(category, "none")) for prompt in found.prompts})
        part = next(iter(found.spec.parts), "") if category == "language" else ""
        choice = f'a name such as "{found.spec.name}:{part}" takes one' if part else ""
        yield (
            f"the first {len(found.prompts)} questions have the {category} {_named(there)} alone and leave out "
            f"{_named(values)}: {choice or 'raise prompts, or give a file with the rows you want'}"
        )


def _named(values: Sequence[str]) -> str:
    more = len(values) - MOST_NAMED
    return ", ".join(values[:MOST_NAMED]) + (f" and {more} more" if more > 0 else "")


def set_json(found: EvalSet) -> dict[str, Any]:
    """What made the questions, as JSON values."""
    spec, template = found.spec, found.template
    return {
        "name": spec.name,
        "title": spec.title,
        "version": spec.version,
        "part": found.part,
        "judge": spec.judge,
        "answer_form": spec.answer_form,
        **_preambles(found.prompts),
        "from": spec.source,
        "data": found.source,
        "template": {
            "name": template.name,
            "system": template.system,
            "user": template.user,
            "sha256": template.sha256,
        },
    }


def _preambles(prompts: Sequence[Prompt]) -> dict[str, Any]:
    """What stands before programs, by name, where something does."""
    tests = [prompt.meta.get("tests") for prompt in prompts]
    sources = {str(each.get("preamble") or "") for each in tests if isinstance(each, Mapping)} - {""}
    names = sorted({source if source in PREAMBLES else "own" for source in sources})
    return {"preamble": names} if names else {}


def _answer_of(found: EvalSet, config: EvalConfig) -> Callable[[Prompt, str], str | None] | None:
    if any(
        prompt.meta["verifier"] == "code" for prompt in found.prompts
    ):  # also where others have an answer to vote on
        return None
    if found.spec.judge == "qa":
        return lambda prompt, text: find_answer(text, config.verifier.qa.extract)
    return _maths_answer(config)


def _maths_answer(config: EvalConfig) -> Callable[[Prompt, str], str | None]:
    """As the verifier finds it."""
    of_parts = [part.math for part in config.verifier.parts if part.use == "math"]
    options = of_parts[0] if of_parts else config.verifier.math
    return lambda prompt, text: final_answer(prompt.answer, text, options=options)
