"""The process that holds the program: it answers calls, and whoever called compares."""

from __future__ import annotations

import builtins
import itertools
import sys
import types
from typing import Any

from .wire import Channel, Closed, Frame, Peer, decode, describe, encode

MODULE = "solution"
"""Name of the program's module: its `if __name__ == "__main__"` does not run when functions are called."""


class Host:
    """Answers requests about a program: call, look up, iterate. What is not plain data stays here, under a number."""

    def __init__(self, namespace: dict[str, Any], channel: Channel | None) -> None:
        """Without a channel, whoever made it calls `handle`."""
        self.namespace = namespace
        self.kept: list[Any] = []
        self.peer = Peer(channel, self.handle) if channel else None

    def serve(self) -> None:
        """Answer until the other side is gone."""
        while self.peer:
            try:
                frame = self.peer.channel.receive()
            except Closed:
                return
            self.peer.serve(frame)

    def handle(self, frame: Frame) -> Any:
        """The answer to one request."""
        target = self.target(frame["on"])
        operation, rest = frame["op"], frame.get("with", [])
        if operation == "call":
            return self.call(target, rest)
        values = [decode(item, self.incoming) for item in rest]
        result: Any = None
        match operation:
            case "attribute":
                result = getattr(target, *values)
            case "set attribute":
                setattr(target, *values)
            case "item":
                result = target[values[0]]
            case "set item":
                target[values[0]] = values[1]
            case "length":
                result = len(target)
            case "iterate":
                result = iter(target)
            case "next":
                result = next(target)
            case "take":
                items = list(itertools.islice(target, values[0]))
                result = [items, len(items) < values[0]]
            case "text":
                result = str(target)
            case _:
                raise ValueError(f"no operation {operation!r}")
        return encode(result, self.outgoing)

    def call(self, target: Any, rest: list[Any]) -> Frame:
        """The result, and what became of arguments that were changed in place."""
        given, named = rest
        arguments = [decode(item, self.incoming) for item in given]
        keywords = {key: decode(item, self.incoming) for key, item in named.items()}
        result = target(*arguments, **keywords)
        changed = {
            str(key): after
            for key, value, before in [
                *((i, arguments[i], given[i]) for i in range(len(given))),
                *((k, keywords[k], named[k]) for k in named),
            ]
            if type(value) in (list, dict, set, bytearray) and (after := encode(value, self.outgoing)) != before
        }
        return {"value": encode(result, self.outgoing), "changed": changed}

    def target(self, where: Frame) -> Any:
        """What a request is about: a name of the program, or something kept."""
        if "kept" in where:
            return self.kept[where["kept"]]
        name = where["name"]
        if name not in self.namespace:
            raise NameError(f"name {name!r} is not defined")
        return self.namespace[name]

    def outgoing(self, value: Any) -> Frame:
        """Stands for a value that is no plain data."""
        if type(value).__module__ == MODULE and type(value).__qualname__ in self.namespace.get("__shared__", ()):
            attributes = {name: encode(item, self.outgoing) for name, item in vars(value).items()}
            return {"instance": type(value).__qualname__, "of": attributes}
        self.kept.append(value)
        return {"kept": len(self.kept) - 1}

    def incoming(self, frame: Frame) -> Any:
        """What a frame of the other side stands for."""
        if "builtin" in frame:
            return getattr(builtins, frame["builtin"])
        if "instance" in frame:
            kind = self.namespace[frame["instance"]]
            value = kind.__new__(kind)
            vars(value).update({name: decode(item, self.incoming) for name, item in frame["of"].items()})
            return value
        if "function" in frame:
            return self.callback(frame["function"])
        return self.target(frame)

    def callback(self, number: int) -> Any:
        """A function of the other side."""

        def function(*arguments: Any) -> Any:
            data = [encode(item, self.outgoing) for item in arguments]
            if self.peer is None:
                raise RuntimeError("nobody to call back")
            reply = self.peer.ask({"op": "call", "on": {"function": number}, "with": [data, {}]})
            if "raise" in reply:
                raise RuntimeError(reply.get("text", ""))
            return decode(reply["ok"], self.incoming)

        return function


def load(program: dict[str, Any]) -> dict[str, Any]:
    """The namespace after the parts of a program have run in it, as a module of its own."""
    module = types.ModuleType(MODULE)
    sys.modules[MODULE] = module
    for part in program["parts"]:
        exec(compile(part, f"<{MODULE}>", "exec", dont_inherit=True), module.__dict__)
    module.__dict__["__shared__"] = tuple(program.get("shared", ()))
    return module.__dict__


def host(program: dict[str, Any], channel: Channel) -> None:
    """Load the program, say whether that went well, and answer requests."""
    try:
        namespace = load(program)
        channel.send({"ok": "loaded"})
    except BaseException as error:
        channel.send(describe(error))
        return
    Host(namespace, channel).serve()
