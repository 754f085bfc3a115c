"""Whether an output is the expected one. Runs outside the sandbox, on text and plain JSON alone."""

from __future__ import annotations

import math
from typing import Any


def same_output(found: str, expected: str, tolerance: float = 0.0) -> bool:
    """Token by token, tokens being separated by white space; numbers that are not both whole within the tolerance.

    Case and punctuation count. Trailing spaces, blank lines and the kind of line break do not.
    """
    a, b = found.split(), expected.split()
    return len(a) == len(b) and all(
        x == y or (tolerance > 0 and _near(x, y, tolerance)) for x, y in zip(a, b, strict=True)
    )


def _near(a: str, b: str, tolerance: float) -> bool:
    try:
        if _whole(a) and _whole(b):
            return False
        return _close(float(a), float(b), tolerance)
    except ValueError:
        return False


def _whole(token: str) -> bool:
    return token.lstrip("+-").isdigit()


def _close(a: float, b: float, tolerance: float) -> bool:
    try:
        return math.isclose(a, b, rel_tol=tolerance, abs_tol=tolerance)
    except OverflowError:  # a whole number that no float holds is near none
        return False


_STRUCTURES = {"tuple", "dict", "int"}


def same_value(found: Any, expected: Any, tolerance: float = 0.0) -> bool:
    """Whether a value as it came over the wire (`inside.wire.encode`) is the expected JSON value.

    Tuples are lists and keys of dictionaries texts, as in JSON. Nothing that comes from the program is ever hashed except
    texts, so a program cannot slow this down with keys that collide.
    """
    if isinstance(found, dict):
        kind, content = next(iter(found.items()), ("", None))
        if kind == "tuple":
            return same_value(content, expected, tolerance)
        if kind == "int":
            return isinstance(expected, int) and hex(expected) == content
        return kind == "dict" and isinstance(expected, dict) and _same_pairs(content, expected, tolerance)
    if isinstance(found, list):
        return (
            isinstance(expected, list | tuple)
            and len(found) == len(expected)
            and all(same_value(a, b, tolerance) for a, b in zip(found, expected, strict=True))
        )
    if isinstance(found, bool | str | None) or isinstance(expected, bool | str | None):
        return found == expected and isinstance(expected, bool | int | float | str | None)
    if not isinstance(expected, int | float):
        return False
    if isinstance(found, float) and isinstance(expected, float) and math.isnan(found) and math.isnan(expected):
        return True
    exact = tolerance == 0 or (isinstance(found, int) and isinstance(expected, int))
    return found == expected if exact else _close(found, expected, tolerance)


def _same_pairs(pairs: Any, expected: dict[Any, Any], tolerance: float) -> bool:
    wanted = {_key(key): value for key, value in expected.items()}
    if not isinstance(pairs, list) or len(pairs) != len(wanted):
        return False
    left = set(wanted)
    for key, value in pairs:
        name = _key(key)
        if name not in left or not same_value(value, wanted[name], tolerance):
            return False
        left.discard(name)
    return True


def _key(key: Any) -> str:
    """A dictionary's key as JSON writes it."""
    if isinstance(key, bool):
        return "true" if key else "false"
    return "null" if key is None else key if isinstance(key, str) else repr(key)
