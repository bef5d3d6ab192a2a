"""What the judgement of an inverse costs beside the factorisation.

It uses nothing but `prepare` with and without ``check``, so that it runs beside any checkout of the
library: ``PYTHONPATH=CHECKOUT python PATH/TO/cost.py`` prints the table of that checkout. What
counts is the processor's time, on which other processes have little influence: let BLAS have one
thread (``OPENBLAS_NUM_THREADS=1``).
"""

from __future__ import annotations

import statistics
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

import invconv as ic

SHAPES = ((12, 64, 64), (48, 16, 16))
_TIMES = 5


@dataclass(frozen=True)
class Cost:
    """Seconds of the processor for a judgement, and of the factorisation.

    Attributes
    ----------
    what : str
    first : float
        Of the first operator of its kind in a process, which may compile.
    other : float
        Of another one with other values.
    remembered : float
        Of the same again.
    factored : float
        Of the factorisation alone.
    """

    what: str
    first: float
    other: float
    remembered: float
    factored: float


def _trained(conv: ic.InvertibleConv, rng: np.random.Generator) -> ic.InvertibleConv:
    """Return an operator with parameters moved so far that no O(1) bound holds."""
    scale = 0.5 / conv.channels
    moved = {n: p + scale * rng.standard_normal(p.shape) for n, p in conv.parameters().items()}
    return conv.replace(**{n: a.astype(np.float32) for n, a in moved.items()})


def _operators(channels: int) -> Iterator[tuple[str, Callable[[], ic.InvertibleConv]]]:
    rng, like = np.random.default_rng(0), np.empty(0, np.float32)

    def emerging() -> ic.InvertibleConv:
        return ic.EmergingConv.init(channels, rng=rng, like=like)

    yield "emerging, initialised", emerging
    yield "emerging, trained", lambda: _trained(emerging(), rng)
    yield "periodic", lambda: ic.PeriodicConv.init(channels, rng=rng, like=like)
    there = torch.empty(0)
    yield "periodic, PyTorch", lambda: ic.PeriodicConv.init(channels, rng=rng, like=there)
    yield "QR 1x1", lambda: ic.QRConv1x1.init(channels, rng=rng, like=like)


def costs() -> Iterator[Cost]:
    """Yield the cost for each kind of operator and shape."""
    for channels, *grid in SHAPES:
        for name, make in _operators(channels):
            shape = tuple(grid)
            found = [_once(make(), shape) for _ in range(_TIMES)]
            middle = [statistics.median(column) for column in zip(*found[1:], strict=True)]
            what = f"{name}, {channels} x {' x '.join(map(str, shape))}"
            yield Cost(what, found[0][0], *middle)


def _once(conv: ic.InvertibleConv, shape: tuple[int, ...]) -> tuple[float, float, float]:
    """Return the seconds of a judgement, of one that is remembered, and of the factorisation."""
    _seconds(lambda: conv.prepare(shape, check=False))
    factored = _seconds(lambda: conv.prepare(shape, check=False))
    first, again = (_seconds(lambda: conv.prepare(shape)) for _ in range(2))
    return max(0.0, first - factored), max(0.0, again - factored), factored


def _seconds(call: Callable[[], object]) -> float:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ic.IllConditionedWarning)
        start = time.process_time()
        call()
        return time.process_time() - start


def table() -> Table:
    """Return a line for each operator, in milliseconds."""
    shown = Table(title="CPU ms of the judgement in prepare(shape), float32")
    for column in ("operator", "first", "other values", "remembered", "factorisation"):
        shown.add_column(column, justify="left" if column == "operator" else "right")
    for cost in costs():
        numbers = (cost.first, cost.other, cost.remembered, cost.factored)
        shown.add_row(cost.what, *(f"{1e3 * seconds:.2f}" for seconds in numbers))
    return shown


if __name__ == "__main__":
    Console().print(table())
