"""Programs judged in bubblewrap: the formats of tests, real rows, verdicts, and what is not decided."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from code_setup import bubblewrap_verifier, prompt, rows

from prmkit.errors import ConfigError, DataError, VerifierError
from prmkit.verify.code import (
    CodeConfig,
    CodeVerifier,
    apps_prompt,
    bubblewrap,
    code_contests_prompt,
    humaneval_prompt,
    leetcode_prompt,
    mbpp_prompt,
    unsafe,
)
from prmkit.verify.code.preambles import PREAMBLES

ADD = {"format": "stdio", "inputs": ["1 2\n", "3 4\n", "5 6\n"], "outputs": ["3\n", "7\n", "11\n"]}
SUM = "print(sum(map(int, input().split())))"


@pytest.fixture(scope="module")
def verifier() -> Iterator[CodeVerifier]:
    with bubblewrap_verifier(reward="fraction", time_s=60.0, workers=2) as made:
        yield made


@pytest.fixture(scope="module")
def strict() -> Iterator[CodeVerifier]:
    with bubblewrap_verifier(reward="all", time_s=60.0, memory_mb=128, output_mb=1, workers=2) as made:
        yield made


def statuses(verifier: CodeVerifier, tests: dict[str, Any], program: str) -> list[str]:
    return [test.status for test in verifier.check(prompt(tests), program).tests]


def test_each_input_has_its_verdict(verifier: CodeVerifier) -> None:
    program = "a, b = map(int, input().split())\nif a == 3: raise ValueError('no threes')\nprint(a + b if a < 5 else 0)"
    report = verifier.check(prompt(ADD), f"Here:\n```python\n{program}\n```")
    assert [test.status for test in report.tests] == ["passed", "raised", "wrong"]
    assert report.tests[1].detail == "ValueError: no threes"
    assert report.tests[2].detail == "token 1 of 1 is '0', not '11'"
    assert report.fraction == 1 / 3
    assert report.summary().startswith("1 of 3 tests passed (1 raised, 1 wrong); test 2: raised: ValueError: no threes")


RECORD = """
from dataclasses import dataclass
@dataclass
class Pair:
    x: int
    y: int
pair = Pair(*map(int, input().split()))
print(pair.x + pair.y)
"""
DEEP = """
import sys
sys.setrecursionlimit(10**6)
def count(n): return n and 1 + count(n - 1)
a, b = map(int, input().split())
print(count(20000) - 20000 + a + b)
"""


@pytest.mark.parametrize(
    "program",
    [
        "import sys\nfor line in sys.stdin: print(sum(map(int, line.split())))",
        "a, b = open(0).read().split()\nprint(int(a) + int(b))",
        "if __name__ == '__main__':\n    print(sum(map(int, input().split())))\n    exit()",
        f"{SUM}\nquit(0)",
        f"import threading\nthreading.stack_size(1 << 26)\nthreading.Thread(target=lambda: {SUM}).start()",
        "import threading, time\ndef late():\n    time.sleep(0.3)\n    "
        + SUM
        + "\nthreading.Thread(target=late).start()",
        "import atexit\na, b = map(int, input().split())\natexit.register(lambda: print(a + b))",
        "import os\na, b = map(int, input().split())\nos.write(1, str(a + b).encode())\nos._exit(0)",
        RECORD,
        DEEP,
        "import heapq, bisect, collections, itertools, functools, math, re, string, random, datetime, decimal, fractions\n"
        + SUM,
        "from multiprocessing.dummy import Pool\na = list(map(int, input().split()))\nprint(sum(Pool(2).map(int, a)))",
        "open('x', 'w').write(input())\nprint(sum(map(int, open('/tmp/x').read().split())))",
        # what is written as the interpreter ends
        f"import sys, io, atexit\nsys.stdout = io.StringIO()\n{SUM}\n"
        "atexit.register(lambda: sys.__stdout__.write(sys.stdout.getvalue()))",
        f"import sys, io\nold, sys.stdout = sys.stdout, io.StringIO()\n{SUM}\nold.write(sys.stdout.getvalue())",
        "import os\nclass Out:\n    def __init__(self): self.file, self.me = os.fdopen(1, 'w'), self\nout = Out()\n"
        "print(sum(map(int, input().split())), file=out.file)",
        f"import sys\n{SUM}\nsys.stdout.close()",
        f"import sys\n{SUM}\nsys.stdout = None",
    ],
    ids=range(18),
)
def test_programs_run_as_they_would_elsewhere(verifier: CodeVerifier, program: str) -> None:
    assert statuses(verifier, ADD, program) == ["passed"] * 3


@pytest.mark.parametrize(
    ("program", "status", "detail"),
    [
        ("print(3)\nexit(2)", "killed", "it left with exit code 2"),
        ("print(3)\nraise SystemExit('bad input')", "raised", "bad input"),
        ("print(3", "raised", "SyntaxError: '(' was never closed"),
        ("\x00", "raised", "null bytes"),
        ("import numpy", "raised", "ModuleNotFoundError: No module named 'numpy'"),
        (
            "import os, signal\nprint(3, flush=True)\nos.kill(os.getpid(), signal.SIGSEGV)",
            "killed",
            "killed by SIGSEGV",
        ),
    ],
)
def test_a_program_that_ends_badly_fails_even_with_the_right_output(
    verifier: CodeVerifier, program: str, status: str, detail: str
) -> None:
    test = verifier.check(prompt({"inputs": ["1 2\n"], "outputs": ["3\n"]}), program).tests[0]
    assert test.status == status
    assert detail in test.detail


def test_every_failure_of_a_program_is_a_reward_of_0_that_is_decided(strict: CodeVerifier) -> None:
    programs = {
        "wrong": "print(0)",
        "killed": "import os\nos.abort()",
        "raised": "held = bytearray(1 << 30)",
        "too_much": "while True: print('x' * 100_000)",
    }
    verdicts = dict(
        zip(programs, strict.verify([(prompt(ADD), program) for program in programs.values()]), strict=True)
    )
    with bubblewrap_verifier(time_s=0.5) as hasty:
        verdicts["timeout"] = hasty.verify([(prompt(ADD), "while True: pass")])[0]
    for status, verdict in verdicts.items():
        assert (verdict.status, verdict.reward) == ("ok", 0.0), verdict
        assert f"test 1: {status}" in verdict.detail
    assert "MemoryError" in verdicts["raised"].detail


def test_all_or_nothing_stops_at_the_first_failure(strict: CodeVerifier) -> None:
    program = "a, b = map(int, input().split())\nprint(a + b if a != 3 else 0)"
    assert statuses(strict, ADD, program) == ["passed", "wrong", "not_run"]
    assert strict.verify([(prompt(ADD), program)])[0].reward == 0.0
    assert strict.verify([(prompt(ADD), SUM)])[0].reward == 1.0


def test_a_program_is_given_up_after_so_many_time_outs() -> None:
    tests = {"inputs": [str(n) for n in range(6)], "outputs": ["0"] * 6}
    program = "n = int(input())\nwhile n in (1, 3): pass\nprint(0)"
    with bubblewrap_verifier(reward="fraction", time_s=0.7, give_up_after=2) as verifier:
        report = verifier.check(prompt(tests), program)
        found = [test.status for test in report.tests]
        assert found == ["passed", "timeout", "passed", "timeout", "not_run", "not_run"]
        assert report.fraction == pytest.approx(2 / 6)
    with bubblewrap_verifier(reward="fraction", time_s=0.7, give_up_after=0, max_tests=5) as verifier:
        assert statuses(verifier, tests, program) == ["passed", "timeout", "passed", "timeout", "passed"]


def test_a_float_tolerance_is_the_problems_or_the_configurations(verifier: CodeVerifier) -> None:
    tests: dict[str, Any] = {"inputs": [""], "outputs": ["0.333333"]}
    assert statuses(verifier, tests, "print(1 / 3)") == ["wrong"]
    assert statuses(verifier, {**tests, "float_tolerance": 1e-6}, "print(1 / 3)") == ["passed"]
    calls: dict[str, Any] = {"fn_name": "f", "inputs": [[3]], "outputs": [0.333333]}
    assert statuses(verifier, calls, "def f(n): return 1 / n") == ["wrong"]
    assert statuses(verifier, {**calls, "float_tolerance": 1e-6}, "def f(n): return 1 / n") == ["passed"]


def test_annotations_are_evaluated_as_python_does(verifier: CodeVerifier) -> None:
    """The sandbox's own files put their annotations off; what they run does not inherit that."""
    calls = {"fn_name": "f", "inputs": [[[1]]], "outputs": [1]}
    tests = asserts("assert f([1]) == 1")
    for program, status in (
        ("def f(a: List[int]): return a[0]", "raised"),
        ("def f(a: int): return f.__annotations__ == {'a': int} and a[0]", "passed"),
    ):
        assert statuses(verifier, calls, program) == statuses(verifier, tests, program) == [status]
    own = asserts("def g(a: int): pass", "assert g.__annotations__['a'] is int and f() == 1")
    assert statuses(verifier, own, "def f(): return 1") == ["passed"]
    assert statuses(verifier, ADD, f"def f(a: Nothing): pass\n{SUM}") == ["raised"] * 3


def test_calls_of_functions_and_of_solution(verifier: CodeVerifier) -> None:
    tests = {"fn_name": "pair", "inputs": [[[2, 7, 11], 9], [[1, 2], 9], [[3, 3], 6]], "outputs": [[0, 1], [], [0, 1]]}
    function = """
def pair(a, t):
    return next(((i, j) for j in range(len(a)) for i in range(j) if a[i] + a[j] == t), ())
"""
    method = """
class Solution:
    calls = 0
    def pair(self, a, t):
        self.calls += 1
        assert self.calls == 1  # each test has an object of its own
        return next(([i, j] for j in range(len(a)) for i in range(j) if a[i] + a[j] == t), [])
"""
    assert statuses(verifier, tests, method) == ["passed"] * 3
    assert statuses(verifier, tests, function) == ["passed"] * 3
    assert statuses(verifier, tests, function.replace("pair", "pairs")) == ["raised"] * 3
    assert statuses(
        verifier, tests, "def pair(a, t):\n    if t == 6: exit()\n    print('noise')\n    return [0, 1]"
    ) == [
        "passed",
        "wrong",
        "raised",
    ]
    ending = "import os\ndef pair(a, t):\n    if a[0] == 1: os._exit(0)\n    return [0, 1]"
    assert statuses(verifier, tests, ending) == ["passed", "killed", "passed"]
    assert statuses(verifier, tests, "def pair(a, t) return 0") == ["raised"] * 3


def test_a_list_of_one_may_be_the_value_or_a_wrapping(verifier: CodeVerifier) -> None:
    tests = {"fn_name": "f", "inputs": [[1], [2]], "outputs": [[1], [2]]}
    assert statuses(verifier, tests, "def f(n): return n") == ["passed"] * 2
    assert statuses(verifier, tests, "def f(n): return [n]") == ["passed"] * 2
    tests["outputs"] = [[1], [2, 2]]
    assert statuses(verifier, tests, "def f(n): return n") == ["wrong"] * 2


def asserts(*tests: str, **more: Any) -> dict[str, Any]:
    return {"format": "asserts", "tests": list(tests), **more}


@pytest.mark.parametrize(
    ("tests", "program"),
    [
        (asserts("assert f([3, 1]) == (1, 3)"), "def f(a): return tuple(sorted(a))"),
        (asserts("assert list(f(3)) == [0, 1, 2]"), "def f(n): return map(int, range(n))"),
        (asserts("assert set(f({1: 2})) == {1}", "assert f({1: 2}) == {1}"), "def f(d): return d.keys()"),
        (asserts("assert f('a b').group(1) == 'b'"), "import re\ndef f(s): return re.match('a (.)', s)"),
        (asserts("a = [3, 1]", "f(a)", "assert a == [1, 3]"), "def f(a): a.sort()"),
        (asserts("d = {1: [1]}", "f(d)", "assert d == {1: [1, 2]}"), "def f(d): d[1].append(2)"),
        (
            asserts("assert f([Pair(1, 2)]) == 3"),
            "class Pair:\n    def __init__(self, a, b): self.a, self.b = a, b\ndef f(p): return p[0].a + p[0].b",
        ),
        (
            asserts("p = Point(1)", "p.x = 5", "assert p.double() == 10", "assert p.x == 5"),
            "class Point:\n    def __init__(self, x): self.x = x\n    def double(self): return 2 * self.x",
        ),
        (
            asserts("assert s.m(**{'n': 2}) == 3", setup="s = Solution()"),
            "class Solution:\n    def m(self, n): return n + 1",
        ),
        (
            asserts("assert apply(lambda x: x + 1, [1, 2]) == [2, 3]", "assert apply(str, [1]) == ['1']"),
            "def apply(g, a): return [g(x) for x in a]",
        ),
        (
            asserts(
                "try:\n    f(0)\n    assert False\nexcept ZeroDivisionError as error:\n    assert 'zero' in str(error)\n"
            ),
            "def f(n): return 1 / n",
        ),
        (
            asserts("try:\n    f(0)\nexcept ValueError:\n    pass\nelse:\n    assert g()"),
            "class Own(ValueError): pass\ndef f(n): raise Own('x')\ndef g(): return False",
        ),
        (asserts("assert math.isclose(f(2), 1.4142135, rel_tol=1e-6)"), "def f(n): return n ** 0.5"),
        (asserts("assert sum(10, 15) == 6", names=["sum"]), "def sum(a, b): return 6"),
        (asserts("assert select([3, 1]) == 1"), "def select(a): return min(a)"),  # a module of Python has this name
        (asserts("def test_f():\n    assert f(1) == 2\n", "test_f()"), "def f(n): return n + 1"),
        (
            asserts(
                "assert f(Fraction(1, 2)) == Decimal('0.5')",
                setup="from fractions import Fraction\nfrom decimal import Decimal",
            ),
            "from decimal import Decimal\ndef f(x): return Decimal(x.numerator) / Decimal(x.denominator)",
        ),
        (asserts("assert all(f(n) == 10 ** n for n in (0, 400, 5000))"), "def f(n): return 10 ** n"),
        (asserts("for n in range(5):\n    assert f(n) == n * n\n"), "def f(n): return n * n"),
        (
            asserts("assert len(f()) == 2 and f()[1] == 5"),
            "class Box:\n    def __len__(self): return 2\n    def __getitem__(self, k): return 5\ndef f(): return Box()",
        ),
        (
            asserts("assert __name__ != '__main__'", "assert f()"),
            "def f(): return True\nif __name__ == '__main__': input()",
        ),
    ],
    ids=range(21),
)
def test_asserts_hold_across_the_wall(verifier: CodeVerifier, tests: dict[str, Any], program: str) -> None:
    report = verifier.check(prompt(tests), program)
    assert report.fraction == 1.0, report


def test_asserts_are_told_apart_and_go_on_after_one_that_ends_the_program(verifier: CodeVerifier) -> None:
    tests = asserts(*(f"assert f({n}) == {n}" for n in range(6)), "assert True", "assert f(9) == 9, 'nine'")
    program = """
import os, sys
def f(n):
    if n == 1: return 0
    if n == 2: os._exit(0)
    if n == 3: raise KeyError("three")
    if n == 4: sys.exit(0)
    return n if n < 9 else 8
"""
    report = verifier.check(prompt(tests), program)
    assert [test.status for test in report.tests] == [
        "passed",
        "wrong",
        "killed",
        "raised",
        "raised",
        "passed",
        "wrong",
    ]
    assert report.tests[3].detail == "KeyError: \"'three'\""
    assert report.tests[6].detail == "nine"


@pytest.mark.parametrize(
    ("tests", "expected"),
    [
        (asserts("from unittest import TestCase", "t = TestCase()", "t.assertEqual(f(2), 2)"), ["wrong"]),
        (asserts("assert f(1) == 1", "if f(2) != 2:\n    raise ValueError('two')"), ["passed", "raised"]),
        (asserts("assert f(1) == 1", "for i in (1, 2):\n    if f(i) != i: raise AssertionError"), ["passed", "wrong"]),
        (asserts("eq(f(1), 1)", "eq(f(2), 2)", setup="def eq(a, b):\n    if a != b: raise AssertionError"), ["passed", "wrong"]),
        (asserts("assert f(1) == 1", "{2: 1}[f(2)]", "assert f(1) == 1"), ["passed", "raised"]),
        (asserts("assert f(1) == 1", "assert f(1) == 1", "{2: 1}[f(2)]"), ["passed", "raised"]),
        (asserts("from solution import f as g", "assert g(2) == 2"), ["wrong"]),
    ],
    ids=range(7),
)  # fmt: skip
def test_a_wrong_program_fails_whatever_statement_finds_it(
    verifier: CodeVerifier, tests: dict[str, Any], expected: list[str]
) -> None:
    assert statuses(verifier, tests, "def f(n): return n") == ["passed"] * len(expected)
    assert statuses(verifier, tests, "def f(n): return 1") == expected


@pytest.mark.parametrize(
    "tests",
    [
        asserts("assert f(1) == 1", setup="import absent"),
        asserts("import absent as a", "assert a.close(f(1), 1)"),
        asserts("try:\n    import absent as a\nexcept ImportError:\n    pass", "assert a.close(f(1), 1)"),
        asserts("def same(x, y):\n    from absent import close\n    assert close(x, y)", "same(f(1), 1)"),
    ],
    ids=range(4),
)
def test_tests_without_what_they_import_decide_nothing(verifier: CodeVerifier, tests: dict[str, Any]) -> None:
    program = "class a:\n    close = staticmethod(lambda *_: True)\nabsent = a\ndef f(n): return n"
    assert verifier.verify([(prompt(tests), program)])[0].status == "error"
    raises = "def f(n): raise ImportError('absent')"  # a program cannot get out of it this way
    assert statuses(verifier, asserts("assert f(1) == 1"), raises) == ["raised"]


def test_packages_are_the_tests_too(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    (tmp_path / "near.py").write_text("def close(a, b): return abs(a - b) < 0.1")
    (tmp_path / "near.py").chmod(0o644)
    each = "import near\nassert near.close(f(1), 1)"
    ending = "import near, os\ndef f(n): return near.close(n, 1) or os._exit(0)"
    with bubblewrap_verifier(packages=str(tmp_path), reward="fraction") as verifier:
        assert statuses(verifier, asserts(each, "assert near.close(f(1), 1)"), "def f(n): return n") == ["passed"] * 2
        tests = asserts("import near\nassert near.close(f(2), 1)", "assert near.close(f(1), 1)")
        assert statuses(verifier, tests, ending) == ["killed", "passed"]


def test_statements_that_prepare_have_time_of_their_own() -> None:
    tests = asserts("assert f(1) == 1", "x = f(2)", "assert x == 2")
    with bubblewrap_verifier(time_s=1.5) as verifier:
        assert statuses(verifier, tests, "import time\ndef f(n):\n    time.sleep(0.8)\n    return n") == ["passed"] * 2


def test_whole_numbers_that_no_float_holds(verifier: CodeVerifier) -> None:
    tests: dict[str, Any] = {"fn_name": "f", "inputs": [[400], [2]], "outputs": [10**400, 1.5]}
    assert statuses(verifier, tests, "def f(n): return 10 ** n") == ["passed", "wrong"]
    near = {**tests, "float_tolerance": 1e-6}
    assert statuses(verifier, near, "def f(n): return 10 ** 400") == ["passed", "wrong"]


def test_a_test_that_hangs_does_not_take_the_others_along() -> None:
    tests = asserts("x = f(0)", "assert f(1) == 1", "assert f(2) == 2", "assert x == 0")
    with bubblewrap_verifier(reward="fraction", time_s=0.8) as verifier:
        program = "def f(n):\n    while n == 1: pass\n    return n"
        assert statuses(verifier, tests, program) == ["timeout", "passed", "passed"]
        assert statuses(verifier, tests, "while True: pass") == ["timeout"] * 3
        assert statuses(verifier, {"fn_name": "f", "inputs": [[1], [2]], "outputs": [1, 2]}, program) == [
            "timeout",
            "passed",
        ]


def test_instances_of_the_problems_own_classes_cross_the_wall(verifier: CodeVerifier) -> None:
    node = """
class Node:
    def __init__(self, value, next=None):
        self.value, self.next = value, next
    def __eq__(self, other):
        return isinstance(other, Node) and (self.value, self.next) == (other.value, other.next)
"""
    equal, none = "assert f(Node(1, Node(2))) == Node(2, Node(1))", "assert f(None) is None"
    tests = asserts(equal, none, prompt=node, names=["f"])
    turn = """
def f(head):
    last = None
    while head:
        last, head = Node(head.value, last), head.next
    return last
"""
    assert statuses(verifier, tests, turn) == ["passed"] * 2
    forged = """
class Node:
    def __init__(self, *values): self.value, self.next = values[0], None
    def __eq__(self, other): return True
def f(head): return Node(7)
"""
    assert statuses(verifier, tests, forged) == ["wrong"] * 2


def test_helpers_of_the_prompt_are_the_prompts_and_not_the_programs(verifier: CodeVerifier) -> None:
    source = """
def poly(xs, x):
    return sum(c * x ** i for i, c in enumerate(xs))

def zero(xs):
    ''' a root of poly '''
"""
    test = """
import random
def check(candidate):
    rng = random.Random(1)
    for _ in range(3):
        c = [rng.randint(1, 9), rng.randint(1, 9)]
        assert abs(poly(c, candidate(c))) < 1e-4
    assert abs(poly([0, 1], candidate([0, 1]))) < 1e-4
"""
    row = {"task_id": "made/1", "prompt": source, "entry_point": "zero", "test": test}
    row["canonical_solution"] = "    return -xs[0] / xs[1]\n"
    made = humaneval_prompt(row)
    report = verifier.check(made, made.answer)
    assert [test.status for test in report.tests] == ["passed", "passed"]
    forged = "def poly(xs, x): return 0\ndef zero(xs): return 77"
    assert [test.status for test in verifier.check(made, forged).tests] == ["wrong", "wrong"]


def test_real_rows_with_their_solutions(verifier: CodeVerifier) -> None:
    prompts = [
        *(humaneval_prompt(row) for row in rows("humaneval.jsonl")),
        *(mbpp_prompt(row) for row in rows("mbpp.jsonl")),
    ]
    assert len(prompts) == 9
    verdicts = verifier.verify([(made, made.answer) for made in prompts])
    assert {made.id: v.reward for made, v in zip(prompts, verdicts, strict=True)} == {made.id: 1.0 for made in prompts}
    nothing = zip(prompts, verifier.verify([(made, "x = 0") for made in prompts]), strict=True)
    # the prompt's own function returns None, which is right for the empty text, one of the four asserts of HumanEval/162
    assert {made.id: verdict.reward for made, verdict in nothing if verdict.reward} == {"HumanEval/162": 0.25}


def test_real_samples_of_models(verifier: CodeVerifier) -> None:
    problem = next(row for row in rows("humaneval.jsonl") if row["task_id"] == "HumanEval/55")
    samples = rows("codegen_samples.jsonl")[0]["samples"]
    verdicts = verifier.verify([(humaneval_prompt(problem), sample) for sample in samples])
    # as a plain interpreter finds: prompt, sample, test and check(fib) in one file
    assert [verdict.reward == 1.0 for verdict in verdicts] == [False, True, False, False, False, True]
    for row in rows("mbpp_reflexion.jsonl"):
        verdict = verifier.verify([(humaneval_prompt(row), row["solution"])])[0]
        assert (verdict.reward == 1.0) is row["is_solved"]


ARRAY_GAME = """
n, a = int(input()), list(map(int, input().split()))
def run(a):  # length of the increasing run at the left end; the first player wins if either is odd
    return next((k for k in range(1, n) if a[k] <= a[k - 1]), n)
print("Alice" if run(a) % 2 or run(a[::-1]) % 2 else "Bob")
"""


def test_code_contests_rows(verifier: CodeVerifier) -> None:
    (game,) = (code_contests_prompt(row) for row in rows("code_contests.jsonl"))
    assert "reads standard input" in game.messages[0].content
    outputs = game.meta["tests"]["outputs"]
    assert outputs == ["Bob\n", "Alice\n", "Alice\n", "Bob\n", "Alice\n"]
    verdicts = verifier.verify([(game, ARRAY_GAME), (game, "print('Alice')"), (game, "print('alice')")])
    assert [verdict.reward for verdict in verdicts] == [1.0, 3 / 5, 0.0]


def test_rows_of_apps_and_leetcode(verifier: CodeVerifier) -> None:
    called = apps_prompt(
        {
            "question": "Add.",
            "input_output": '{"fn_name": "add", "inputs": [[1, 2]], "outputs": [[3]]}',
            "starter_code": "def add(a, b):",
        }
    )
    read = apps_prompt(
        {
            "prompt": [{"role": "system", "content": "s"}, {"role": "user", "content": "Add."}],
            "reward_model": {"ground_truth": '{"inputs": ["1 2"], "outputs": ["3"]}'},
        }
    )
    leetcode = leetcode_prompt(
        {
            "task_id": "add",
            "prompt": "class Solution:\n    def add(self, a: int, b: int) -> int:\n",
            "test": "my_solution = Solution()\n\ntest_input = {'a': 1, 'b': 2}\nassert my_solution.add(**test_input) == 3\n",
        }
    )
    dataset = leetcode_prompt(
        {
            "task_id": "add",
            "prompt": "from typing import *\nclass ListNode:\n    pass\n",
            "entry_point": "Solution().add",
            "test": "def check(candidate):\n    assert candidate(a = 1, b = 2) == 3\n    assert candidate(a = 0, b = 0) == 0\n",
        }
    )
    method = "class Solution:\n    def add(self, a: int, b: int) -> int:\n        return a + b"
    verdicts = verifier.verify([(called, method), (read, SUM), (leetcode, method), (dataset, method)])
    assert [verdict.reward for verdict in verdicts] == [1.0] * 4, verdicts
    assert "Its function is add." in called.messages[0].content
    broken = [(each, method.replace("a + b", "a - b")) for each in (called, leetcode, dataset)]
    assert [verdict.reward for verdict in verifier.verify(broken)] == [0.0, 0.0, 0.5]


CHECK_OF_ADD = {
    "entry_point": "Solution().add",
    "test": "def check(candidate):\n    assert candidate(1, 2) == 3\n    assert candidate(0, 0) == 0\n",
}
STUB = 'class Solution:\n    def add(self, a: int, b: int) -> int:\n        """The sum."""\n'


@pytest.mark.parametrize("stub", [STUB, STUB + "        pass\n", "Add"])
@pytest.mark.parametrize(
    "test", [{"test": "s = Solution()\nassert s.add(1, 2) == 3\nassert s.add(0, 0) == 0"}, CHECK_OF_ADD]
)
def test_a_leetcode_prompt_that_is_python_defines_no_class_of_the_problem(
    verifier: CodeVerifier, stub: str, test: dict[str, str]
) -> None:
    asked = leetcode_prompt({"task_id": "add", "prompt": stub, **test})
    right = "class Solution:\n    def add(self, a, b):\n        return a + b"
    verdicts = verifier.verify([(asked, right), (asked, right.replace("+", "-"))])
    assert [(verdict.status, verdict.reward) for verdict in verdicts] == [("ok", 1.0), ("ok", 0.5)], verdicts


BARE = "Counter, heapq.heappop, math.floor, List[int]"
"""Names that a program of each published harness may use without an import."""


@pytest.mark.parametrize("name", PREAMBLES)
def test_programs_that_leave_imports_to_the_harness(verifier: CodeVerifier, name: str) -> None:
    body = f"    {BARE}\n    return math.floor(Counter([a, a])[a] * b / 2)"
    method = f"from __future__ import annotations\nclass Solution:\n  def f(self, a: List[int], b):\n{body}"
    asked = {
        "script": {"inputs": ["3 4", "5 6"], "outputs": ["4", "6"]},
        "calls": {"fn_name": "f", "inputs": [[3, 4], [5, 6]], "outputs": [4, 6]},
        "asserts": {"tests": ["assert Solution().f(3, 4) == 4", "assert Solution().f(5, 6) == 6"]},
    }
    script = f"def f(a: List[int], b):\n{body}\nprint(f(*map(int, input().split())))"
    for kind, tests in asked.items():
        program = script if kind == "script" else method
        work = [(prompt({**tests, "preamble": preamble}), program) for preamble in (name, "")]
        found, without = verifier.verify(work)
        assert (found.status, found.reward) == ("ok", 1.0), (kind, found)
        assert (without.status, without.reward) == ("ok", 0.0), (kind, without)
        assert "is not defined" in without.detail


STARS = """
import builtins
print(pow(2, 10, 1000), open is builtins.open, compile is builtins.compile, copy.copy([1]), datetime.date(1, 2, 3))
print(sub(5, 3), randint is random.randint, sys.getrecursionlimit(), stdin is sys.stdin, __name__)
"""


def test_later_imports_take_names_back_as_in_the_official_harness(verifier: CodeVerifier) -> None:
    for name, limit in (("livecodebench", 50_000), ("prime", 600_000)):
        printed = f"1024 True True [1] 0001-02-03\n2 True {limit} True __main__".replace("1024", "24")
        tests = {"inputs": [""], "outputs": [printed], "preamble": name}
        assert verifier.verify([(prompt(tests), STARS)])[0].detail == "1 of 1 tests passed"


def test_a_preamble_of_a_script_that_fails_by_itself_is_no_wrong_answer(verifier: CodeVerifier) -> None:
    tests = {"inputs": ["1", "2"], "outputs": ["1", "2"]}
    broken = prompt({**tests, "preamble": "import json\n1 / 0"})
    verdict = verifier.verify([(broken, "print(input())")])[0]
    assert (verdict.status, verdict.reward) == ("error", None)
    assert "the problem's own source fails: ZeroDivisionError" in verdict.detail
    own = prompt({**tests, "preamble": "import json as j"})
    right = "print(j.loads(input()))"
    planted = "open('json.py', 'w').write('1 / 0')\nimport os\nos._exit(1)"
    verdicts = verifier.verify([(own, right), (own, "print(j.nothing)"), (own, planted), (own, "print(0)")])
    assert [(verdict.status, verdict.reward) for verdict in verdicts] == [("ok", 1.0), *[("ok", 0.0)] * 3]


def test_rows_name_what_stands_before_their_programs() -> None:
    io = '{"inputs": ["1"], "outputs": ["1"]}'
    made = {
        "apps": apps_prompt({"question": "Q", "input_output": io}),
        "prime": apps_prompt({"question": "Q", "reward_model": {"ground_truth": io}}),
        "deepseek-leetcode": leetcode_prompt({"prompt": STUB, "test": "assert Solution().add(1, 2) == 3"}),
        "": leetcode_prompt({"prompt": "from typing import *\n" + STUB + "        pass\n", **CHECK_OF_ADD}),
    }
    assert {name: each.meta["tests"]["preamble"] for name, each in made.items()} == {name: name for name in made}
    own = apps_prompt({"question": "Q", "input_output": io.replace("{", '{"preamble": "", ')})
    assert own.meta["tests"]["preamble"] == ""
    assert (
        "preamble"
        not in code_contests_prompt({"problem": "P", "tests": {"inputs": [""], "outputs": [""]}}).meta["tests"]
    )


@pytest.mark.parametrize(
    ("tests", "problem", "message"),
    [
        (["assert isinstance(f(1), Node)"], "", "uses the program's Node as a class"),
        (["class Mine(Node):\n    pass\nassert Mine().x"], "", "uses the program's Node as a class"),
        (["assert f(1) == 2"], "class Node:\n    pass\nNode = Node()", "the problem's Node is no class"),
    ],
)
def test_what_stand_ins_cannot_do_for_the_tests_is_no_wrong_answer(
    verifier: CodeVerifier, tests: list[str], problem: str, message: str
) -> None:
    asked = prompt({"format": "asserts", "tests": tests, "prompt": problem})
    for program in ("class Node: x = 1\ndef f(n): return Node()", "def f(n): return n"):
        verdict = verifier.verify([(asked, program)])[0]
        assert (verdict.status, verdict.reward) == ("error", None)
        assert message in verdict.detail
    returned = prompt({"format": "asserts", "tests": ["assert isinstance(1, f(1))"]})  # the program must not choose
    assert verifier.verify([(returned, "def f(n): return object()")])[0].reward == 0.0


@pytest.mark.parametrize(
    ("make", "row", "message"),
    [
        (
            humaneval_prompt,
            {"prompt": "def f(): ...", "entry_point": "f"},
            "the row has no 'test'; it has prompt, entry_point",
        ),
        (humaneval_prompt, {"prompt": "x", "entry_point": "f", "test": "assert f()"}, "define no check"),
        (humaneval_prompt, {"prompt": "x", "entry_point": "f", "test": "def check("}, "no Python"),
        (mbpp_prompt, {"text": "x"}, "needs text"),
        (code_contests_prompt, {"problem": "x"}, "needs problem"),
        (apps_prompt, {"question": "x", "input_output": "{"}, "no JSON"),
        (leetcode_prompt, {"prompt": "x"}, "no 'test'"),
    ],
)
def test_rows_of_another_kind_are_refused(make: Any, row: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        make(row)


def test_order_is_kept(verifier: CodeVerifier) -> None:
    tests = [{"inputs": [""], "outputs": [str(n)]} for n in range(12)]
    slow_first = [f"import time\ntime.sleep({0.2 if n == 0 else 0})\nprint({n if n % 3 else -1})" for n in range(12)]
    verdicts = verifier.verify([(prompt(t), program) for t, program in zip(tests, slow_first, strict=True)])
    assert [verdict.reward for verdict in verdicts] == [float(n % 3 != 0) for n in range(12)]
    assert verifier.verify([]) == []


def test_a_response_without_a_program_is_decided(verifier: CodeVerifier) -> None:
    verdict = verifier.verify([(prompt(ADD), "```python\n```")])[0]
    assert (verdict.status, verdict.reward) == ("ok", 0.0)
    assert "no program" in verdict.detail


@pytest.mark.parametrize(
    ("tests", "message"),
    [
        ({"inputs": []}, "prompt 'p': tests need the lists"),
        (asserts("assert f(object()) == 1"), "a test passes a object"),
        (asserts("assert f() == 1", prompt="1 / 0"), "the problem's own source fails: ZeroDivisionError"),
    ],
)
def test_tests_that_cannot_be_run_are_an_error_and_no_reward(verifier: CodeVerifier, tests: Any, message: str) -> None:
    verdict = verifier.verify([(prompt(tests), "def f(*a): return 1")])[0]
    assert (verdict.status, verdict.reward) == ("error", None)
    assert message in verdict.detail
    with pytest.raises((DataError, VerifierError), match="prompt 'p'"):
        verifier.check(prompt(tests), "def f(*a): return 1")


@pytest.mark.parametrize(
    ("tests", "victim"),
    [
        ({"inputs": [""], "outputs": ["0"]}, 0),
        ({"fn_name": "f", "inputs": [[]], "outputs": [0]}, 0),
        (asserts("assert f() == 0"), 0),
        (asserts("assert f() == 0"), 1),
    ],
    ids=["stdio", "calls", "asserts", "asserts: the cell of the tests"],
)
def test_a_sandbox_ended_from_outside_is_an_error_and_no_reward(tests: dict[str, Any], victim: int) -> None:
    program = "import time\ndef f():\n    time.sleep(60)\n    return 0\nif __name__ == '__main__': f()"
    with bubblewrap_verifier(time_s=60.0, workers=1) as verifier:
        found: list[Any] = []
        thread = threading.Thread(target=lambda: found.append(verifier.verify([(prompt(tests), program)])[0]))
        thread.start()
        expected, end = 2 if "tests" in tests else 1, time.monotonic() + 60
        while len(outer := outermost(verifier)) < expected and time.monotonic() < end:
            time.sleep(0.05)
        time.sleep(0.5)
        os.kill(outer[victim], signal.SIGKILL)
        thread.join(60)
    assert (found[0].status, found[0].reward) == ("error", None), found
    assert "ended" in found[0].detail


def outermost(verifier: CodeVerifier) -> list[int]:
    """The first process of each cell, in the order of their start."""
    sandbox = verifier._sandbox
    return sorted(cell.pid for cell in sandbox._cells if not cell._killed)  # type: ignore[attr-defined]


def test_a_sandbox_that_does_not_start_is_an_error_that_says_why(verifier: CodeVerifier, monkeypatch: Any) -> None:
    monkeypatch.setattr(bubblewrap, "interpreter_command", lambda *a, **k: ["/no/such/python"])
    verdict = verifier.verify([(prompt(ADD), SUM)])[0]
    assert (verdict.status, verdict.reward) == ("error", None)
    assert "did not start" in verdict.detail
    assert "/no/such/python" in verdict.detail
    with pytest.raises(ConfigError, match=r"bubblewrap cannot make a sandbox here.*/no/such/python.*Docker"):
        CodeVerifier(CodeConfig(sandbox="bubblewrap"))


def test_without_bubblewrap_it_refuses_and_says_how_to_get_it(monkeypatch: Any) -> None:
    monkeypatch.setattr(bubblewrap.shutil, "which", lambda name: None)
    bubblewrap.find_bubblewrap.cache_clear()
    try:
        with pytest.raises(
            ConfigError, match=r"bwrap is not installed.*apt install bubblewrap.*sandbox-fusion.*unsafe"
        ):
            CodeVerifier(CodeConfig())
    finally:
        monkeypatch.undo()
        bubblewrap.find_bubblewrap.cache_clear()


def test_an_old_bubblewrap_is_refused(monkeypatch: Any, tmp_path: Any) -> None:
    old = tmp_path / "bwrap"
    old.write_text("#!/bin/sh\necho bubblewrap 0.6.1\n")
    old.chmod(0o755)
    monkeypatch.setattr(bubblewrap.shutil, "which", lambda name: str(old))
    bubblewrap.find_bubblewrap.cache_clear()
    try:
        with pytest.raises(ConfigError, match=r"bubblewrap 0\.6\.1\. Install bubblewrap 0\.8 or newer"):
            CodeVerifier(CodeConfig())
    finally:
        monkeypatch.undo()
        bubblewrap.find_bubblewrap.cache_clear()


def test_unsafe_warns_once_and_judges_alike() -> None:
    unsafe.warn_once.cache_clear()
    with pytest.warns(UserWarning, match="runs programs as you"):
        first = CodeVerifier(CodeConfig(sandbox="unsafe", reward="fraction", time_s=10.0))
    with first, CodeVerifier(CodeConfig(sandbox="unsafe")):  # a second warning would be an error here
        checks = [
            (prompt(ADD), SUM),
            (prompt({"fn_name": "f", "inputs": [[1]], "outputs": [2]}), "def f(n): return 2 * n"),
            (prompt(asserts("assert f(1) == 2", "assert f(2) == 5")), "def f(n): return 2 * n"),
        ]
        assert [verdict.reward for verdict in first.verify(checks)] == [1.0, 1.0, 0.5]


def test_a_closed_verifier_says_so_and_leaves_nothing_behind() -> None:
    verifier = bubblewrap_verifier()
    assert verifier.verify([(prompt(asserts("assert f()")), "def f(): return 1")])[0].reward == 1.0
    standing = verifier.standing_processes()
    assert standing
    verifier.close()
    verifier.close()
    end = time.monotonic() + 60
    while any(os.path.exists(f"/proc/{pid}") for pid in standing) and time.monotonic() < end:
        time.sleep(0.02)
    assert not [pid for pid in standing if os.path.exists(f"/proc/{pid}")]
    with pytest.raises(VerifierError, match="was closed"):
        verifier.verify([(prompt(ADD), SUM)])


def test_packages_can_be_given(tmp_path: Any) -> None:
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "helper.py").write_text("def double(n): return 2 * n\n")
    tmp_path.chmod(0o755)
    (tmp_path / "lib").chmod(0o755)
    (tmp_path / "lib" / "helper.py").chmod(0o644)
    program = "import helper\nprint(helper.double(int(input())))"
    with bubblewrap_verifier(packages=str(tmp_path / "lib")) as verifier:
        assert verifier.verify([(prompt({"inputs": ["2"], "outputs": ["4"]}), program)])[0].reward == 1.0
