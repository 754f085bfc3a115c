"""The client of a sandbox-fusion server, against a small server that speaks its `/run_code` and really runs the programs."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from code_setup import benchmark_module, prompt, rows

from prmkit.errors import ConfigError
from prmkit.verify.code import CodeConfig, CodeVerifier, fusion, humaneval_prompt, mbpp_prompt


class Server(ThreadingHTTPServer):
    """Requests that came, and what to answer instead of running the next ones: (status, body)."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.requests: list[dict[str, Any]] = []
        self.instead: list[tuple[int, bytes]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.requests.append(request)
        if self.path != "/run_code":
            status, body = 404, b"{}"
        elif self.server.instead:
            status, body = self.server.instead.pop(0)
        else:
            status, body = 200, json.dumps(run_code(request)).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


def run_code(request: dict[str, Any]) -> dict[str, Any]:
    """As the server's runner for Python does it: files beside the program, its folder as working directory."""
    with tempfile.TemporaryDirectory() as folder:
        for name, content in request.get("files", {}).items():
            path = Path(folder, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(base64.b64decode(content))
        Path(folder, "tmp0.py").write_text(request["code"])
        start = time.monotonic()
        result: dict[str, Any] = {"status": "Finished"}
        try:
            done = subprocess.run(
                [sys.executable, "tmp0.py"],
                cwd=folder,
                input=(request.get("stdin") or "").encode(),
                capture_output=True,
                timeout=request["run_timeout"],
                check=False,
                env={"PATH": os.environ["PATH"]},
            )
            result |= {"return_code": done.returncode, "stdout": done.stdout.decode(), "stderr": done.stderr.decode()}
        except subprocess.TimeoutExpired:
            result |= {"status": "TimeLimitExceeded", "return_code": None, "stdout": "", "stderr": ""}
    result["execution_time"] = time.monotonic() - start
    well = result["status"] == "Finished" and result["return_code"] == 0
    return {"status": "Success" if well else "Failed", "message": "", "run_result": result}


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as made:
        thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield made
        made.shutdown()
        thread.join()


@pytest.fixture
def verifier(server: Server) -> Iterator[CodeVerifier]:
    with CodeVerifier(CodeConfig(sandbox="fusion", url=server.url, reward="fraction", time_s=20.0)) as made:
        server.requests.clear()
        yield made


def statuses(verifier: CodeVerifier, tests: dict[str, Any], program: str) -> list[str]:
    return [test.status for test in verifier.check(prompt(tests), program).tests]


def test_each_test_is_a_request_with_its_limits(server: Server, verifier: CodeVerifier) -> None:
    tests = {"inputs": ["1 2", "3 4", "5 6"], "outputs": ["3", "7", "4711"]}
    program = "a, b = map(int, input().split())\nif a == 3: raise ValueError('three')\nprint(a + b)"
    report = verifier.check(prompt(tests), f"```python\n{program}\n```")
    assert [test.status for test in report.tests] == ["passed", "raised", "wrong"]
    assert report.tests[1].detail == "ValueError: three"
    assert [request["stdin"] for request in server.requests] == tests["inputs"]
    limits = {"code": program + "\n", "language": "python", "run_timeout": 20.0, "memory_limit_MB": 512}
    assert {key: server.requests[0][key] for key in limits} == limits
    assert "4711" not in json.dumps(server.requests)  # no expected output leaves this machine


def test_calls(server: Server, verifier: CodeVerifier) -> None:
    tests = {"fn_name": "f", "inputs": [[[1, 2]], [[3]], [[]]], "outputs": [[2, 3], [4], [777]]}
    assert statuses(verifier, tests, "def f(a):\n    print('noise')\n    return [x + 1 for x in a]") == [
        "passed"
    ] * 2 + ["wrong"]
    method = "class Solution:\n    def f(self, a):\n        if not a: raise KeyError(1)\n        return tuple(x + 1 for x in a)"
    assert statuses(verifier, tests, method) == ["passed"] * 2 + ["raised"]
    assert statuses(verifier, tests, "import os\ndef f(a): os._exit(0)") == ["killed"] * 3
    assert statuses(verifier, tests, "def f(a) return") == ["raised"] * 3
    assert "777" not in json.dumps([request["files"]["job.json"] for request in server.requests])
    broken = {**tests, "preamble": "1 / 0"}
    verdict = verifier.verify([(prompt(broken), method)])[0]
    assert (verdict.status, verdict.reward) == ("error", None)
    assert "ZeroDivisionError" in verdict.detail


def test_what_stands_before_a_program_that_reads(server: Server, verifier: CodeVerifier) -> None:
    tests = {"inputs": ["1.5", "2"], "outputs": ["1", "2"], "preamble": "apps"}
    program = "from __future__ import annotations\nprint(floor(float(stdin.readline())))"
    assert statuses(verifier, tests, program) == ["passed", "passed"]
    verdict = verifier.verify([(prompt({**tests, "preamble": "1 / 0"}), program)])[0]
    assert (verdict.status, verdict.reward) == ("error", None)
    assert "ZeroDivisionError" in verdict.detail


def asserts(*tests: str, **more: Any) -> dict[str, Any]:
    return {"format": "asserts", "tests": list(tests), **more}


@pytest.mark.parametrize(
    ("tests", "program", "found"),
    [
        (
            asserts("assert f(2) == 4", "assert f(3) == 7", "assert f(f(2)) == 8"),
            "def f(n): return 2 * n",
            "passed wrong passed",
        ),
        (
            asserts("s = Solution()", "assert s.m(1) == 2", "assert s.m(n=5) == 6"),
            "class Solution:\n    def m(self, n): return n + 1",
            "passed passed",
        ),
        (
            asserts("assert s.m(1) == 2", setup="s = Solution()"),
            "class Solution:\n    def m(self, n): return n + 1",
            "passed",
        ),
        (asserts("assert list(f()) == list(range(300))"), "def f(): yield from range(300)", "passed"),
        (asserts("import random\nn = random.random()", "assert f(n) == n"), "def f(n): return n", "passed"),
        (asserts("a = [3, 1]", "f(a)", "assert a == [1, 3]"), "def f(a): a.sort()", "passed"),
        (asserts("assert f({'a', 'b', 'c'}) == 3"), "def f(s): return len(s)", "passed"),
        (
            asserts("assert f(1) == 1", "assert f(2) == 2", "assert f(3) == 3"),
            "import os\ndef f(n):\n    if n == 2: os._exit(0)\n    return n",
            "passed killed passed",
        ),
        (
            asserts("try:\n    f(0)\n    assert False\nexcept ZeroDivisionError:\n    pass\n"),
            "def f(n): return 1 / n",
            "passed",
        ),
        (asserts("assert f(1) == 2", "assert g(1) == 1"), "def f(n): return 2", "passed raised"),
        (asserts("assert f() == 1", setup="s = Missing()"), "def f(): return 1", "raised"),
        (asserts("assert f() == 1"), "1 / 0", "raised"),
    ],
    ids=range(12),
)
def test_asserts_by_replay(verifier: CodeVerifier, tests: dict[str, Any], program: str, found: str) -> None:
    report = verifier.check(prompt(tests), program)
    assert [test.status for test in report.tests] == found.split(), report


def test_a_program_that_hangs_is_decided(server: Server) -> None:
    with CodeVerifier(CodeConfig(url=server.url, reward="fraction", time_s=2.0)) as verifier:
        program = "def f(n):\n    while n == 1: pass\n    return n"
        assert statuses(verifier, asserts("assert f(1) == 1", "assert f(2) == 2"), program) == ["timeout", "passed"]
        assert statuses(verifier, {"inputs": [""], "outputs": [""]}, "while True: pass") == ["timeout"]
        assert statuses(verifier, {"fn_name": "f", "inputs": [[1]], "outputs": [1]}, program) == ["timeout"]


def test_a_function_of_the_tests_cannot_be_passed_and_is_no_reward(verifier: CodeVerifier) -> None:
    tests = asserts("assert f(lambda x: x) == 1")
    verdict = verifier.verify([(prompt(tests), "def f(g): return g(1)")])[0]
    assert (verdict.status, verdict.reward) == ("error", None)
    assert "a server of single runs cannot serve" in verdict.detail


def test_programs_that_only_look_right_fail_and_meet_no_test(server: Server, verifier: CodeVerifier) -> None:
    escapes = benchmark_module("_escapes")
    names = ("__eq__ is true", "os._exit(0) when loaded", "lies about its class", "patches the checker", "in memory")
    chosen = [each for each in escapes.LOOKS_RIGHT if any(name in each.name for name in names)]
    assert len(chosen) == 6
    for escape in chosen:
        assert verifier.check(escapes.as_prompt(escape.tests), escape.program).passed == 0, escape.name
    jobs = [json.loads(base64.b64decode(r["files"]["job.json"])) for r in server.requests]
    of_programs = [job for job in jobs if "requests" in job]
    assert of_programs
    assert escapes.SECRET not in json.dumps(of_programs)


def test_real_rows(verifier: CodeVerifier) -> None:
    prompts = [humaneval_prompt(rows("humaneval.jsonl")[0]), mbpp_prompt(rows("mbpp.jsonl")[0])]
    assert [verdict.reward for verdict in verifier.verify([(made, made.answer) for made in prompts])] == [1.0, 1.0]


CHECK = ({"inputs": [""], "outputs": ["1"]}, "print(1)")
SANDBOX_ERROR = json.dumps({"status": "SandboxError", "message": "no pod left", "run_result": None}).encode()

NO_CODE = json.dumps({"status": "Success", "run_result": {"status": "Finished", "stdout": "1"}}).encode()


@pytest.mark.parametrize(
    ("instead", "detail"),
    [
        ([(200, SANDBOX_ERROR)], "no pod left"),
        ([(200, NO_CODE)], "does not say how the program ended"),
        ([(200, b"not json")], "answers no JSON"),
        ([(200, b"[]")], "answers no object"),
        ([(422, b"{}")], "answers 422"),
        ([(503, b"{}")] * 4, "answers 503"),
    ],
    ids=["sandbox error", "no exit code", "no json", "no object", "422", "503 again and again"],
)
def test_a_server_that_fails_is_an_error_and_no_reward(
    server: Server, verifier: CodeVerifier, monkeypatch: Any, instead: list[tuple[int, bytes]], detail: str
) -> None:
    monkeypatch.setattr(fusion, "_FIRST_PAUSE_S", 0.001)
    server.instead = list(instead)
    verdict = verifier.verify([(prompt(CHECK[0]), CHECK[1])])[0]
    assert (verdict.status, verdict.reward) == ("error", None)
    assert detail in verdict.detail
    assert len(server.requests) == len(instead)


def test_a_busy_server_is_asked_again(server: Server, verifier: CodeVerifier, monkeypatch: Any) -> None:
    monkeypatch.setattr(fusion, "_FIRST_PAUSE_S", 0.001)
    server.instead = [(429, b"{}"), (500, b"{}")]
    assert verifier.verify([(prompt(CHECK[0]), CHECK[1])])[0].reward == 1.0
    assert len(server.requests) == 3


@pytest.mark.parametrize("sandbox", ["fusion", "auto"])  # auto does not fall back on this machine
def test_a_server_that_is_not_there_is_refused_with_how_to_get_one(sandbox: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(fusion, "_FIRST_PAUSE_S", 0.001)
    with pytest.raises(ConfigError, match=r"does not run programs: .*cannot be reached.*docker run.*sandbox-fusion"):
        CodeVerifier(CodeConfig(sandbox=sandbox, url="http://127.0.0.1:9"))


def test_something_else_at_the_url_is_refused(server: Server) -> None:
    server.instead = [
        (
            200,
            json.dumps(
                {"status": "Success", "run_result": {"status": "Finished", "return_code": 0, "stdout": "41"}}
            ).encode(),
        )
    ]
    with pytest.raises(ConfigError, match="is it a sandbox-fusion server"):
        CodeVerifier(CodeConfig(url=server.url))
    with pytest.raises(ConfigError, match="packages"):
        CodeVerifier(CodeConfig(url=server.url, packages="/tmp"))
