"""Progress bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

OnStep = Callable[[int, Mapping[str, float]], None]


@contextmanager
def progress_bar(name: str, total: int, columns: Sequence[str]) -> Iterator[OnStep]:
    """A function to call after each step; it shows the chosen metrics.

    A bar, which is drawn anew, keeps the last value of those that a step does not measure. A line is about its own step, so it
    shows what was measured since the line before, each value with its step where that is an earlier one.
    """
    console = Console(markup=False, emoji=False)
    seen: dict[str, tuple[int, float]] = {}

    def text(step: int, metrics: Mapping[str, float], *, steps: bool = False) -> str:
        seen.update({c: (step, metrics[c]) for c in columns if c in metrics})
        return "  ".join(
            f"{c} {value:.3f}" + (f" (step {at})" if steps and at != step else "") for c, (at, value) in seen.items()
        )

    if not console.is_terminal:
        every = max(1, total // 20)
        printed = 0

        def line(step: int, metrics: Mapping[str, float]) -> None:
            nonlocal printed
            shown = text(step, metrics, steps=True)
            if step // every > printed // every or step == total:  # steps may come several at a time
                printed = step
                console.print(f"{name} {step}/{total}  {shown}", soft_wrap=True)
                seen.clear()

        yield line
        return
    bar = Progress(
        TextColumn("[bold]{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[shown]}"),
        console=console,
    )
    with bar:
        task = bar.add_task(name, total=total, shown="")
        yield lambda step, metrics: bar.update(task, completed=step, shown=text(step, metrics))
