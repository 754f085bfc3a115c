"""Programs on a sandbox-fusion server (github.com/bytedance/SandboxFusion), by its `/run_code`.

The server runs one program at a time and gives back what it printed. Expected outputs stay here; for asserts, program and
tests run in requests of their own (`inside.replay`), so a program never meets a test there either.
"""

from __future__ import annotations

import base64
import functools
import http.client
import json
import time
import urllib.error
import urllib.request
from typing import Any

from prmkit.errors import ConfigError
from prmkit.verify.code.calls import compared, is_solution, no_handle
from prmkit.verify.code.cell import INSIDE, CellError
from prmkit.verify.code.config import CodeConfig
from prmkit.verify.code.inside.wire import Frame, encode
from prmkit.verify.code.problems import AssertTests, CallTests, StdioTests, Tests
from prmkit.verify.code.report import CodeReport, TestVerdict, Unjudged, decided
from prmkit.verify.code.run_all import run_all
from prmkit.verify.code.stdio import printed_verdict

_ATTEMPTS, _FIRST_PAUSE_S = 4, 0.5
_TRY_AGAIN = {408, 429, 500, 502, 503, 504}
_SLACK_S = 60.0
"""For the server's queue."""
_ROUNDS = 200
_START_TESTS_S = 30.0
_BOOT = "import sys; sys.path.insert(0, '.'); from inside.replay import main; main('job.json')"
HOW_TO_GET = "docker run -it -p 8080:8080 volcengine/sandbox-fusion:server-20250609"


class FusionSandbox:
    """A server that runs programs. Stateless: each test is a request."""

    def __init__(self, config: CodeConfig) -> None:
        """Raises ConfigError when the server does not run a program."""
        self._config = config
        self._url = config.url.rstrip("/") + "/run_code"
        if config.packages:
            raise ConfigError("packages is of this machine; on a sandbox-fusion server, install them in its image")
        try:
            answer = self._run({"code": "print(6 * 7)"}, config.time_s)
        except CellError as error:
            raise ConfigError(
                f"url = {config.url!r} does not run programs: {error}. A server: {HOW_TO_GET} (docs/code_verifier.md)."
            ) from error
        if answer["stdout"].strip() != "42":
            raise ConfigError(f"url = {config.url!r} answers {answer} to print(6 * 7); is it a sandbox-fusion server?")

    def judge(self, tests: Tests, source: str) -> CodeReport:
        """All tests of one program. Raises CellError and Unjudged."""
        if isinstance(tests, StdioTests | CallTests):
            self._check_preamble(tests.preamble)
        if isinstance(tests, StdioTests):
            return run_all(functools.partial(self._stdio, source, tests), len(tests.inputs), self._config)
        if isinstance(tests, CallTests):
            return run_all(functools.partial(self._call, source, tests), len(tests.inputs), self._config)
        asserts = _Asserts(self, source, tests)
        return run_all(asserts.run_test, asserts.total, self._config)

    def standing_processes(self) -> list[int]:
        """None of this machine."""
        return []

    def close(self) -> None:
        """Nothing is held here."""

    def _stdio(self, source: str, tests: StdioTests, number: int) -> TestVerdict:
        code = source
        if tests.preamble.strip():  # apart, as the program's first line may be one that has to be the first
            code = "".join(f"exec(compile({part!r}, 'main.py', 'exec'))\n" for part in (tests.preamble, source))
        answer = self._run({"code": code, "stdin": tests.inputs[number]}, self._config.time_s)
        return self._ended(answer) or printed_verdict(answer["stdout"], tests, number, self._config, answer["seconds"])

    def _call(self, source: str, tests: CallTests, number: int) -> TestVerdict:
        arguments = [encode(value, no_handle) for value in tests.inputs[number]]
        where: Frame = {"name": tests.function}
        requests: list[Frame] = []
        if is_solution(source, tests.function):  # the object is the first thing kept, its method the second
            requests.append({"op": "call", "on": {"name": "Solution"}, "with": [[], {}]})
            requests.append({"op": "attribute", "on": {"kept": 0}, "with": [tests.function]})
            where = {"kept": 1}
        requests.append({"op": "call", "on": where, "with": [arguments, {}]})
        replies = self.program([tests.preamble, source], (), requests)
        if isinstance(replies, TestVerdict):
            return replies
        last = replies[-1]
        if "raise" in last:
            return decided("raised", f"{last.get('type', '')}: {last.get('text', '')}")
        answer = last.get("ok")
        value = answer.get("value") if isinstance(answer, dict) else None
        return compared(value, tests, number, self._config)

    def _check_preamble(self, preamble: str) -> None:
        if preamble.strip():
            loaded = self.program([preamble], (), [])
            if isinstance(loaded, TestVerdict):
                raise Unjudged(f"the problem's own source fails: {loaded.detail}")

    def program(self, parts: list[str], shared: tuple[str, ...], requests: list[Frame]) -> list[Frame] | TestVerdict:
        """Replies of a program to requests, in a process of its own; or how that process ended otherwise."""
        answer = self._job({"parts": parts, "shared": shared, "requests": requests}, self._config.time_s)
        if ended := self._ended(answer):
            return ended
        replies = _last_line(answer["stdout"])
        if not isinstance(replies, list) or not all(isinstance(reply, dict) for reply in replies):
            return decided("killed", "it ended before it answered")
        if replies and "unloadable" in replies[0]:
            error = replies[0]["unloadable"]
            return decided(
                "raised", f"{error.get('type', '')}: {error.get('text', '')}" if isinstance(error, dict) else ""
            )
        if len(replies) < len(requests):
            return decided("killed", "it ended before it answered")
        return replies

    def tests(self, problem: dict[str, Any]) -> dict[str, Frame]:
        """What the tests say of a log. Raises CellError when their own process fails."""
        answer = self._job(problem, max(_START_TESTS_S, self._config.time_s))
        found = _last_line(answer["stdout"])
        if not isinstance(found, dict):
            raise CellError(f"the process of the tests failed on the server: {answer['stderr'][-200:]}")
        return found

    def _job(self, job: dict[str, Any], time_s: float) -> dict[str, Any]:
        return self._run({"code": _BOOT, "files": {**_inside_files(), "job.json": _base64(json.dumps(job))}}, time_s)

    def _ended(self, answer: dict[str, Any]) -> TestVerdict | None:
        """The verdict on a program that did not end well; None for one that did."""
        if answer["status"] == "TimeLimitExceeded":
            return decided("timeout", f"stopped after {self._config.time_s:g} s", answer["seconds"])
        code = answer["code"]
        if code == 0:
            return None
        words = answer["stderr"].strip().splitlines()
        if code is not None and code > 0 and words:
            return decided("raised", words[-1], answer["seconds"])
        return decided("killed", f"it left with exit code {code}", answer["seconds"])

    def _run(self, request: dict[str, Any], time_s: float) -> dict[str, Any]:
        """One run. Raises CellError when the server does not say how it ended."""
        limits = {"language": "python", "run_timeout": time_s, "memory_limit_MB": self._config.memory_mb}
        answer = self._post(json.dumps({**limits, **request}).encode(), time_s + _SLACK_S)
        result = answer.get("run_result")
        if answer.get("status") == "SandboxError" or not isinstance(result, dict) or result.get("status") == "Error":
            raise CellError(f"{self._url} could not run the program: {str(answer.get('message') or answer)[:300]}")
        status, code = result.get("status"), result.get("return_code")
        if status != "TimeLimitExceeded" and not isinstance(code, int):  # nothing says that the program failed
            raise CellError(f"{self._url} does not say how the program ended: {str(answer)[:300]}")
        return {
            "status": status,
            "code": code,
            "stdout": str(result.get("stdout") or ""),
            "stderr": str(result.get("stderr") or ""),
            "seconds": float(result.get("execution_time") or 0.0),
        }

    def _post(self, data: bytes, timeout_s: float) -> dict[str, Any]:
        request = urllib.request.Request(self._url, data, {"Content-Type": "application/json"})
        reason = ""
        for attempt in range(_ATTEMPTS):
            if attempt:
                time.sleep(_FIRST_PAUSE_S * 2 ** (attempt - 1))
            try:
                with urllib.request.urlopen(request, timeout=timeout_s) as response:
                    answer = json.load(response)
            except urllib.error.HTTPError as error:
                reason = f"{self._url} answers {error.code} {error.reason}"
                if error.code not in _TRY_AGAIN:
                    break
            except (OSError, http.client.HTTPException) as error:
                reason = f"{self._url} cannot be reached: {error}"
            except ValueError as error:
                raise CellError(f"{self._url} answers no JSON: {error}") from error
            else:
                if not isinstance(answer, dict):
                    raise CellError(f"{self._url} answers no object")
                return answer
        raise CellError(reason)


class _Asserts:
    """Tests and program in turn, until the log answers every test."""

    def __init__(self, server: FusionSandbox, source: str, tests: AssertTests) -> None:
        self._server, self._parts, self._tests = server, [tests.prompt, source], tests
        self._numbers = [i for i, statement in enumerate(tests.statements) if statement.counts]
        self.total = len(self._numbers)
        self._log: dict[str, list[list[Frame]]] = {}
        self._lost: dict[int, TestVerdict] = {}
        """Statements whose requests the program did not survive."""
        self._found = self._ask_tests()

    def run_test(self, number: int) -> TestVerdict:
        """The verdict of one test. Raises CellError and Unjudged."""
        statement = self._numbers[number]
        for _ in range(_ROUNDS):
            open_statement = self._open(statement)
            if open_statement is None:
                return self._lost.get(statement) or _verdict(self._found[str(statement)])
            if open_statement in self._lost:  # a statement that this one builds on
                return self._lost[open_statement]
            if (failed := self._found[str(open_statement)]).get("verdict"):
                return _verdict(failed)
            self._answer(open_statement)
        if self._found[str(statement)]["need"].get("op") in ("take", "next"):  # how often is the program's doing
            return decided("too_much", f"its iterator was asked {_ROUNDS} times and had not ended")
        raise Unjudged(f"a test asks the program more than {_ROUNDS} things, too many for a server of single runs")

    def _open(self, statement: int) -> int | None:
        """The first statement, up to this one, that stands in the way of its verdict; None where there is one."""
        if statement in self._lost:
            return None
        found = self._found
        before = [i for i in range(-1, statement) if i < 0 or not self._tests.statements[i].counts]
        for i in before:
            if "need" in found.get(str(i), {}) or (i < 0 and found[str(i)]["verdict"] != "passed"):
                return i
        return statement if "need" in found[str(statement)] else None

    def _answer(self, statement: int) -> None:
        """Run the program on one more request of a statement, after those of the statements that prepare it."""
        before = [i for i in range(-1, statement) if i < 0 or not self._tests.statements[i].counts]
        pairs = [pair for i in before for pair in self._log.get(str(i), [])]
        own = self._log.setdefault(str(statement), [])
        request = self._found[str(statement)]["need"]
        requests = [pair[0] for pair in (*pairs, *own)] + [request]
        replies = self._server.program(self._parts, self._tests.classes, requests)
        if isinstance(replies, TestVerdict):
            self._lost[statement] = replies
            return
        own.append([request, replies[-1]])
        self._found = self._ask_tests()

    def _ask_tests(self) -> dict[str, Frame]:
        tests = self._tests
        found = self._server.tests(
            {
                "prompt": tests.prompt,
                "setup": tests.setup,
                "names": tests.names,
                "shared": tests.classes,
                "imports": tests.imports,
                "statements": [[statement.source, statement.counts] for statement in tests.statements],
                "log": self._log,
            }
        )
        for verdict in found.values():
            if verdict.get("verdict") == "error":
                raise Unjudged(str(verdict.get("detail", "")))
        return found


def _verdict(frame: Frame) -> TestVerdict:
    return decided(frame["verdict"], str(frame.get("detail", "")))


def _last_line(text: str) -> Any:
    lines = text.strip().splitlines()
    try:
        return json.loads(lines[-1]) if lines else None
    except (ValueError, RecursionError):
        return None


def _base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


@functools.cache
def _inside_files() -> dict[str, str]:
    return {
        f"inside/{path.name}": _base64(path.read_text(encoding="utf-8")) for path in (INSIDE / "inside").glob("*.py")
    }
