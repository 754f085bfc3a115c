"""Where the time of a step goes, measured from outside so that the step itself has no timing code."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from prmkit.rl.step import Roles


class Clock:
    """Sums wall-clock seconds by name."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)

    def timed(self, inner: Any, name: str) -> Any:
        """The same object, its calls counted under `name`."""
        return None if inner is None else _Timed(inner, name, self.seconds)

    def roles(self, roles: Roles) -> Roles:
        """The same roles, timed."""
        names = {"sampler": "sample", "verifier": "verify"}
        parts = ("sampler", "verifier", "policy", "prm", "reference", "critic")
        return replace(roles, **{part: self.timed(getattr(roles, part), names.get(part, part)) for part in parts})


class _Timed:
    def __init__(self, inner: Any, name: str, seconds: dict[str, float]) -> None:
        self._inner, self._name, self._seconds = inner, name, seconds

    def __getattr__(self, attribute: str) -> Any:
        value = getattr(self._inner, attribute)
        return self._wrap(value) if callable(value) else value

    def _wrap(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            start = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                self._seconds[self._name] += time.perf_counter() - start

        return call
