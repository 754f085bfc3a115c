"""Rows of the field's data sets as prompts with their tests."""

from __future__ import annotations

import ast
import json
import textwrap
from collections.abc import Mapping
from typing import Any

from prmkit.data.types import Message, Prompt
from prmkit.errors import DataError
from prmkit.verify.code.source import parse

_ASK_FUNCTION = "Complete this Python function. Answer with the whole function, imports included, in a ```python block."
_ASK_PROGRAM = "Write a Python program that solves this problem. Answer with the program in a ```python block."
_READS = " It reads standard input and prints to standard output."


def humaneval_prompt(row: Mapping[str, Any], id: str = "") -> Prompt:
    """A row of HumanEval: `prompt`, `entry_point`, `test` with `check(candidate)`, and `canonical_solution` where known.

    Every statement of `check` that asserts is a test. Raises DataError for a row that is another.
    """
    prompt, entry = _need(row, "prompt"), _need(row, "entry_point")
    setup, tests = _check_body(_need(row, "test"), entry)
    return _prompt(
        id or str(row.get("task_id") or row.get("name") or entry),
        f"{_ASK_FUNCTION}\n\n```python\n{prompt.rstrip()}\n```",
        answer=str(row.get("canonical_solution") or ""),
        tests={"format": "asserts", "prompt": prompt, "entry_point": entry, "setup": setup, "tests": tests},
    )


def mbpp_prompt(row: Mapping[str, Any], id: str = "") -> Prompt:
    """A row of MBPP: `text` (or `prompt`), `test_list`, `test_setup_code` (or `test_imports`), and `code` where known.

    As in the paper (arXiv:2108.07732), the tests are part of what is asked: they alone say the function's name.
    """
    text = str(row.get("text") or row.get("prompt") or "")
    tests = row.get("test_list")
    if not text or not isinstance(tests, list) or not tests:
        raise DataError(f"an MBPP row needs text (or prompt) and test_list; this one has {', '.join(row)}")
    imports = row.get("test_imports")
    setup = "\n".join(imports) if isinstance(imports, list) else str(row.get("test_setup_code") or "")
    code = str(row.get("code") or "")
    asked = "\n".join(map(str, tests))
    return _prompt(
        id or f"MBPP/{row.get('task_id', '')}",
        f"{text}\nAnswer with Python code in a ```python block. It must pass these tests:\n\n```python\n{asked}\n```",
        answer=code,
        tests={
            "format": "asserts",
            "tests": tests,
            "setup": setup,
            "names": _used_names(code, [setup, *map(str, tests)]),
        },
    )


def code_contests_prompt(row: Mapping[str, Any], id: str = "") -> Prompt:
    """A row of CodeContests or the like: `problem` (or `description`, `question`), `tests` with inputs and outputs.

    DeepMind's own rows (`public_tests`, `private_tests`, `generated_tests`) are read too, all of their tests together.
    """
    text = str(row.get("problem") or row.get("description") or row.get("question") or "")
    tests = row.get("tests")
    if tests is None:
        parts = [row[key] for key in ("public_tests", "private_tests", "generated_tests") if row.get(key)]
        tests = {
            "inputs": [value for part in parts for value in part["input"]],
            "outputs": [value for part in parts for value in part["output"]],
        }
    tests = _object(tests)
    if not text or not tests.get("inputs"):
        raise DataError(f"a CodeContests row needs problem (or description) and tests; this one has {', '.join(row)}")
    return _prompt(
        id or str(row.get("name") or ""),
        f"{_ASK_PROGRAM}{_READS}\n\n{text.strip()}",
        tests={**tests, "format": "stdio"},
    )


def apps_prompt(row: Mapping[str, Any], id: str = "") -> Prompt:
    """A row of APPS, TACO or PRIME's code data: `question`, `input_output` (JSON: inputs, outputs, fn_name where called).

    PRIME's own rows hold the same JSON under `reward_model.ground_truth`, and messages under `prompt`. What stands before a
    program is that of APPS, or of PRIME, unless the tests have a `preamble`.
    """
    model = row.get("reward_model")
    tests = _object(model["ground_truth"] if isinstance(model, Mapping) else _need(row, "input_output"))
    kind = "calls" if tests.get("fn_name") else "stdio"
    ask = _ASK_PROGRAM + (f" Its function is {tests['fn_name']}." if kind == "calls" else _READS)
    starter = str(row.get("starter_code") or "").rstrip()
    question = row.get("question") or row.get("prompt")
    if isinstance(question, list):
        question = "\n\n".join(str(turn["content"]) for turn in question if turn.get("role") == "user")
    text = f"{ask}\n\n{str(question or '').strip()}" + (f"\n\n```python\n{starter}\n```" if starter else "")
    preamble = "prime" if isinstance(model, Mapping) else "apps"
    return _prompt(
        id or str(row.get("problem_id") or row.get("id") or ""),
        text,
        tests={"preamble": preamble, **tests, "format": kind},
    )


def leetcode_prompt(row: Mapping[str, Any], id: str = "") -> Prompt:
    """A LeetCode problem under asserts: `test` is a `check(candidate)` for `entry_point` (LeetCodeDataset), or statements
    that use `Solution()` (DeepSeek-Coder's and PRIME's LeetCode set).

    `prompt` of the former is source (imports, ListNode and the like); `starter_code`, where given, is shown. A row without
    imports of its own gets those of DeepSeek's evaluation.
    """
    test, entry = _need(row, "test"), str(row.get("entry_point") or "")
    source = str(row.get("prompt") or "")
    helpers = source if _defines_something(source) else ""
    if "def check(" in test:
        setup, tests = _check_body(test, entry or "Solution")
    else:
        setup, tests = "", [ast.unparse(node) for node in _tree(test).body]
    asked = str(row.get("problem_description") or row.get("prompt_sft") or row.get("content") or source)
    starter = str(row.get("starter_code") or "").rstrip()
    return _prompt(
        id or str(row.get("task_id") or row.get("question_id") or ""),
        f"{_ASK_PROGRAM}\n\n{asked.strip()}" + (f"\n\n```python\n{starter}\n```" if starter else ""),
        answer=str(row.get("completion") or ""),
        tests={
            "format": "asserts",
            "preamble": "" if _imports(helpers) else "deepseek-leetcode",
            "prompt": helpers,
            "setup": setup,
            "tests": tests,
            "names": ["Solution"],
        },
    )


def _prompt(id: str, text: str, *, tests: Mapping[str, Any], answer: str = "") -> Prompt:
    return Prompt(
        id=id, messages=(Message(role="user", content=text),), answer=answer, task="code", meta={"tests": dict(tests)}
    )


def _check_body(test: str, entry: str) -> tuple[str, list[str]]:
    """The source before `check`, and the statements of its body, in which `candidate` is the entry point."""
    tree = _tree(test)
    check = next((n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name == "check"), None)
    if check is None:
        raise DataError("the tests define no check(candidate)")
    kept = [node for node in tree.body if node is not check and not isinstance(node, ast.Expr)]
    setup = "\n".join(ast.unparse(node) for node in kept)
    leaves = any(isinstance(node, ast.Return | ast.Yield | ast.Nonlocal | ast.Global) for node in ast.walk(check))
    if leaves or len(check.args.args) != 1:  # only as a whole
        return f"{setup}\n{ast.unparse(check)}", [f"check({entry})"]
    setup = f"{setup}\n{check.args.args[0].arg} = {entry}"
    body = [textwrap.dedent(ast.unparse(node)) for node in check.body]
    return setup, body


def _used_names(code: str, sources: list[str]) -> list[str]:
    """What the reference solution defines at its outer level and the tests use: names that are the program's."""
    if not code:
        return []
    defined = [
        node.name
        for node in _tree(code).body
        if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.AsyncFunctionDef)
    ]
    used = {node.id for source in sources for node in ast.walk(_tree(source)) if isinstance(node, ast.Name)}
    return [name for name in dict.fromkeys(defined) if name in used]


def _tree(source: str) -> ast.Module:
    try:
        return parse(source)
    except SyntaxError as error:
        raise DataError(f"a row's code is no Python: {error} in {source[:80]!r}") from error


def _defines_something(source: str) -> bool:
    """Whether it is Python that does something: a question in words may happen to be an expression."""
    try:
        return not all(isinstance(node, ast.Expr) for node in parse(source).body)
    except SyntaxError:
        return False


def _imports(source: str) -> bool:
    return any(isinstance(node, ast.Import | ast.ImportFrom) for node in parse(source).body)


def _object(data: object) -> dict[str, Any]:
    if isinstance(data, str):
        try:
            data = json.loads(data)
        except ValueError as error:
            raise DataError(f"the tests are no JSON: {error}") from error
    if not isinstance(data, Mapping):
        raise DataError(f"the tests must be an object, not a {type(data).__name__}")
    return dict(data)


def _need(row: Mapping[str, Any], key: str) -> str:
    value = row.get(key)
    if not isinstance(value, str) or not value:
        raise DataError(f"the row has no {key!r}; it has {', '.join(row)}")
    return value
