"""Waiting for a cell with two limits at hand: the clock, and the memory of all of its processes."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Sequence
from pathlib import Path

from prmkit.verify.code.cell import Cell, CellError, Ended, below, wait_for

_LOOK_S = 0.1
"""How often memory is looked at. A test that ends sooner is not looked at: it cannot fill much."""
_GRACE_S = 2.0
"""For the keeper to end a job. One that a program has stopped or killed does not."""
_PAUSED_S = 1.0
"""Longer than this between two looks at the clock, and this process was stopped (Ctrl-Z, a batch system, a frozen container),
with the program or while nobody read what it printed: that time is not the program's."""
_PAGE_MB = os.sysconf("SC_PAGE_SIZE") / (1 << 20)


class OutOfTime(Exception):
    """The test's time is over."""


class OutOfMemory(Exception):
    """All processes of the program together hold more than they may."""


class Watch:
    """The clock and the memory limit of one test."""

    def __init__(self, cell: Cell, time_s: float, memory_mb: int) -> None:
        self._cell, self._memory_mb = cell, memory_mb
        self.started = self._looked = time.monotonic()
        self._end, self._next_look = self.started + time_s, self.started + _LOOK_S
        self._is_over = False

    @property
    def seconds(self) -> float:
        """Since the start."""
        return time.monotonic() - self.started

    def wait(self, readable: Sequence[int], writable: Sequence[int] = ()) -> set[int]:
        """Those that can be read or written, at least one. Raises OutOfTime or OutOfMemory.

        What is there when the time is over is in time: this thread may have been late to look. That holds once, or a program
        that never stops to print would never be out of time.
        """
        while True:
            now = time.monotonic()
            if now - self._looked > _PAUSED_S:
                self._end += now - self._looked
            self._looked = now
            if now >= self._end:
                ready = set() if self._is_over else wait_for(readable, writable, 0)
                self._is_over = True
                if ready:
                    return ready
                raise OutOfTime
            if now >= self._next_look:
                held = memory_mb(self._cell.pid)
                if held > self._memory_mb:
                    raise OutOfMemory(f"its processes held {held:.0f} MB, at most {self._memory_mb}")
                self._next_look = now + _LOOK_S
            pause = max(0.0, min(self._end, self._next_look) - now)
            if ready := wait_for(readable, writable, pause):
                return ready


def stop(cell: Cell) -> bool:
    """End the running job. False if the cell had to be killed for it, or is gone: it takes no other job."""
    cell.stop()
    try:
        ended: Ended | None = cell.ended(_GRACE_S)
    except CellError:
        return False
    if ended is None or ended.keeper_gone:
        cell.kill()
        return False
    return True


def memory_mb(pid: int) -> float:
    """Resident memory of everything below a process. Pages that several share count for each: an upper bound."""
    pages = 0
    for child in below(pid):
        with contextlib.suppress(OSError, IndexError, ValueError):  # it may end at any time
            pages += int(Path(f"/proc/{child}/statm").read_text().split()[1])
    return pages * _PAGE_MB
