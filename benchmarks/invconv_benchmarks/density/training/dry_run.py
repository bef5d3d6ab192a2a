"""What a run will take: parameters, memory and time, of a few steps that nothing is kept of."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass
from typing import Any

import lightning
import torch
from rich.table import Table

from invconv_benchmarks.density.data.dataset import Dataset
from invconv_benchmarks.density.recipes.recipe import Recipe
from invconv_benchmarks.density.training.module import DensityModule
from invconv_benchmarks.density.training.run import fit
from invconv_benchmarks.measure.memory import peak_of

STEPS = 5  # measured, after one that compiles and fills caches


class _Clock(lightning.Callback):  # type: ignore[misc]
    """Seconds of each step, waited for."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self._start = 0.0

    def on_train_batch_start(self, *_: Any) -> None:
        self._start = time.perf_counter()

    def on_train_batch_end(self, trainer: lightning.Trainer, module: Any, *_: Any) -> None:
        float(module.loss)  # a GPU has done the step then
        self.seconds.append(time.perf_counter() - self._start)


@dataclass(frozen=True)
class Expected:
    """The costs that a run is expected to have.

    Attributes
    ----------
    module : DensityModule
    peak : int or None
        Bytes at most, those between steps and the start of actnorm included: on a GPU, or of the
        process, images left out and the compiling of kernels included; None where nobody can tell.
    seconds : list of float
        Of each measured step.
    """

    module: DensityModule
    peak: int | None
    seconds: list[float]

    @property
    def held(self) -> int:
        """Bytes of parameters, their gradients and average, and Adamax's two states."""
        own = sum(p.numel() * p.element_size() for p in self.module.flow.parameters())
        return 5 * int(own)

    def table(self) -> Table:
        """Return a line for each cost."""
        shown, module, step = Table(show_header=False), self.module, statistics.median(self.seconds)
        batch, images = module.recipe.training.batch, len(module.data)
        epoch = images / batch
        peak = "unknown" if self.peak is None else _bytes(self.peak)
        low, high = min(self.seconds), max(self.seconds)
        parameters = sum(p.numel() for p in module.flow.parameters())
        for name, value in (
            ("parameters", f"{parameters:,}"),
            ("memory", f"{peak} at the peak, {_bytes(self.held)} of it between steps"),
            ("a step", f"{_time(step)} ({_time(low)} to {_time(high)}), {batch} images"),
            ("an epoch", f"{_time(epoch * step)}, {epoch:,.0f} steps, {images:,} images"),
            ("the run", f"{_time(module.steps * step)}, {module.steps:,} steps"),
        ):
            shown.add_row(name, value)
        return shown


def measure(recipe: Recipe, data: Dataset, device: str = "cpu") -> Expected:
    """Run the first steps of a recipe."""
    on_gpu, clock = torch.device(device).type == "cuda", _Clock()
    if on_gpu:
        torch.cuda.reset_peak_memory_stats(device)

    def first_steps() -> DensityModule:
        module = DensityModule(recipe, data)
        fit(module, device, clock, steps=STEPS + 1)
        return module

    peak, module = peak_of(first_steps)
    if on_gpu:
        peak = torch.cuda.max_memory_allocated(device)
    return Expected(module, peak, clock.seconds[1:])


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
