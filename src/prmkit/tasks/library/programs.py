"""Evaluation sets of programming tasks: the reference is a set of tests that are run."""

from __future__ import annotations

import base64
import binascii
import io
import json
import pickle
import zlib
from collections.abc import Mapping
from typing import Any

from prmkit.data.types import Message, Prompt
from prmkit.errors import DataError
from prmkit.tasks.library.spec import TaskSpec
from prmkit.verify.code.rows import humaneval_prompt, leetcode_prompt, mbpp_prompt

_ASK = "Write a Python program that solves this problem. Answer with the program in one ```python block."
_STDIO = "It reads standard input and prints to standard output."
_PREAMBLE = "livecodebench"
_STARTER = "Complete this code; keep its class and method:"


def livecodebench_prompt(row: Mapping[str, Any]) -> Prompt:
    """A row of LiveCodeBench: `question_content`, `starter_code`, `public_test_cases` and `private_test_cases`.

    A test is {"input", "output", "testtype"}; `functional` ones call `metadata.func_name` with one JSON value a line. Private
    tests are JSON, or packed (base64, zlib, pickle) in the later releases. Raises DataError for another row.
    """
    cases = [*_cases(row.get("public_test_cases")), *_cases(row.get("private_test_cases"))]
    if not cases or not row.get("question_content"):
        raise DataError("it needs question_content and public_test_cases or private_test_cases")
    kinds = {case["testtype"] for case in cases}
    if kinds == {"functional"}:
        tests = _calls(cases, row)
    elif kinds == {"stdin"}:
        tests = {
            "format": "stdio",
            "preamble": _PREAMBLE,
            "inputs": [case["input"] for case in cases],
            "outputs": [case["output"] for case in cases],
        }
    else:
        raise DataError(f"its tests are of the types {', '.join(sorted(kinds))}; expected all stdin or all functional")
    starter = str(row.get("starter_code") or "").rstrip()
    ending = f"{_STARTER}\n\n```python\n{starter}\n```" if starter else _STDIO
    text = f"{_ASK}\n\n{str(row['question_content']).strip()}\n\n{ending}"
    return Prompt(id="", messages=(Message(role="user", content=text),), answer="", task="code", meta={"tests": tests})


def _calls(cases: list[dict[str, Any]], row: Mapping[str, Any]) -> dict[str, Any]:
    metadata = row.get("metadata")
    name = (json.loads(metadata) if isinstance(metadata, str) else metadata or {}).get("func_name")
    if not name:
        raise DataError("its tests call a function, but metadata.func_name does not name it")
    arguments = [[json.loads(line) for line in case["input"].splitlines() if line.strip()] for case in cases]
    return {
        "format": "calls",
        "preamble": _PREAMBLE,
        "fn_name": name,
        "inputs": arguments,
        "outputs": [json.loads(case["output"]) for case in cases],
    }


def _cases(value: object) -> list[dict[str, Any]]:
    """The tests of one field: a list, JSON of one, or a packed one."""
    if not value:
        return []
    if isinstance(value, str):
        value = json.loads(value if value.lstrip().startswith("[") else _unpacked(value))
    if not isinstance(value, list) or not all(
        isinstance(case, dict) and {"input", "output", "testtype"} <= case.keys() for case in value
    ):
        raise DataError("its tests are no list of input, output and testtype")
    return value


def _unpacked(text: str) -> str:
    """The text inside base64, zlib and pickle. The pickle may hold nothing but text: none of its code is ever run."""
    try:
        value = _TextOnly(io.BytesIO(zlib.decompress(base64.b64decode(text, validate=True)))).load()
    except (binascii.Error, zlib.error, pickle.UnpicklingError, EOFError, ValueError) as error:
        raise DataError(f"its private tests cannot be unpacked ({error})") from None
    if not isinstance(value, str):
        raise DataError("its packed private tests hold no text")
    return value


class _TextOnly(pickle.Unpickler):
    """Refuses every name that a pickle could call."""

    def find_class(self, module: str, name: str) -> Any:
        """Raises UnpicklingError, always."""
        raise pickle.UnpicklingError(f"it names {module}.{name}")


PROGRAMS = (
    TaskSpec(
        name="humaneval",
        title="HumanEval",
        version="1",
        source="arXiv:2107.03374, github.com/openai/human-eval",
        judge="code",
        read_row=humaneval_prompt,
        id=("task_id",),
        template="plain",
        answer_form="prompt, entry_point and test",
        hub="openai/openai_humaneval",
    ),
    TaskSpec(
        name="mbpp",
        title="MBPP",
        version="1",
        source="arXiv:2108.07732",
        judge="code",
        read_row=mbpp_prompt,
        id=("task_id",),
        template="plain",
        answer_form="text and test_list",
        hub="google-research-datasets/mbpp:full",
    ),
    TaskSpec(
        name="leetcode",
        title="LeetCode weekly contests, July 2023 to January 2024",
        version="2",
        source="arXiv:2401.14196, github.com/deepseek-ai/DeepSeek-Coder",
        judge="code",
        read_row=leetcode_prompt,
        id=("task_id",),
        categories={"difficulty": "meta.difficulty"},
        template="plain",
        answer_form="prompt_sft (or prompt) and test",
    ),
    TaskSpec(
        name="livecodebench",
        title="LiveCodeBench, code generation",
        version="2",
        source="arXiv:2403.07974, livecodebench/code_generation",
        judge="code",
        read_row=livecodebench_prompt,
        id=("question_id",),
        categories={"difficulty": "difficulty", "platform": "platform"},
        template="plain",
        answer_form="question_content, public_test_cases and private_test_cases",
        hub="livecodebench/code_generation",
    ),
)
