"""What a run will take: parameters, memory and time, of a few steps that nothing is kept of."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from rich.table import Table

from invconv_benchmarks.density.data.dataset import Dataset
from invconv_benchmarks.density.recipes.recipe import Recipe
from invconv_benchmarks.density.training.processes import ALONE, Processes
from invconv_benchmarks.density.training.trainer import Trainer
from invconv_benchmarks.measure import timing
from invconv_benchmarks.measure.memory import peak_of

STEPS = 5  # measured, after one that compiles and fills caches


@dataclass(frozen=True)
class Expected:
    """What a run is expected to take.

    Attributes
    ----------
    parameters : int
    held : int
        Bytes of parameters, their gradients and average, and the optimiser's state.
    peak : int or None
        Bytes at most, ``held`` and the start of actnorm included: on a GPU, or of the process,
        images left out and what compiles kernels included; None where that cannot be told.
    seconds : tuple of float
        Of each measured step.
    images : int
        Of an epoch.
    batch : int
        Images a step.
    steps : int
        Of the run.
    """

    parameters: int
    held: int
    peak: int | None
    seconds: tuple[float, ...]
    images: int
    batch: int
    steps: int

    @property
    def step(self) -> float:
        """The median of the steps' seconds."""
        return float(np.median(self.seconds))

    def table(self) -> Table:
        """Return what is printed."""
        shown = Table(show_header=False)
        epoch = self.images / self.batch
        peak = "unknown" if self.peak is None else _bytes(self.peak)
        low, high = min(self.seconds), max(self.seconds)
        for what, value in (
            ("parameters", f"{self.parameters:,}"),
            ("memory", f"{peak} at the peak, {_bytes(self.held)} of it between steps"),
            ("a step", f"{_time(self.step)} ({_time(low)} to {_time(high)}), {self.batch} images"),
            ("an epoch", f"{_time(epoch * self.step)}, {epoch:,.0f} steps, {self.images:,} images"),
            ("the run", f"{_time(self.steps * self.step)}, {self.steps:,} steps"),
        ):
            shown.add_row(what, value)
        return shown


def measure(
    recipe: Recipe, data: Dataset, device: str = "cpu", processes: Processes = ALONE
) -> Expected:
    """Run the first steps of a recipe.

    Parameters
    ----------
    recipe : Recipe
    data : Dataset
    device : str
    processes : Processes
        Memory and parameters are those of one of them.
    """
    on_gpu = torch.device(device).type == "cuda"
    if on_gpu:
        torch.cuda.reset_peak_memory_stats(device)
    peak, (trainer, seconds) = peak_of(lambda: _first_steps(recipe, data, device, processes))
    parameters = list(trainer.model.parameters())
    # parameter, gradient, average and Adamax's two
    held = 5 * sum(p.numel() * p.element_size() for p in parameters)
    return Expected(
        parameters=sum(p.numel() for p in parameters),
        held=held,
        peak=torch.cuda.max_memory_allocated(device) if on_gpu else peak,
        seconds=seconds,
        images=len(data),
        batch=recipe.training.batch,
        steps=trainer.steps,
    )


def _first_steps(
    recipe: Recipe, data: Dataset, device: str, processes: Processes
) -> tuple[Trainer, tuple[float, ...]]:
    """Return a trainer and the seconds of its steps after the first, each waited for."""
    trainer = Trainer(recipe, data, device, processes)
    trainer.advance()
    return trainer, tuple(timing.seconds(trainer.advance) for _ in range(STEPS))


def _bytes(size: float) -> str:
    for unit in ("bytes", "kB", "MB"):
        if size < 999.5:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} GB"


def _time(seconds: float) -> str:
    for unit, size in (("days", 86400), ("h", 3600), ("min", 60), ("s", 1)):
        if seconds >= 2 * size or (size == 1 and seconds >= 0.9995):
            return f"{seconds / size:.3g} {unit}"
    return f"{1000 * seconds:.3g} ms"
