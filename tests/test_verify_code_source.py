"""Source to its tree: from many threads, and what is no Python."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from prmkit.verify.code.source import parse

SOURCE = "\n".join(
    f"def f{n}(x, y):\n    return [x * {n} + (y - {n}) * (x / (y + 2)) for x in range(y)]" for n in range(60)
)


class Garbage:
    """A cycle whose end runs Python code: where the collector meets it, in the midst of parsing too, threads can switch."""

    def __init__(self) -> None:
        self.itself = self

    def __del__(self) -> None:
        for _ in range(20):
            pass


def test_threads_that_parse_at_once_all_get_their_tree() -> None:
    # With `ast.parse` itself, one call in twenty ends in "AST constructor recursion depth mismatch" on Python 3.11.
    interval = sys.getswitchinterval()

    def read(_: int) -> int:
        Garbage()
        return len(parse(SOURCE).body)

    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(8) as threads:
            assert set(threads.map(read, range(300))) == {60}
    finally:
        sys.setswitchinterval(interval)


@pytest.mark.parametrize(
    ("source", "message"),
    [("def f(:", "invalid syntax"), ("a\0b", "null bytes"), ("+".join("1" * 20_000), "nested too deeply")],
)
def test_what_cannot_be_read_is_a_syntax_error(source: str, message: str) -> None:
    with pytest.raises(SyntaxError, match=message):
        parse(source)
