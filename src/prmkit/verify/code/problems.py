"""The tests of a problem, as `Prompt.meta["tests"]` holds them, read and checked.

    {"format": "stdio", "inputs": [text, ...], "outputs": [text, ...]}
    {"format": "calls", "fn_name": name, "inputs": [[argument, ...], ...], "outputs": [value, ...]}
    {"format": "asserts", "tests": [source, ...], "setup": source, "entry_point": name, "prompt": source}

stdio and calls may have `float_tolerance`. All may have `preamble`: source that stands before the program, or the name of
one that a published harness uses (`preambles`). A JSON string of the same content is taken too. Without `format`, a row with
`fn_name` is calls, one with `inputs` stdio and one with `tests` asserts: that is the ground truth of PRIME's and APPS' data.
"""

from __future__ import annotations

import ast
import json
import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any

from prmkit.errors import DataError
from prmkit.verify.code.preambles import preamble_source
from prmkit.verify.code.source import parse


@dataclass(frozen=True, kw_only=True)
class StdioTests:
    """A program reads standard input; its standard output is compared with the expected one."""

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    preamble: str = ""
    """Source that runs before the program, in its module."""
    float_tolerance: float | None = None


@dataclass(frozen=True, kw_only=True)
class CallTests:
    """A function, or a method of `class Solution`, is called with values that JSON can hold."""

    function: str
    inputs: tuple[tuple[Any, ...], ...]
    """Positional arguments of each call."""
    outputs: tuple[Any, ...]
    wrapped: bool
    """Every expected value is a list of one, as APPS writes them: the value alone is right too."""
    preamble: str = ""
    float_tolerance: float | None = None


@dataclass(frozen=True, kw_only=True)
class Statement:
    """A piece of the tests. One that counts is a test; another prepares those after it."""

    source: str
    counts: bool


@dataclass(frozen=True, kw_only=True)
class AssertTests:
    """Statements that call the program and assert."""

    statements: tuple[Statement, ...]
    setup: str = ""
    """Source that the statements need, run beside them."""
    prompt: str = ""
    """Source of the problem itself (imports, helpers, classes): run beside the tests and before the program."""
    names: tuple[str, ...] = ()
    """What the program defines; any other name that nothing defines is the program's too."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Classes of the problem, whose instances both sides can hold. One that the program is asked for is none of them."""
        found = [node.name for node in parse(self.prompt).body if isinstance(node, ast.ClassDef)]
        return tuple(name for name in found if name not in self.names)

    @property
    def imports(self) -> tuple[str, ...]:
        """Names that the tests import: never the program's, also where the import fails."""
        trees = [parse(source) for source in (self.prompt, self.setup, *(s.source for s in self.statements))]
        found = [node for tree in trees for node in _run(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
        return tuple(dict.fromkeys((a.asname or a.name).split(".")[0] for node in found for a in node.names))


Tests = StdioTests | CallTests | AssertTests


def read_tests(data: object) -> Tests:
    """The tests in `data`. Raises DataError with what is missing or wrong."""
    if isinstance(data, str):
        try:
            data = json.loads(data)
        except ValueError as error:
            raise DataError(f"the tests are no JSON: {error}") from error
    if not isinstance(data, Mapping):
        raise DataError(f"the tests must be an object, not a {type(data).__name__}; see docs/code_verifier.md")
    kind = data.get("format") or (
        "calls" if data.get("fn_name") else "stdio" if "inputs" in data else "asserts" if "tests" in data else None
    )
    readers: dict[Any, Callable[[Mapping[str, Any]], Tests]] = {"stdio": _stdio, "calls": _calls, "asserts": _asserts}
    if kind not in readers:
        raise DataError(f"tests of the format {kind!r}; known are {', '.join(readers)}, see docs/code_verifier.md")
    return readers[kind](data)


def _stdio(data: Mapping[str, Any]) -> StdioTests:
    inputs, outputs = _lists(data)
    return StdioTests(
        inputs=tuple(_text(value, "inputs") for value in inputs),
        outputs=tuple(_text(value, "outputs") for value in outputs),
        preamble=_preamble(data),
        float_tolerance=_tolerance(data),
    )


def _calls(data: Mapping[str, Any]) -> CallTests:
    inputs, outputs = _lists(data)
    name = data.get("fn_name")
    if not isinstance(name, str) or not name:
        raise DataError("tests of the format 'calls' need fn_name, the name of a function or of a method of Solution")
    as_text = all(isinstance(value, str) for value in inputs)
    expected = tuple(_value(value) if as_text else value for value in outputs)
    return CallTests(
        function=name.removeprefix("Solution().").removeprefix("Solution."),
        inputs=tuple(_arguments(value) for value in inputs),
        outputs=expected,
        wrapped=all(isinstance(value, list) and len(value) == 1 for value in expected),
        preamble=_preamble(data),
        float_tolerance=_tolerance(data),
    )


def _asserts(data: Mapping[str, Any]) -> AssertTests:
    sources = data.get("tests")
    if isinstance(sources, str):
        sources = [sources]
    if not isinstance(sources, Sequence) or not sources:
        raise DataError("tests of the format 'asserts' need a list of sources under 'tests'")
    texts = [_text(value, "tests") for value in sources]
    trees = [_parsed(source, "a test") for source in texts]
    setup, prompt = (_text(data.get(key, ""), key) for key in ("setup", "prompt"))
    if preamble := _preamble(data).rstrip():
        prompt = f"{preamble}\n{prompt}"
    around = [_parsed(setup, "setup"), _parsed(prompt, "prompt")]
    checks = asserting_functions([*around, *trees])
    used = {name for tree in [*around, *trees] for name in run_names(tree)}
    defined = {
        node.name for tree in trees for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    if idle := sorted(name for name in (defined & checks) - used if name.startswith("test")):
        raise DataError(
            f"the test function {idle[0]} is never called, so its asserts would never run; add '{idle[0]}()'"
        )
    statements = [
        piece for source, tree in zip(texts, trees, strict=True) for piece in _statements(source, tree, checks)
    ]
    if not any(statement.counts for statement in statements):
        raise DataError("no test asserts anything")
    while not statements[-1].counts:  # it has no test after it that its failure could fail
        *statements, before, last = statements
        statements.append(Statement(source=f"{before.source}\n{last.source}", counts=before.counts))
    names = data.get("names") or ([data["entry_point"]] if data.get("entry_point") else [])
    names = [*map(str, names), *_names_of_modules(trees, around)]
    return AssertTests(statements=tuple(statements), setup=setup, prompt=prompt, names=tuple(dict.fromkeys(names)))


def _statements(source: str, tree: ast.Module, checks: Set[str]) -> list[Statement]:
    """A test, after what it imports: other tests may need that too when they run without it."""
    counts = has_assert(tree, checks)
    imports: list[ast.stmt] = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    if not counts or not imports:
        return [Statement(source=source, counts=counts)]
    rest = [node for node in tree.body if node not in imports]
    parts = [ast.unparse(ast.Module(body=body, type_ignores=[])) for body in (imports, rest)]
    return [Statement(source=parts[0], counts=False), Statement(source=parts[1], counts=True)]


_DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)


def _run(tree: ast.AST) -> Iterator[ast.AST]:
    """The nodes of a source that run when it runs: not those inside functions."""
    for node in ast.iter_child_nodes(tree):
        yield node
        if not isinstance(node, _DEFINITIONS):
            yield from _run(node)


def run_names(tree: ast.AST) -> set[str]:
    """Names that a source reads, other than a function its own."""
    found = {node.id for node in _run(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}
    for node in ast.walk(tree):
        if isinstance(node, _DEFINITIONS):
            inner = {n.id for n in ast.walk(node) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)}
            found |= inner - {getattr(node, "name", "")}
    return found


def asserting_functions(trees: Sequence[ast.AST]) -> set[str]:
    """Functions that can fail as a test, and those that call them."""
    functions = [
        node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    found: set[str] = {"check"}
    while True:
        more = {node.name for node in functions if _checks(node, found)} - found
        if not more:
            return found
        found |= more


def _checks(function: ast.FunctionDef | ast.AsyncFunctionDef, checks: Set[str]) -> bool:
    """A `raise` alone makes a checking function only by its name or by AssertionError: others raise for bad arguments."""
    named = function.name.startswith(("test", "check", "assert"))
    return any(
        (isinstance(node, ast.Raise) and (named or "AssertionError" in ast.unparse(node)))
        or (not isinstance(node, ast.Raise) and _can_fail(node, checks))
        for node in ast.walk(function)
    )


def has_assert(tree: ast.AST, checks: Set[str] = frozenset({"check"})) -> bool:
    """Whether running it can fail as a test: outside functions an assert that may not hold, a `raise`, a method such as
    `assertEqual` or `fail`, or a use of a checking function.
    """
    return any(_can_fail(node, checks) for node in _run(tree))


def _can_fail(node: ast.AST, checks: Set[str]) -> bool:
    if isinstance(node, ast.Assert):
        return not (isinstance(node.test, ast.Constant) and node.test.value)
    if isinstance(node, ast.Raise):
        return True
    if isinstance(node, ast.Call):
        name = getattr(node.func, "attr", getattr(node.func, "id", ""))
        return name.startswith("assert") or (name in ("fail", "raises") and isinstance(node.func, ast.Attribute))
    return isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) and node.id in checks


def _names_of_modules(trees: Sequence[ast.AST], around: Sequence[ast.AST]) -> list[str]:
    """Functions that tests call by the name of a module of Python (`select(a)`), where nothing else defines them.

    A module cannot be called, so they are the program's.
    """
    nodes = [node for tree in [*trees, *around] for node in ast.walk(tree)]
    bound = {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    bound |= {node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)}
    bound |= {(node.asname or node.name).split(".")[0] for node in nodes if isinstance(node, ast.alias)}
    called = [node.func.id for node in nodes if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)]
    return [name for name in dict.fromkeys(called) if name in sys.stdlib_module_names and name not in bound]


def _preamble(data: Mapping[str, Any]) -> str:
    return preamble_source(_text(data.get("preamble", ""), "preamble"))


def _tolerance(data: Mapping[str, Any]) -> float | None:
    value = data.get("float_tolerance")
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
        raise DataError(f"float_tolerance = {value!r} is no number from 0 up, such as 1e-6")
    return float(value)


def _lists(data: Mapping[str, Any]) -> tuple[Sequence[Any], Sequence[Any]]:
    inputs, outputs = data.get("inputs"), data.get("outputs")
    if not isinstance(inputs, Sequence) or not isinstance(outputs, Sequence) or isinstance(inputs, str):
        raise DataError("tests need the lists 'inputs' and 'outputs'")
    if len(inputs) != len(outputs) or not inputs:
        raise DataError(
            f"tests with {len(inputs)} inputs and {len(outputs)} outputs; they must be as many, and not none"
        )
    return inputs, outputs


def _text(value: object, key: str) -> str:
    if isinstance(value, list) and all(
        isinstance(line, str) for line in value
    ):  # APPS has lists of lines here and there
        return "\n".join(value)
    if not isinstance(value, str):
        raise DataError(f"{key} holds a {type(value).__name__} where a text belongs")
    return value


def _arguments(value: object) -> tuple[Any, ...]:
    if isinstance(value, str):  # LiveCodeBench: one argument a line, each as JSON
        try:
            return tuple(json.loads(line) for line in value.split("\n") if line.strip())
        except ValueError as error:
            raise DataError(f"the arguments {value[:80]!r} are not one JSON value a line: {error}") from error
    if not isinstance(value, list | tuple):
        raise DataError(f"an input of a call is a list of its arguments, not a {type(value).__name__}")
    return tuple(value)


def _value(text: object) -> object:
    """LiveCodeBench writes expected values as JSON too."""
    if not isinstance(text, str):
        return text
    try:
        return json.loads(text)
    except ValueError as error:
        raise DataError(f"the expected value {text[:80]!r} is no JSON, as its arguments are") from error


def _parsed(source: str, what: str) -> ast.Module:
    try:
        return parse(source)
    except SyntaxError as error:
        raise DataError(f"{what} is no Python: {error} in {source[:80]!r}") from error
