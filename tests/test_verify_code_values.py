"""Values over the wire, comparison of outputs, the program in a response, tests as data: no sandbox is needed."""

from __future__ import annotations

import json
import time
from collections import Counter, deque
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prmkit.errors import ConfigError, DataError
from prmkit.verify.code import CodeConfig
from prmkit.verify.code.compare import same_output, same_value
from prmkit.verify.code.extract import defines, extract_code
from prmkit.verify.code.inside.wire import decode, encode
from prmkit.verify.code.problems import AssertTests, CallTests, StdioTests, read_tests
from prmkit.verify.code.seccomp import filter_program

SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary()
KEYS = st.integers() | st.text() | st.tuples(st.integers(), st.text())
VALUES = st.recursive(
    SCALARS | st.complex_numbers(allow_nan=False) | st.decimals(allow_nan=False) | st.fractions(),
    lambda v: st.lists(v) | st.tuples(v, v) | st.dictionaries(KEYS, v) | st.sets(KEYS) | st.frozensets(KEYS),
    max_leaves=12,
)


def no_handle(value: Any) -> Any:
    raise AssertionError(f"{value!r} is plain data")


@given(VALUES)
def test_plain_values_survive_the_wire_with_their_types(value: Any) -> None:
    data = json.loads(json.dumps(encode(value, no_handle)))
    back = decode(data, no_handle)
    assert back == value
    assert type(back) is type(value)
    assert repr(back) == repr(value) or isinstance(value, set | frozenset | list | tuple | dict)


class Liar(int):
    __hash__ = int.__hash__

    def __eq__(self, other: object) -> bool:
        return True

    def __index__(self) -> int:
        return 5


class Words(list[str]):
    def __iter__(self) -> Any:
        return iter(["forged"])


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (Liar(77), 77),
        (Words(["a"]), ["a"]),
        (Counter("aab"), {"a": 2, "b": 1}),
        (deque([1, 2]), deque([1, 2])),
        ({1: 2}.keys(), {1}),
        ({1: 2}.items(), {(1, 2)}),
        (range(2, 9, 3), range(2, 9, 3)),
        ("\ud800", "\ud800"),
    ],
)
def test_subclasses_arrive_as_what_they_hold_not_as_what_they_say(value: Any, plain: Any) -> None:
    back = decode(json.loads(json.dumps(encode(value, no_handle))), no_handle)
    assert back == plain
    assert type(back) is type(plain)


def test_whole_numbers_beyond_the_limit_on_digits_pass() -> None:
    data = json.loads(json.dumps(encode(-(10**5000), no_handle)))
    assert decode(data, no_handle) == -(10**5000)
    assert same_value(data, -(10**5000))
    assert not same_value(data, -(10**5000) + 1)


def test_sets_are_written_in_one_order() -> None:
    assert encode({"b", "a", "c"}, no_handle) == {"set": ["a", "b", "c"]}


@pytest.mark.parametrize(
    ("found", "expected", "tolerance", "same"),
    [
        ("1 2\n3\n", "1 2\n3", 0, True),
        ("1  2 \r\n 3", "1 2\n3\n\n", 0, True),
        ("1 2", "1 2 3", 0, False),
        ("", "1", 0, False),
        ("", "\n", 0, True),
        ("YES", "Yes", 0, False),
        ("0.30000000000000004", "0.3", 0, False),
        ("0.30000000000000004", "0.3", 1e-9, True),
        ("1000001", "1000000", 1e-3, False),  # whole numbers are counts: no tolerance
        ("1000000.5", "1000000", 1e-6, True),  # 0.5 / 1000000.5 < 1e-6
        ("1000002.5", "1000000", 1e-6, False),  # 2.5 / 1000002.5 > 1e-6
        ("nan", "1.5", 1e-6, False),
        ("inf", "1.5", 1e-6, False),
        ("abc", "1.5", 1e-6, False),
    ],
)
def test_outputs_are_compared_by_tokens(found: str, expected: str, tolerance: float, same: bool) -> None:
    assert same_output(found, expected, tolerance) is same


@pytest.mark.parametrize(
    ("found", "expected", "tolerance", "same"),
    [
        ((1, 2), [1, 2], 0, True),
        ([1, [2, "a"]], [1, [2, "a"]], 0, True),
        ({1: "a"}, {"1": "a"}, 0, True),
        ({"a": 1, "b": 2}, {"a": 1}, 0, False),
        ({"a": 1}, {"a": 1, "b": 2}, 0, False),
        ({1: "a", "1": "a"}, {"1": "a", "2": "b"}, 0, False),  # one key twice
        ("1", 1, 0, False),
        (1, "1", 0, False),
        (None, 0, 0, False),
        (0.1 + 0.2, 0.3, 0, False),
        (0.1 + 0.2, 0.3, 1e-9, True),
        (100, 101, 0.1, False),
        (float("nan"), 0.5, 1e-6, False),
        ({1, 2}, [1, 2], 0, False),
        (b"a", "a", 0, False),
        (Decimal("1"), 1, 0, False),
        (Fraction(1, 2), 0.5, 0, False),
    ],
)
def test_values_are_compared_as_json(found: Any, expected: Any, tolerance: float, same: bool) -> None:
    assert same_value(json.loads(json.dumps(encode(found, no_handle))), expected, tolerance) is same


def test_keys_whose_hashes_collide_are_compared_quickly() -> None:
    pairs = {"dict": [[k * (2**61 - 1), 0] for k in range(100_000)]}
    start = time.process_time()
    assert not same_value(pairs, {str(k): 0 for k in range(100_000)})
    assert time.process_time() - start < 5  # in a dict of such keys, minutes


@pytest.mark.parametrize(
    ("response", "program"),
    [
        ("```python\nx = 1\n```", "x = 1\n"),
        ("First\n```python\nx = 1\n```\nbetter:\n```python\nx = 2\n```\nDone.", "x = 2\n"),
        ("```py\nx = 1\n```\nIt prints\n```text\n1\n```", "x = 1\n"),
        ("```\nx = 1\n```", "x = 1\n"),
        ("```cpp\nint x;\n```", "int x;\n"),
        ("~~~python\nx = '```'\n~~~", "x = '```'\n"),
        ("````python\ns = '''\n```\n'''\n````", "s = '''\n```\n'''\n"),
        ("Cut:\n```python\nx = 1\nfor", "x = 1\nfor"),
        ("```python\ns = '''\n```\n1\n```\n'''\nx = 1\n```\nDone", "s = '''\n```\n1\n```\n'''\nx = 1\n"),
        ("```python\ns = '''\n```\n```python\nx = 2\n```", "x = 2\n"),
        ("```python\ns = '''\n```\nDone", "s = '''\n"),
        ("```python\ns = \"'''\"\n```\n```\n3\n```", "s = \"'''\"\n"),
        ("    return a + b\n", "    return a + b\n"),
        ("```python\n    return a\n```", "    return a\n"),
        ("1. Like this:\n   ```python\n   def f():\n       return 1\n   ```", "def f():\n    return 1\n"),
        ("```python\nprint(3)\n```\nOutput:\n```\n3\n```", "print(3)\n"),
        ("Here: ```python\nx = 1\n```", "x = 1\n"),
        ("<think>\n```python\nx = 0\n```\n</think>```python\nx = 1\n```", "x = 1\n"),
        ("<think>```python\nx = 0\n```</think>", ""),
        ("no program", "no program"),
        ("", ""),
    ],
)
def test_the_program_is_the_last_block_labelled_python_else_the_last_without_a_label(
    response: str, program: str
) -> None:
    assert extract_code(response) == program


@pytest.mark.parametrize(
    "line",
    [
        "`" * 200_000,
        " " * 200_000 + "`",
        "```" + "a" * 200_000 + "`",
        "```\n" * 50_000,
        "x" + " " * 200_000,
        "a ```py" * 50_000,
    ],
)
def test_no_response_makes_extraction_slow(line: str) -> None:
    start = time.process_time()
    extract_code(line)
    defines(line.replace("`", "d"), "f")
    assert time.process_time() - start < 2


def test_definitions_are_those_of_the_outer_level() -> None:
    source = "class A:\n    def f(self): ...\nasync def g(): ...\ndef hh(): ...\n"
    assert [defines(source, name) for name in ("A", "f", "g", "h", "hh")] == [True, False, True, False, True]


def test_the_format_of_tests_is_told_by_their_keys() -> None:
    assert isinstance(read_tests({"inputs": ["1"], "outputs": ["2"]}), StdioTests)
    calls = read_tests('{"fn_name": "f", "inputs": [[1, 2]], "outputs": [[3]]}')
    assert isinstance(calls, CallTests)
    assert (calls.inputs, calls.outputs, calls.wrapped) == (((1, 2),), ([3],), True)
    lines = read_tests({"fn_name": "f", "inputs": ["[1, 2]\n3"], "outputs": ["[3]"]})
    assert isinstance(lines, CallTests)
    assert (lines.inputs, lines.outputs) == ((([1, 2], 3),), ([3],))
    asserts = read_tests({"tests": ["assert f(1) == 2", "x = f(2)", "assert x", "assert True"], "entry_point": "f"})
    assert isinstance(asserts, AssertTests)
    assert [s.counts for s in asserts.statements] == [True, False, True]
    assert asserts.statements[-1].source == "assert x\nassert True"  # what follows the last test is a part of it


@pytest.mark.parametrize(
    ("sources", "setup", "counts"),
    [
        (["def test_f():\n    assert f(1) == 2", "test_f()"], "", [False, True]),
        (["def test_f():\n    assert f(1) == 2\ntest_f()"], "", [True]),
        (["same(f(1), 2)"], "def same(a, b):\n    assert a == b", [True]),
        (
            ["assert f(1)"],
            "def test_check():\n    assert f(2)",
            [True],
        ),  # as some data sets have it: not one of the tests
        (["twice(f)", "x = f(1)"], "def same(a, b):\n    assert a == b\ndef twice(g): same(g(1), g(1))", [True]),
        (["for n in range(3):\n    assert f(n)", "check(f)"], "", [True, True]),
        (["[same(n, f(n)) for n in (1, 2)]"], "def same(a, b):\n    assert a == b", [True]),
        (["import asyncio\nasync def t():\n    assert await f(1) == 2\nasyncio.run(t())"], "", [False, True]),
        (
            ["t.assertEqual(f(1), 2)", "if f(1) != 2:\n    t.fail()", "y = f(1)", "assert f(1)"],
            "",
            [True, True, False, True],
        ),
        (["x = made(3)", "assert f(x)"], "def made(n):\n    if n < 0: raise ValueError\n    return n", [False, True]),
    ],
)
def test_a_test_is_what_can_fail_when_it_runs(sources: list[str], setup: str, counts: list[bool]) -> None:
    """An assert in a function that nobody calls holds whatever the program does."""
    tests = read_tests({"tests": sources, "setup": setup})
    assert isinstance(tests, AssertTests)
    assert [statement.counts for statement in tests.statements] == counts


@pytest.mark.parametrize(
    ("source", "setup", "names"),
    [
        ("assert select([3, 1]) == 1", "", ("select",)),
        ("assert select.f == 1", "", ()),
        ("assert copy(f(1)) == 1", "from copy import copy", ()),
        ("assert copy(f(1)) == 1", "from shutil import copy2 as copy", ()),
        ("assert f(1) == 1", "import math", ()),
        ("token = len\nassert token(f(1)) == 1", "", ()),
    ],
)
def test_a_function_called_like_a_module_is_the_programs(source: str, setup: str, names: tuple[str, ...]) -> None:
    tests = read_tests({"tests": [source], "setup": setup})
    assert isinstance(tests, AssertTests)
    assert tests.names == names


@pytest.mark.parametrize(
    ("tests", "message"),
    [
        ([], "must be an object, not a list"),
        ("{", "are no JSON"),
        ({}, "format None; known are stdio, calls, asserts"),
        ({"format": "pytest"}, "format 'pytest'"),
        ({"inputs": ["1"]}, "need the lists 'inputs' and 'outputs'"),
        ({"inputs": ["1"], "outputs": []}, "1 inputs and 0 outputs"),
        ({"inputs": [], "outputs": []}, "not none"),
        ({"inputs": [1], "outputs": ["1"]}, "inputs holds a int where a text belongs"),
        ({"format": "calls", "inputs": [[1]], "outputs": [1]}, "need fn_name"),
        ({"fn_name": "f", "inputs": [1], "outputs": [1]}, "a list of its arguments, not a int"),
        ({"fn_name": "f", "inputs": ["x y"], "outputs": ["1"]}, "not one JSON value a line"),
        ({"fn_name": "f", "inputs": ["1"], "outputs": ["x y"]}, "the expected value 'x y' is no JSON"),
        ({"tests": []}, "need a list of sources"),
        ({"tests": ["f(1)"]}, "no test asserts anything"),
        ({"tests": ["def test_f():\n    assert f(1) == 2"]}, "test_f is never called, so its asserts would never run"),
        ({"tests": ["def help():\n    assert f(1) == 2"]}, "no test asserts anything"),
        ({"tests": ["g = lambda: f(1)", "assert True"]}, "no test asserts anything"),
        ({"inputs": ["1"], "outputs": ["1"], "float_tolerance": "1e-6"}, "float_tolerance = '1e-6' is no number"),
        ({"fn_name": "f", "inputs": [[1]], "outputs": [1], "float_tolerance": "1e-6"}, "float_tolerance = '1e-6'"),
        ({"inputs": ["1"], "outputs": ["1"], "float_tolerance": float("inf")}, "float_tolerance = inf is no number"),
        ({"inputs": ["1"], "outputs": ["1"], "float_tolerance": -1}, "float_tolerance = -1 is no number"),
        ({"tests": ["assert f(1"]}, "a test is no Python"),
        ({"tests": ["assert f(1)"], "setup": "if"}, "setup is no Python"),
    ],
    ids=str,
)
def test_tests_that_cannot_be_read_say_why(tests: object, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_tests(tests)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"sandbox": "fusion"}, "url"),
        ({"url": "localhost:8080"}, "http"),
        ({"time_s": 0.0}, "time_s"),
        ({"memory_mb": 1}, "memory_mb"),
        ({"workers": 0}, "workers"),
        ({"float_tolerance": -1.0}, "float_tolerance"),
    ],
    ids=str,
)
def test_a_configuration_that_cannot_run_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        CodeConfig(**values)


def run_filter(program: bytes, architecture: int, number: int, argument: int) -> int:
    """What the kernel would return: a plain interpreter of the few instructions that the filter uses."""
    lines = [
        (
            int.from_bytes(program[i : i + 2], "little"),
            program[i + 2],
            program[i + 3],
            int.from_bytes(program[i + 4 : i + 8], "little"),
        )
        for i in range(0, len(program), 8)
    ]
    data = {0: number, 4: architecture, 16: argument}
    place, value = 0, 0
    while True:
        code, when_true, when_false, operand = lines[place]
        place += 1
        if code == 0x20:
            value = data[operand]
        elif code == 0x06:
            return operand
        else:
            holds = {0x15: value == operand, 0x35: value >= operand, 0x45: bool(value & operand)}[code]
            place += when_true if holds else when_false


ALLOW, KILL, EPERM, ENOSYS, NO_FAMILY = 0x7FFF0000, 0x80000000, 0x50001, 0x50026, 0x50061


@pytest.mark.parametrize(
    ("number", "argument", "verdict"),
    [
        (0, 0, ALLOW),  # read
        (319, 0, EPERM),  # memfd_create
        (272, 0, EPERM),  # unshare
        (101, 0, EPERM),  # ptrace
        (427, 0, EPERM),  # io_uring_register, the last in the table
        (435, 0, ENOSYS),  # clone3
        (56, 0x1200011, ALLOW),  # clone as fork does it
        (56, 0x10000000, EPERM),  # clone with CLONE_NEWUSER
        (41, 1, ALLOW),  # socket, AF_UNIX
        (41, 2, NO_FAMILY),  # AF_INET
        (41, 40, NO_FAMILY),  # AF_VSOCK
        (0x40000000 + 1, 0, KILL),  # x32
        (57, 0, ALLOW),  # fork
        (59, 0, ALLOW),  # execve
    ],
)
def test_the_system_call_filter(number: int, argument: int, verdict: int) -> None:
    program = filter_program("x86_64")
    assert program is not None
    assert run_filter(program, 0xC000003E, number, argument) == verdict
    assert run_filter(program, 0x40000003, number, argument) == KILL  # the 32-bit calling convention


def test_the_filter_of_aarch64_has_its_own_numbers() -> None:
    program = filter_program("aarch64")
    assert program is not None
    checks = [(279, 0), (220, 0x10000000), (220, 0x1200011), (198, 1), (198, 2), (63, 0)]
    found = [run_filter(program, 0xC00000B7, *check) for check in checks]
    assert found == [EPERM, EPERM, ALLOW, ALLOW, NO_FAMILY, ALLOW]
    assert filter_program("riscv64") is None
