"""The progress of runs: bars on a terminal, lines in a log."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars
from rich.table import Column

from invconv_benchmarks.density.training.loop import Progress

_SELDOM = 10.0  # seconds between two lines of a run in a log


class Display:
    """Show the progress of one or several runs.

    Parameters
    ----------
    console : Console
    total : int
        Steps of all runs that are known; `expect` adds to them.
    """

    def __init__(self, console: Console, total: int = 0) -> None:
        self._console, self._start = console, time.monotonic()
        words = TextColumn("{task.description}", table_column=Column(ratio=1, no_wrap=True))
        columns = (BarColumn(12), MofNCompleteColumn(), TimeRemainingColumn(compact=True), words)
        self._bars = Bars(
            *columns, console=console, transient=True, expand=True, disable=not console.is_terminal
        )
        self._all, self._total = self._bars.add_task("all runs", total=total), total
        self._tasks: dict[str, TaskID] = {}
        self._steps: dict[str, int] = {}
        self._logged: dict[str, float] = {}

    def __enter__(self) -> Display:
        self._bars.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bars.stop()

    def expect(self, steps: int) -> None:
        """Add the steps of another run to those of all."""
        self._total += steps
        self._bars.update(self._all, total=self._total)

    def show(self, name: str, progress: Progress) -> None:
        """Show where a run is."""
        if name not in self._tasks:
            self._tasks[name] = self._bars.add_task(name, total=progress.steps)
            self._steps[name] = progress.step
            if progress.step:
                self.say(f"{name}: goes on from step {progress.step}")
        self._bars.update(
            self._tasks[name], completed=progress.step, description=f"{name}  {_words(progress)}"
        )
        self._bars.advance(self._all, progress.step - self._steps[name])
        self._steps[name] = progress.step
        for note in progress.notes:
            self.say(f"[yellow]{name}[/]: {note}")
        if progress.measured and not self._console.is_terminal:
            self._log(name, progress)

    def _log(self, name: str, progress: Progress) -> None:
        now, last = time.monotonic(), self._logged.get(name)
        if last is None or now - last > _SELDOM or progress.step == progress.steps:
            self._logged[name] = now
            self.say(f"{name:16} {progress.step:>6}/{progress.steps}  {_words(progress)}")

    def finish(self, name: str, text: str, steps: int) -> None:
        """Say how a run ended. A run that `show` never showed was finished earlier."""
        if name in self._tasks:
            self._bars.remove_task(self._tasks.pop(name))
        else:
            self._bars.advance(self._all, steps)
        self.say(f"{name}: {text}")

    def say(self, text: str) -> None:
        """Write a line, with the time that has passed."""
        minutes, seconds = divmod(int(time.monotonic() - self._start), 60)
        self._console.print(f"{minutes:3}:{seconds:02}  {text}", highlight=False, soft_wrap=True)


def _words(progress: Progress) -> str:
    parts = []
    if progress.measured:
        parts.append(f"held out {progress.measured['held_out']:.3f} bits/dim")
        parts.append(f"train {progress.measured['train']:.3f}")
    elif progress.last:
        parts.append(f"{progress.last.bits_per_dim:.2f} bits/dim")
    if progress.last:
        parts.append(f"gradient {progress.last.gradient_norm:.2g}")
    if progress.worst:
        parts.append(f"inverse off by {progress.worst.error:.1e} ({progress.worst.name})")
    return ", ".join(parts)
