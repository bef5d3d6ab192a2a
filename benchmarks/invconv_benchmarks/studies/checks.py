"""What the check of an inverse costs beside the solve, and a diagnosis.

``python -m invconv_benchmarks.studies.checks`` solves one image with each operator, unprepared:
without the check, with it, and diagnoses the operator. Each time it is a new object, since
operators remember what was found. The least of calls that take turns counts, on one thread: a
checked solve is to take no more than 3 solves and 50 ms, a diagnosis no more than 6 and 200 ms. It
exits with 1 where one takes more.
``--only "Periodic*"`` measures these operators alone, ``--quick`` the small grids.
"""

from __future__ import annotations

import argparse
import fnmatch
import itertools
import math
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

import invconv as ic
from invconv_benchmarks.measure import threads, timing
from invconv_benchmarks.measure.contender import Call
from invconv_benchmarks.report.tables import new
from invconv_benchmarks.suites.group import Shape, as_text
from invconv_conformance import printing

SHAPES: tuple[Shape, ...] = (  # C, then the grid
    (3, 32, 32), (12, 64, 64), (4, 20000), (1, 100000), (2, 48, 48, 48), (1, 1000, 1200),
)  # fmt: skip
TAPS = 3, 15, 29
CHECK, DIAGNOSIS = (3, 0.05), (6, 0.2)  # solves, and seconds
_QUICK = 2  # shapes
_MOST = 1e8  # products of a map that no frequencies decouple, so that a line is done in seconds
_MOVED = 0.5

Make = Callable[[np.random.Generator, int, int, int], ic.InvertibleConv]


@dataclass(frozen=True)
class Found:
    """The least seconds of a solve without check, of one with it, and of a diagnosis."""

    name: str
    shape: Shape
    taps: int
    dtype: str
    solve: float
    check: float
    diagnosis: float

    @property
    def shares(self) -> tuple[float, float]:
        """The parts of what a check and a diagnosis may take."""
        limits = (solves * self.solve + rest for solves, rest in (CHECK, DIAGNOSIS))
        return self.check / next(limits), self.diagnosis / next(limits)


def _blur(rng: np.random.Generator, channels: int, taps: int, ndim: int) -> ic.InvertibleConv:
    """Return a Gaussian of 1.5 pixels, which leaves no digit of float32."""
    along = np.exp(-(np.arange((taps + 1) // 2) ** 2) / 4.5)
    kernel = np.ones(())
    for _ in range(ndim):
        kernel = np.multiply.outer(kernel, along / (2 * along.sum() - along[0]))
    return ic.SymmetricConv(kernel * np.eye(channels)[(..., *(None,) * ndim)])


def _moved(conv: ic.InvertibleConv, rng: np.random.Generator) -> ic.InvertibleConv:
    """Return an operator whose kernels are moved so far that no bound at O(1) cost holds."""
    arrays = conv.parameters()
    scale = {n: _MOVED / math.sqrt(a[0].size) for n, a in arrays.items() if "kernel" in n}
    return conv.replace(
        **{n: a + scale[n] * rng.standard_normal(a.shape) for n, a in arrays.items() if n in scale}
    )


def _corner(rng: np.random.Generator, channels: int, taps: int, ndim: int) -> ic.InvertibleConv:
    return _moved(ic.AutoregressiveConv.init(channels, (taps + 1) // 2, ndim, rng=rng), rng)


def _raster(rng: np.random.Generator, channels: int, taps: int, ndim: int) -> ic.InvertibleConv:
    sizes = ((taps + 1) // 2, *(taps,) * (ndim - 1))
    return _moved(ic.AutoregressiveConv.init(channels, sizes, ndim, mask="raster", rng=rng), rng)


def _chain(rng: np.random.Generator, channels: int, taps: int, ndim: int) -> ic.InvertibleConv:
    periodic = ic.PeriodicConv.init(channels, taps, ndim, rng=rng)
    return ic.Chain([ic.Conv1x1.init(channels, rng=rng), periodic, _corner(rng, channels, 3, ndim)])


OPERATORS: dict[str, Make] = {
    "PeriodicConv": lambda rng, c, k, n: ic.PeriodicConv.init(c, k, n, rng=rng),
    "SymmetricConv": lambda rng, c, k, n: ic.SymmetricConv.init(c, k, n, rng=rng),
    "SymmetricConv, a blur": _blur,
    "AutoregressiveConv": _corner,
    "AutoregressiveConv, raster": _raster,
    "EmergingConv": lambda rng, c, k, n: _moved(ic.EmergingConv.init(c, k, n, rng=rng), rng),
    "ExponentialConv": lambda rng, c, k, n: _moved(ic.ExponentialConv.init(c, k, n, rng=rng), rng),
    "ExponentialConv, circular": lambda rng, c, k, n: _moved(
        ic.ExponentialConv.init(c, k, n, padding="circular", rng=rng), rng
    ),
    "Chain": _chain,
    "Inverse": lambda rng, c, k, n: ic.Inverse(ic.PeriodicConv.init(c, k, n, rng=rng)),
    "Conv1x1": lambda rng, c, _, n: ic.Conv1x1.init(c, ndim=n, rng=rng),
    "PLUConv1x1": lambda rng, c, _, n: ic.PLUConv1x1.init(c, ndim=n, rng=rng),
    "QRConv1x1": lambda rng, c, _, n: ic.QRConv1x1.init(c, ndim=n, rng=rng),
    "OrthogonalConv1x1": lambda rng, c, _, n: ic.OrthogonalConv1x1.init(c, ndim=n, rng=rng),
    "CirculantConv1x1": lambda rng, c, _, n: ic.CirculantConv1x1.init(c, ndim=n, rng=rng),
    "ActNorm": lambda _, c, __, n: ic.ActNorm.init(c, ndim=n),
}
_FREQUENCIES = "PeriodicConv", "SymmetricConv*"


def settings(only: str, shapes: Sequence[Shape]) -> Iterator[tuple[str, Shape, int, str]]:
    """Yield the operators, shapes, taps along an axis and dtypes that are measured."""
    every = itertools.product(OPERATORS, shapes, TAPS, ("float32", "float64"))
    for name, shape, taps, dtype in every:
        channels, *grid = shape
        products = channels**2 * taps ** len(grid) * math.prod(grid)
        quick = any(fnmatch.fnmatch(name, pattern) for pattern in _FREQUENCIES)
        wanted = fnmatch.fnmatch(name, only) and (quick or products <= _MOST)
        if wanted and not (taps > TAPS[0] and (name.endswith("1x1") or name == "ActNorm")):
            yield name, shape, taps, dtype


def measure(name: str, shape: Shape, taps: int, dtype: str, rounds: int) -> Found:
    """Time an operator."""
    rng, (channels, *axes) = np.random.default_rng(0), shape
    grid = tuple(axes)
    conv = OPERATORS[name](rng, channels, taps, len(grid)).asarrays(np.empty(0, dtype))
    y = rng.standard_normal((1, *shape)).astype(dtype)
    calls: dict[str, Call] = {
        "solve": lambda: conv.replace().prepare(grid, check=False).inverse(y),
        "check": lambda: conv.replace().inverse(y),
        "diagnosis": lambda: ic.diagnose(conv.replace(), grid),
    }
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore", ic.IllConditionedWarning)
        for call in calls.values():
            call()  # compiles
        seconds = timing.samples(calls, rounds)
    return Found(name, shape, taps, dtype, **{what: min(taken) for what, taken in seconds.items()})


def table(found: Sequence[Found]) -> Table:
    """Return a line for each, in milliseconds."""
    title = (
        f"one image: a check within {CHECK[0]} solves and {1e3 * CHECK[1]:g} ms, "
        f"a diagnosis within {DIAGNOSIS[0]} and {1e3 * DIAGNOSIS[1]:g} ms"
    )
    columns = "solve", "checked", "of its limit", "diagnosis", "of its limit", "verdict"
    shown = new(title, ("operator", "C x grid", "taps", ""), columns)
    for one in found:
        shown.add_row(
            one.name,
            as_text(one.shape),
            str(one.taps),
            one.dtype.replace("float", "f"),
            f"{1e3 * one.solve:.3g}",
            f"{1e3 * one.check:.3g}",
            f"{one.shares[0]:.2f}",
            f"{1e3 * one.diagnosis:.3g}",
            f"{one.shares[1]:.2f}",
            "pass" if max(one.shares) <= 1 else "miss",
        )
    return shown


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table; return 1 where a limit is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="*", help="operators by name, with * and ?")
    parser.add_argument("--quick", action="store_true", help="the small grids")
    parser.add_argument("--rounds", type=int, default=3, help="calls of each, by turns")
    arguments = parser.parse_args(argv)
    shapes = SHAPES[:_QUICK] if arguments.quick else SHAPES
    every = list(settings(arguments.only, shapes))
    with threads.one():
        shown = track(every, "measuring", console=Console(stderr=True), transient=True)
        found = [measure(*one, arguments.rounds) for one in shown]
    printing.console().print(table(found))
    return int(any(max(one.shares) > 1 for one in found))


if __name__ == "__main__":
    sys.exit(main())
