"""Rows of one's own: programming problems with their tests, and rows in the form of verl and PRIME, maths and programs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from prmkit.data.chat import read_messages
from prmkit.data.types import Message, Prompt
from prmkit.errors import DataError
from prmkit.tasks.library.answers import plain
from prmkit.tasks.library.spec import TaskSpec, first_field, pick, question_text
from prmkit.tasks.rows import Row
from prmkit.verify.code.problems import AssertTests, read_tests
from prmkit.verify.code.rows import apps_prompt, code_contests_prompt

_ASK = "Write Python code that solves this problem. Answer with all of it in one ```python block."
_PRIME = "reward_model.ground_truth"
_DEEPMIND = ("public_tests", "private_tests", "generated_tests")


def own_turns(row: Row, spec: TaskSpec) -> tuple[Message, ...] | None:
    """The turns of a row that are asked as they are: `messages`, or those in the question's field. Raises DataError."""
    if "messages" in row.fields and row.fields["messages"] is not None:
        return read_messages(row.fields["messages"], row.where)
    field = next((name for name in spec.question if isinstance(pick(row.fields, name), list)), None)
    return None if field is None else read_messages(pick(row.fields, field), row.where, field=field)


def own_program(row: Row, spec: TaskSpec) -> Prompt | None:
    """The problem and its tests, where the row is judged by running programs; None where it is not.

    That is every row of a task with the judge `code`, and elsewhere a row whose reference is tests, as in PRIME's data. Raises
    DataError for tests that cannot be read.
    """
    if spec.judge != "code" and not _is_tests(_reference(row, spec)):
        return None
    value = first_field(row, spec.answer, "tests")
    field = next(name for name in spec.answer if pick(row.fields, name) is not None)
    asked = own_turns(row, spec)
    question = asked[-1].content if asked else question_text(row, spec)
    try:
        if field in _DEEPMIND:
            value = code_contests_prompt({**row.fields, "problem": question}).meta["tests"]
        tests = json.loads(value) if isinstance(value, str) else value
        parsed = read_tests(tests)
        made = apps_prompt(
            {"question": question, "starter_code": row.fields.get("starter_code"), **_as_apps(field, tests)}
        )
    except (DataError, KeyError, TypeError, ValueError) as error:
        raise DataError(f"{row.where}: field {field!r}: {error}; docs/code_verifier.md has the formats") from None
    turns = asked or made.messages
    if isinstance(parsed, AssertTests):
        made = Prompt(id="", messages=(), answer="", meta={"tests": tests})
        turns = asked or (Message(role="user", content=f"{_ASK}\n\n{question}"),)
    return Prompt(id="", messages=turns, answer="", task="code", meta=made.meta)


def _reference(row: Row, spec: TaskSpec) -> Any:
    return next((value for name in spec.answer if (value := pick(row.fields, name)) is not None), None)


def _is_tests(value: object) -> bool:
    """Whether a reference is an object with inputs and outputs, or JSON of one: no answer in maths or words is."""
    if isinstance(value, str) and value.lstrip().startswith("{") and '"inputs"' in value:
        try:
            value = json.loads(value)
        except ValueError:
            return False
    return isinstance(value, Mapping) and {"inputs", "outputs"} <= value.keys()


def _as_apps(field: str, tests: Mapping[str, Any]) -> dict[str, Any]:
    """Under the name by which `apps_prompt` tells whose imports stand before a program; own tests say that themselves."""
    if field == "input_output":
        return {field: json.dumps(tests)}
    return {"reward_model": {"ground_truth": tests if field == _PRIME else {"preamble": "", **tests}}}


OWN = (
    TaskSpec(
        name="code",
        title="Programming problems of one's own, of CodeContests, APPS or TACO",
        version="1",
        source="arXiv:2203.07814, arXiv:2105.09938, arXiv:2312.14852",
        judge="code",
        question=("question", "problem", "description", "prompt"),
        answer=("tests", "input_output", _PRIME, *_DEEPMIND),
        own_rows=True,
        categories={"difficulty": "difficulty"},
        template="plain",
        answer_form="tests",
    ),
    TaskSpec(
        name="verl",
        title="Rows in the form of verl and PRIME (Eurus-2-RL-Data), maths and programs",
        version="1",
        source="arXiv:2502.01456, github.com/volcengine/verl",
        judge="math",
        question=("prompt",),
        answer=(_PRIME,),
        read_answer=plain,
        own_rows=True,
        template="plain",
        answer_form="LaTeX, or tests",
    ),
)
