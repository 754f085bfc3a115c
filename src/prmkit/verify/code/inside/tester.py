"""The process that holds the tests of a problem and never sees the program: names of the program are stand-ins that ask it.

Asserts run here, on values that are rebuilt from plain data. A stand-in forwards calls, attributes, items and iteration, but
no comparison: what is compared is always plain data of this process.
"""

from __future__ import annotations

import builtins
import importlib
import sys
import types
from collections.abc import Iterator
from typing import Any

from .host import MODULE
from .wire import Channel, Closed, Frame, Peer, TooLarge, decode, describe, encode

_PORTION = 256


class CannotPass(BaseException):
    """A test hands the program something that cannot leave this process."""


class ProgramGone(BaseException):
    """The program's process has ended; no test's `except Exception` may swallow that."""


class StandIn:
    """Something that lives in the program's process."""

    def __init__(self, program: Program, where: Frame) -> None:
        object.__setattr__(self, "_at", (program, where))

    def __call__(self, *arguments: Any, **keywords: Any) -> Any:
        """Call it in the program's process."""
        program, where = object.__getattribute__(self, "_at")
        return program.call(where, arguments, keywords)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name.endswith("__"):
            raise AttributeError(name)
        return _ask(self, "attribute", name)

    def __setattr__(self, name: str, value: Any) -> None:
        _ask(self, "set attribute", name, value)

    def __getitem__(self, key: Any) -> Any:
        return _ask(self, "item", key)

    def __setitem__(self, key: Any, value: Any) -> None:
        _ask(self, "set item", key, value)

    def __len__(self) -> int:
        return int(_ask(self, "length"))

    def __iter__(self) -> Iterator[Any]:
        iterator = _ask(self, "iterate")
        return _items(iterator) if isinstance(iterator, StandIn) else iter(iterator)

    def __next__(self) -> Any:
        return _ask(self, "next")

    def __bool__(self) -> bool:
        return True

    def __instancecheck__(self, instance: Any) -> bool:
        raise _used_as_class(self)

    def __mro_entries__(self, bases: tuple[Any, ...]) -> tuple[type, ...]:
        raise _used_as_class(self)

    def __str__(self) -> str:
        return str(_ask(self, "text"))

    def __repr__(self) -> str:
        return "<something that the program returned>"


def _used_as_class(stand_in: StandIn) -> BaseException:
    """The fault of the tests for a name that they use so, of the program for a value that it has returned."""
    name = object.__getattribute__(stand_in, "_at")[1].get("name")
    if name is None:
        return TypeError("the program returned something that is used as a class and is none here")
    return CannotPass(f"a test uses the program's {name} as a class, which stays in the program's process")


def _items(iterator: StandIn) -> Iterator[Any]:
    """What an iterator of the program yields, taken in portions that grow."""
    portion = 1
    while True:
        items, ended = _ask(iterator, "take", portion)
        yield from items
        if ended:
            return
        portion = min(2 * portion, _PORTION)


def _ask(stand_in: StandIn, operation: str, *values: Any) -> Any:
    program, where = object.__getattribute__(stand_in, "_at")
    return program.request(operation, where, [program.encode(value) for value in values])


class Program:
    """The program's process, as the tests see it."""

    def __init__(self, channel: Channel, namespace: dict[str, Any], shared: tuple[str, ...]) -> None:
        self.peer = Peer(channel, self.handle)
        self.namespace, self.shared = namespace, shared
        self.functions: list[Any] = []
        self.raised: Exception | None = None
        """The last exception that came from the program."""

    def encode(self, value: Any) -> Any:
        """A value as it goes over the wire."""
        return encode(value, self.outgoing)

    def request(self, operation: str, where: Frame, data: list[Any]) -> Any:
        """Ask, and give back the value or raise what the program raised."""
        try:
            reply = self.peer.ask({"op": operation, "on": where, "with": data})
        except Closed as error:
            raise ProgramGone(str(error)) from None
        except TooLarge as error:
            raise CannotPass(str(error)) from None
        if "ok" not in reply:
            self.raised = self.exception(reply)
            raise self.raised
        return decode(reply["ok"], self.incoming) if operation != "call" else reply["ok"]

    def call(self, where: Frame, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
        """Call it; arguments that it changed in place are changed here too."""
        data = [[self.encode(value) for value in arguments], {k: self.encode(v) for k, v in keywords.items()}]
        reply = self.request("call", where, data)
        for key, after in reply["changed"].items():
            _restore(keywords[key] if key in keywords else arguments[int(key)], decode(after, self.incoming))
        return decode(reply["value"], self.incoming)

    def handle(self, frame: Frame) -> Any:
        """The program calls a function that a test has passed to it: the only thing it may ask."""
        function = self.functions[frame["on"]["function"]]
        return self.encode(function(*(decode(item, self.incoming) for item in frame["with"][0])))

    def outgoing(self, value: Any) -> Frame:
        """Stands for a value that is no plain data. Raises CannotPass."""
        if isinstance(value, StandIn):
            where: Frame = object.__getattribute__(value, "_at")[1]
            return where
        kind = type(value)
        if self.shared_class(kind.__qualname__) is kind:
            return {
                "instance": kind.__qualname__,
                "of": {name: self.encode(item) for name, item in vars(value).items()},
            }
        name = str(getattr(value, "__name__", ""))
        if name and getattr(builtins, name, None) is value:
            return {"builtin": name}
        if isinstance(value, types.FunctionType):
            self.functions.append(value)
            return {"function": len(self.functions) - 1}
        raise CannotPass(f"a test passes a {kind.__name__}, which cannot leave the process of the tests")

    def incoming(self, frame: Frame) -> Any:
        """What a frame of the program stands for: an instance of a class of the problem, or a stand-in."""
        if set(frame) == {"instance", "of"} and (kind := self.shared_class(str(frame["instance"]))):
            value = kind.__new__(kind)
            vars(value).update({name: decode(item, self.incoming) for name, item in frame["of"].items()})
            return value
        if set(frame) != {"kept"} or type(frame["kept"]) is not int:
            raise ValueError("the program returned something that cannot be read")
        return StandIn(self, frame)

    def shared_class(self, name: str) -> Any:
        """A class that the problem itself defines, so that both processes have it."""
        return self.namespace.get(name) if name in self.shared else None

    def exception(self, reply: Frame) -> Exception:
        """The exception that the program raised, as the nearest builtin one."""
        kind = getattr(builtins, str(reply.get("raise")), RuntimeError)
        if not (isinstance(kind, type) and issubclass(kind, Exception)):
            kind = RuntimeError
        try:
            return kind(str(reply.get("text", "")))
        except TypeError:  # UnicodeDecodeError and its like want more than a text
            return RuntimeError(f"{kind.__name__}: {reply.get('text', '')}")


class _Names(dict[str, Any]):
    """Globals of the tests, in which an unknown name is the program's."""

    program: Program
    imports: frozenset[str]

    def __missing__(self, name: str) -> Any:
        if hasattr(builtins, name):
            raise KeyError(name)
        if name in sys.stdlib_module_names:
            return importlib.import_module(name)
        if name in self.imports:
            raise CannotPass(f"the tests use {name}, which they could not import")
        return StandIn(self.program, {"name": name})


def _restore(value: Any, after: Any) -> None:
    if isinstance(value, (list, bytearray)):
        value[:] = after
    elif isinstance(value, (dict, set)):
        value.clear()
        value.update(after)


class Tests:
    """The source of a problem and its tests, in one namespace.

    problem: `prompt` (source of the problem, which knows nothing of the program), `names` (of the program), `setup` (source
    that may use them), `shared` (classes that both sides have), `imports` (names that are never the program's),
    `statements` ([source, counts]).
    """

    def __init__(self, problem: dict[str, Any], channel: Channel, program: type[Program]) -> None:
        self._problem = problem
        self._names = _Names({"__name__": "tests"})
        self._names.program = program(channel, self._names, tuple(problem["shared"]))
        self._names.imports = frozenset(problem["imports"])
        sys.modules["tests"] = types.ModuleType("tests")
        sys.modules[MODULE] = solution = types.ModuleType(MODULE)  # what some tests import the program from
        vars(solution)["__getattr__"] = self._of_the_program

    def prepare(self) -> Frame:
        """Run the problem's own source, and put stand-ins in the places of the program's names."""
        verdict = self.run(self._problem["prompt"])
        for name in self._problem["names"]:
            self._names[name] = StandIn(self._names.program, {"name": name})
        if verdict["verdict"] != "passed":
            return {"verdict": "error", "detail": f"the problem's own source fails: {verdict.get('detail', '')}"}
        for name in self._problem["shared"]:  # now: later the program could bring about that one cannot be rebuilt
            if not isinstance(self._names.get(name), type):
                return {"verdict": "error", "detail": f"the problem's {name} is no class that both processes can have"}
        return verdict

    def _of_the_program(self, name: str) -> StandIn:
        if name.startswith("__"):
            raise AttributeError(name)
        return StandIn(self._names.program, {"name": name})

    def run(self, source: str) -> Frame:
        """Run one statement: its verdict, and why."""
        try:
            exec(compile(source, "<test>", "exec", dont_inherit=True), self._names)
        except ProgramGone as error:
            return {"verdict": "gone", "detail": str(error)}
        except AssertionError as error:
            return {"verdict": "wrong", "detail": str(error)[:200] or "the assertion does not hold"}
        except CannotPass as error:
            return {"verdict": "error", "detail": str(error)}
        except Exception as error:
            found = describe(error)
            detail = f"{found['type']}: {found['text']}"[:300]
            if isinstance(error, ImportError) and error is not self._names.program.raised:
                return {"verdict": "error", "detail": f"the tests cannot import what they need, see packages: {detail}"}
            return {"verdict": "raised", "detail": detail}
        return {"verdict": "passed"}


def run_tests(problem: dict[str, Any], channel: Channel, report: Channel) -> None:
    """Wait until the program is loaded, then run statement after statement, reporting each that counts.

    problem: as of `Tests`, and `first`: statements before it are done, and run again only if they do not count.
    A statement that does not count fails the tests after it with what went wrong in it, if anything.
    """
    tests = Tests(problem, channel, Program)
    prepared = tests.prepare()  # before anything of the program is known
    if prepared["verdict"] != "passed":
        report.send(prepared)
        return
    try:
        loaded = channel.receive()
    except Closed:
        loaded = {"verdict": "gone", "detail": "it ended while it was loaded"}
    if "ok" not in loaded:
        report.send(loaded if "verdict" in loaded else {"loaded": loaded})
        return
    prepared = tests.run(problem["setup"])
    if prepared["verdict"] != "passed":
        report.send(prepared if prepared["verdict"] in ("gone", "error") else {"setup": prepared["detail"]})
        return
    failed: Frame | None = None
    for number, (source, counts) in enumerate(problem["statements"]):
        if counts and number < problem["first"]:
            continue
        report.send({"begin": number, "counts": counts})
        verdict = failed or tests.run(source)
        if verdict["verdict"] == "gone":
            report.send(verdict)
            return
        if counts or verdict["verdict"] == "error":
            report.send({"end": number, **verdict})
        elif verdict["verdict"] != "passed":
            failed = verdict
