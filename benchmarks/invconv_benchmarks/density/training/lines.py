"""The progress of a run in lines; on a terminal Lightning's bar shows each step besides."""

from __future__ import annotations

import time

from rich.console import Console

from invconv_benchmarks.density.training.run import Progress

_SELDOM = 10.0  # seconds between two lines of measurements


class Lines:
    """Say where a run begins, its measurements from time to time, and its notes.

    Parameters
    ----------
    console : Console
    name : str
        Of the run.
    bar : bool
        Whether a bar shows the measurements.
    """

    def __init__(self, console: Console, name: str, bar: bool = False) -> None:
        self._console, self._name, self._bar, self._last = console, name, bar, -_SELDOM

    def __call__(self, run: Progress) -> None:
        """Take note of a step."""
        if run.begins and run.step:
            self._say(f"goes on from step {run.step}")
        for note in run.notes:
            self._say(f"[yellow]{note}[/]")
        now = time.monotonic()
        if run.measured and not self._bar and (now - self._last > _SELDOM or run.step == run.steps):
            self._last = now
            words = (
                "held out {held_out:.3f} bits/dim, train {train:.3f}, gradient {gradient_norm:.2g},"
                " inverse off by {inverse_error:.1e} ({worst_layer})"
            ).format(**run.measured)
            self._say(f"{run.step:>6}/{run.steps}  {words}")

    def _say(self, text: str) -> None:
        self._console.print(f"{self._name:16} {text}", highlight=False, soft_wrap=True)
