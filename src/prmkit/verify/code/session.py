"""One program under test: a cell at hand, replaced when the program has broken it."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Self

from prmkit.verify.code.cell import Cell, Ended, payload_fd
from prmkit.verify.code.config import CodeConfig
from prmkit.verify.code.watch import stop

StartCell = Callable[[], Cell]


class Session:
    """A cell that is started when it is first needed. A context manager: leaving it ends everything."""

    def __init__(self, start_cell: StartCell, config: CodeConfig, path: Sequence[str]) -> None:
        """path: folders that programs import packages from."""
        self.config = config
        self._start_cell, self._path = start_cell, list(path)
        self._cell: Cell | None = None

    @property
    def cell(self) -> Cell:
        """A cell without a job. Raises CellError."""
        if self._cell is None:
            self._cell = self._start_cell()
        return self._cell

    def drop(self) -> None:
        """End the cell; the next job gets a new one."""
        if self._cell is not None:
            self._cell.kill()
            self._cell = None

    def stop(self) -> None:
        """End the running job, by ending the cell where the program does not let it end otherwise."""
        if self._cell is not None and not stop(self._cell):
            self.drop()

    def submit(self, kind: str, payload: dict[str, Any], fds: Sequence[int], modules: Sequence[str] = ()) -> None:
        """Start a job. The descriptors of a job are still the caller's. Raises CellError.

        modules: of the standard library, imported before the job's process is made.
        """
        limits = {
            "memory_mb": self.config.memory_mb,
            "cpu_s": int(self.config.time_s) + 2,
            "processes": self.config.processes,
            "disk_mb": self.config.disk_mb,
            "output_mb": self.config.output_mb,
        }
        if kind != "script":  # lives through several tests, each with its own deadline
            limits["cpu_s"] = -1
        fd = payload_fd(payload)
        try:
            job = {"job": kind, "limits": limits, "path": self._path, "modules": list(modules)}
            self.cell.submit(job, [fd, *fds])
        finally:
            os.close(fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.drop()


@contextlib.contextmanager
def closing(fds: Sequence[int]) -> Iterator[Sequence[int]]:
    """Close descriptors at the end, whatever happens."""
    try:
        yield fds
    finally:
        for fd in fds:
            with contextlib.suppress(OSError):
                os.close(fd)


def how_it_died(ended: Ended) -> str:
    """For people: the end of a program that did not end well."""
    if ended.keeper_gone:
        return "it ended the first process of its sandbox, and so itself"
    if ended.code < 0:
        return f"killed by {signal.Signals(-ended.code).name}"
    return f"it left with exit code {ended.code}"
