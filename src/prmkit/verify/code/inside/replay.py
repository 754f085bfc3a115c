"""Program and tests where they cannot talk: each runs by itself, again and again, on a log of requests and replies.

The tests run until a statement asks what the log does not answer. The requests of each statement then run in a process of
the program, and their replies join the log. Results go out as the last line of standard output.
"""

from __future__ import annotations

import json
import os
import random
from typing import Any

from .host import Host, load
from .tester import CannotPass, Program, Tests
from .wire import Channel, Frame, describe


class Need(BaseException):
    """A request without a reply in the log."""


class _Log(Channel):
    """Replies of an earlier run, one statement's after the other's."""

    def __init__(self, pairs: dict[str, list[list[Frame]]]) -> None:
        self.limit, self._pairs = 0, pairs
        self._left: list[list[Frame]] = []
        self._reply: Frame = {}

    def turn_to(self, statement: int) -> None:
        self._left = list(self._pairs.get(str(statement), []))

    def send(self, frame: Frame) -> None:
        if not self._left:
            raise Need(json.dumps(frame))
        request, self._reply = self._left.pop(0)
        if json.dumps(request) != json.dumps(frame):
            raise CannotPass(
                "the tests ask something else each time they run, which a server of single runs cannot serve"
            )

    def receive(self) -> Frame:
        return self._reply


class _OneWay(Program):
    def outgoing(self, value: Any) -> Frame:
        frame = super().outgoing(value)
        if "function" in frame:
            raise CannotPass("a test passes a function of its own, which a server of single runs cannot serve")
        return frame


def replay_tests(problem: dict[str, Any]) -> dict[str, Frame]:
    """For each statement ("-1" is the setup) its verdict, or the request that has no reply yet (`need`).

    An open request of a statement that others build on leaves those out.
    """
    log = _Log(problem["log"])
    tests = Tests(problem, log, _OneWay)
    found: dict[str, Frame] = {}
    failed: Frame | None = None
    if (prepared := tests.prepare())["verdict"] != "passed":
        return {"problem": prepared}
    for number, (source, counts) in enumerate([[problem["setup"], False], *problem["statements"]], start=-1):
        log.turn_to(number)
        random.seed(number)  # tests that draw their arguments draw the same ones each time
        try:
            verdict = failed or tests.run(source)
        except Need as need:
            verdict = {"need": json.loads(str(need))}
        found[str(number)] = verdict
        if number == -1 and verdict.get("verdict") != "passed":
            break
        if not counts and "need" in verdict:
            break
        if not counts and verdict["verdict"] != "passed":  # as in `run_tests`
            failed = verdict
    return found


def replay_program(job: dict[str, Any]) -> list[Frame]:
    """The reply to each request, up to one that ends the process; or what loading the program raised, alone."""
    try:
        namespace = load(job)
    except BaseException as error:
        return [{"unloadable": describe(error)}]
    held = Host(namespace, None)
    replies: list[Frame] = []
    for request in job["requests"]:
        try:
            replies.append({"ok": held.handle(request)})
        except BaseException as error:
            replies.append(describe(error))
    return replies


def main(path: str) -> None:
    """Do the job in a JSON file; what the program prints is dropped."""
    with open(path, encoding="utf-8") as file:
        job = json.load(file)
    result = os.dup(1)
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    found: Any = replay_tests(job) if "statements" in job else replay_program(job)
    with open(result, "w", encoding="utf-8") as out:
        out.write("\n" + json.dumps(found) + "\n")
    os._exit(0)
