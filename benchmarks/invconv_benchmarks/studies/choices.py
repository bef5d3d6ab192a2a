"""Two ways to compute the same map on the CPU: which is faster, and which of them runs.

``python -m invconv_benchmarks.studies.choices`` times both in turns on one thread, in float32:

- "convolution", "gradient": the compiled kernel, or PyTorch's own convolution;
- "frequencies": the compiled product of periodic and symmetric inverses, or FFTs and a batched one;
- "wide": a periodic convolution by its spectrum, or by its taps.

A rule should take the first way where that is faster by a fifth, and nowhere where it is slower.
``--only wide`` measures one rule.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from rich.table import Table

import invconv as ic
from invconv.kernels import maps
from invconv.kernels.convolutions import WIDE, circular_family
from invconv.kernels.families import StencilFamily
from invconv.kernels.frequencies.forward import spectral_apply
from invconv.kernels.frequencies.products import SpectralProduct, by_frequencies
from invconv.kernels.frequencies.spectrum import kernel_spectrum
from invconv.kernels.plain.tap_grid import grid_of
from invconv_benchmarks.measure.spread import Interval
from invconv_benchmarks.report.tables import new
from invconv_benchmarks.studies.overhead import Timed, compare
from invconv_benchmarks.studies.pairs import Pair
from invconv_benchmarks.suites.group import LIMIT_SHAPES, Shape, as_text
from invconv_conformance import printing
from invconv_torch.native import correlation
from invconv_torch.native.solvers import run_compiled

GAIN = 1.2  # from which the first way should be taken
SMALL_GRIDS: tuple[Shape, ...] = ((1, 12, 4, 4), (64, 12, 4, 4), (32, 96, 8, 8), (4, 96, 8, 8))
WIDE_KERNELS = tuple((grid, taps) for grid in (24, 64, 256) for taps in (15, 21, 25, 31, 41))


class Choice(NamedTuple):
    """Two ways, of which a rule takes the first one or not."""

    ways: Pair
    taken: bool


def _convolutions(*, gradient: bool) -> Iterator[Choice]:
    for shape in (*LIMIT_SHAPES, *SMALL_GRIDS):
        for size in (2, 3):
            x = torch.randn(shape)
            conv = ic.AutoregressiveConv.init(shape[1], size, rng=np.random.default_rng(0), like=x)
            stencil = conv._causal().stencil()
            taps, family = stencil.taps.contiguous(), StencilFamily(stencil.offsets, wrap=False)
            count, grid = len(taps), grid_of(stencil.offsets, False, shape[2:])
            assert grid is not None
            ours = partial(correlation.correlate_compiled, family, taps, x)
            theirs = partial(correlation.convolution, grid, False, taps, x)
            taken = correlation.prefers_kernel(x)
            if gradient:
                ours = partial(correlation.compiled_vjp, family, x, x.flip(0))
                theirs = partial(correlation.convolution_vjp, grid, count, False, x, x.flip(0))
            name = f"{'gradient' if gradient else 'convolution'}, {count} taps"
            yield Choice(Pair(name, shape, None, ours, theirs, gradients=False), taken)


def _frequencies() -> Iterator[Choice]:
    for shape in LIMIT_SHAPES[:-1]:
        x = torch.randn(shape)
        for kind in (ic.PeriodicConv, ic.SymmetricConv):
            conv: Any = kind.init(shape[1], rng=np.random.default_rng(0), like=x)
            basis = conv._family.linear.basis
            inverse = torch.linalg.inv(kernel_spectrum(conv.kernel, basis, shape[2:]))
            product = SpectralProduct(inverse, basis, shape[2:])
            calls = partial(run_compiled, product, x), partial(by_frequencies.agnostic, product, x)
            name = f"frequencies, {kind.__name__}"
            taken = product.prefers_kernel(shape[0], x.element_size())
            yield Choice(Pair(name, shape, None, *calls, gradients=False), taken)


def _wide() -> Iterator[Choice]:
    for grid, taps in WIDE_KERNELS:
        x, kernel = torch.randn(1, 4, grid, grid), torch.randn(4, 4, taps, taps)
        family = circular_family((taps, taps), (1, 1))
        stencil = StencilFamily(family.offsets, True)
        flat = kernel.flatten(2).permute(2, 0, 1).contiguous()
        calls = (
            partial(spectral_apply, kernel, family.basis, x),
            partial(maps.apply, stencil, flat, x),
        )
        name = f"wide, {taps}x{taps} taps"
        yield Choice(Pair(name, tuple(x.shape), None, *calls, gradients=False), taps**2 >= WIDE)


RULES: dict[str, Callable[[], Iterator[Choice]]] = {
    "convolution": partial(_convolutions, gradient=False),
    "gradient": partial(_convolutions, gradient=True),
    "frequencies": _frequencies,
    "wide": _wide,
}


def verdict(timed: Timed, taken: bool) -> str:
    """Return "miss" if the rule takes the slower way, or leaves a gain of a fifth."""
    gain = _gain(timed)
    return gain.verdict(1.0, least=True) if taken else gain.verdict(GAIN)


def _gain(timed: Timed) -> Interval:
    """Return the second way's time / the first way's."""
    return Interval(1 / timed.ratio.value, 1 / timed.ratio.high, 1 / timed.ratio.low)


def table(timed: list[Timed], taken: list[bool]) -> Table:
    """Return a line for each pair of ways."""
    columns = "first, us", "gain", "spread", "takes", "verdict"
    shown = new("gain = time of the second way / the first", ("B x C x H x W", "rule"), columns)
    for one, takes in zip(timed, taken, strict=True):
        gain = _gain(one)
        shown.add_row(
            as_text(one.pair.shape),
            one.pair.does,
            f"{1e6 * one.seconds:.0f}",
            f"{gain.value:.2f}",
            f"{gain.low:.2f}-{gain.high:.2f}",
            "first" if takes else "second",
            verdict(one, takes),
        )
    return shown


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=RULES, help="one rule")
    parser.add_argument("--seconds", type=float, default=0.2, help="for each call, in each pass")
    arguments = parser.parse_args()
    with torch.no_grad():
        rules = [arguments.only] if arguments.only else list(RULES)
        choices = [choice for rule in rules for choice in RULES[rule]()]
    timed = compare([choice.ways for choice in choices], arguments.seconds)
    printing.console().print(table(timed, [choice.taken for choice in choices]))


if __name__ == "__main__":
    main()
