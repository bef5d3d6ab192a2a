"""From how many taps on a periodic convolution is quicker in the frequency domain.

``python -m invconv_benchmarks.studies.wide_kernels`` times A(K) x both ways on one thread, in
turns, of square kernels on square grids. The kernel's spectrum is computed in each call. What
`invconv.kernels.convolutions` goes by is `WIDE` taps: both ways grow with the pixels, the
transforms with their logarithm besides, which decides little.
"""

from __future__ import annotations

import argparse
import functools
import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from rich.table import Table

from invconv.kernels import maps
from invconv.kernels.convolutions import WIDE, circular_family
from invconv.kernels.families import StencilFamily
from invconv.kernels.frequencies.forward import spectral_apply
from invconv_benchmarks.contenders.everyone import targets_of
from invconv_benchmarks.measure import threads, turns
from invconv_benchmarks.measure.contender import Call, Contender
from invconv_benchmarks.report.tables import new
from invconv_benchmarks.results.row import TITLES
from invconv_conformance import printing

LIBRARIES = ("numpy", "torch")
CHANNELS, GRIDS, KERNELS = (1, 4), (24, 64, 256), (15, 21, 25, 31, 41)


@dataclass(frozen=True)
class Found:
    """The seconds of both ways, the least of a pass.

    Attributes
    ----------
    library, dtype : str
    channels, grid, kernel : int
        C, and the pixels and taps along an axis.
    by_taps, by_frequencies : float
    """

    library: str
    dtype: str
    channels: int
    grid: int
    kernel: int
    by_taps: float
    by_frequencies: float


def compare(
    library: str, dtype: str, channels: int, grid: int, kernel: int, seconds: float
) -> Found:
    """Time both ways of one image for about so many seconds."""
    (target,) = targets_of([(library, "cpu")])
    rng, family = np.random.default_rng(0), circular_family((kernel, kernel), (1, 1))
    x = target.asarray(rng.standard_normal((1, channels, grid, grid)), dtype)
    taps = rng.standard_normal((kernel**2, channels, channels))
    stencil, w = StencilFamily(family.offsets, True), target.asarray(taps, dtype)
    shape = channels, channels, kernel, kernel
    whole = target.asarray(np.moveaxis(taps, 0, -1).reshape(shape), dtype)
    ways = {
        "taps": functools.partial(maps.apply, stencil, w, x),
        "frequencies": functools.partial(spectral_apply, whole, family.basis, x),
    }
    both = [
        Contender(name, "ours", "forward", target, functools.partial(_itself, way))
        for name, way in ways.items()
    ]
    with threads.one():
        timings = turns.measure(both, seconds)
    errors = [timing.error for timing in timings if timing.error]
    if errors:
        raise RuntimeError(f"{library}, {dtype}: {errors[0]}")
    least = [min(timing.samples) for timing in timings]
    return Found(library, dtype, channels, grid, kernel, *least)


def _itself(way: Call) -> Call:
    return way


def table(found: Sequence[Found]) -> Table:
    """Return a line for each."""
    shown = new(
        f"a periodic convolution: {WIDE} taps and more run by frequencies",
        ("library", "", "C x H x W", "taps"),
        ("ms, taps", "frequencies", "ratio"),
    )
    for one in found:
        shown.add_row(
            TITLES[one.library],
            one.dtype.replace("float", "f"),
            f"{one.channels}x{one.grid}x{one.grid}",
            str(one.kernel**2),
            f"{1e3 * one.by_taps:.3g}",
            f"{1e3 * one.by_frequencies:.3g}",
            f"{one.by_taps / one.by_frequencies:.2f}",
        )
    return shown


def main(argv: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=0.3, help="for each row")
    seconds = parser.parse_args(argv).seconds
    settings = itertools.product(LIBRARIES, ("float32", "float64"), CHANNELS, GRIDS, KERNELS)
    printing.console().print(table([compare(*setting, seconds) for setting in settings]))


if __name__ == "__main__":
    main()
