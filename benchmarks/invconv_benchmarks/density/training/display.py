"""The progress of runs: bars on a terminal, lines in a log."""

from __future__ import annotations

import time

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars
from rich.table import Column

from invconv_benchmarks.density.training.run import Progress

_SELDOM = 10.0  # seconds between two lines of a run in a log


class Display(Bars):
    """Show the progress of one or several runs.

    Parameters
    ----------
    console : Console
    total : int
        Steps of all runs that are known; `expect` adds to them.
    """

    def __init__(self, console: Console, total: int = 0) -> None:
        words = TextColumn("{task.description}", table_column=Column(ratio=1, no_wrap=True))
        columns = (BarColumn(12), MofNCompleteColumn(), TimeRemainingColumn(compact=True), words)
        quiet = not console.is_terminal
        super().__init__(*columns, console=console, transient=True, expand=True, disable=quiet)
        self._begun, self._total = time.monotonic(), total
        self._every = self.add_task("all runs", total=total)
        self._runs: dict[str, tuple[TaskID, int]] = {}
        self._logged: dict[str, float] = {}

    def expect(self, steps: int) -> None:
        """Add the steps of another run to those of all."""
        self._total += steps
        self.update(self._every, total=self._total)

    def show(self, name: str, run: Progress) -> None:
        """Show where a run is."""
        if name not in self._runs:
            self._runs[name] = self.add_task(name, total=run.steps), run.step
            if run.step:
                self.say(f"{name}: goes on from step {run.step}")
        task, before = self._runs[name]
        self._runs[name] = task, run.step
        self.advance(self._every, run.step - before)
        for note in run.notes:
            self.say(f"[yellow]{name}[/]: {note}")
        if run.measured is None:
            self.update(task, completed=run.step)
            return
        words = (
            "held out {held_out:.3f} bits/dim, train {train:.3f}, gradient {gradient_norm:.2g}, "
            "inverse off by {inverse_error:.1e} ({worst_layer})"
        ).format(**run.measured)
        self.update(task, completed=run.step, description=f"{name}  {words}")
        now, last = time.monotonic(), self._logged.get(name, -_SELDOM)
        if self.disable and (now - last > _SELDOM or run.step == run.steps):
            self._logged[name] = now
            self.say(f"{name:16} {run.step:>6}/{run.steps}  {words}")

    def finish(self, name: str, text: str, steps: int) -> None:
        """Say how a run ended. A run that `show` never showed was finished earlier."""
        if name in self._runs:
            self.remove_task(self._runs.pop(name)[0])
        else:
            self.advance(self._every, steps)
        self.say(f"{name}: {text}")

    def say(self, text: str) -> None:
        """Write a line, with the time that has passed."""
        minutes, seconds = divmod(int(time.monotonic() - self._begun), 60)
        self.console.print(f"{minutes:3}:{seconds:02}  {text}", highlight=False, soft_wrap=True)
