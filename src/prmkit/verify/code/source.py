"""Python source to its syntax tree, from any thread."""

from __future__ import annotations

import ast
import threading
from contextlib import suppress

_ONE_AT_A_TIME = threading.Lock()
_RETRIES = 4


def parse(source: str) -> ast.Module:
    """The tree of `source`. Raises SyntaxError where it is no Python, or is nested too deeply to be read.

    CPython 3.11 counts the depth of the tree that it builds in one number for the whole interpreter (gh-106905): two threads
    that parse at once can get a SystemError, or a RecursionError, for source that has nothing wrong with it. Answers are
    judged from many threads, so here they take turns. A SystemError that is left comes of some other code's thread.
    """
    with _ONE_AT_A_TIME:
        for _ in range(_RETRIES):
            with suppress(SystemError):
                return _parse(source)
        return _parse(source)


def _parse(source: str) -> ast.Module:
    try:
        return ast.parse(source)
    except (RecursionError, MemoryError) as error:
        raise SyntaxError("nested too deeply") from error
    except ValueError as error:  # a null byte, before Python 3.12
        raise SyntaxError(str(error)) from error
