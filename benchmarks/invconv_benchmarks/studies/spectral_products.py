"""Products with a matrix a frequency on the CPU: the compiled kernel or FFTs, and which runs.

``python -m invconv_benchmarks.studies.spectral_products`` times the inner part of prepared inverses
of periodic and symmetric convolutions both ways on PyTorch's tensors, in turns in one process with
one thread, and says which of them `SpectralProduct.prefers_kernel` takes. Its rule should take the
kernel where that is faster by a fifth, and nowhere where it is slower.
"""

from __future__ import annotations

import argparse
import functools
from collections.abc import Iterator, Sequence
from typing import Any, cast

import numpy as np
import torch
from rich.table import Table

import invconv as ic
from invconv.kernels.frequencies.products import SpectralProduct, by_frequencies
from invconv.kernels.frequencies.spectrum import kernel_spectrum
from invconv_benchmarks.measure.spread import Interval
from invconv_benchmarks.report.tables import new
from invconv_benchmarks.studies.overhead import compare
from invconv_benchmarks.studies.pairs import Pair
from invconv_benchmarks.suites.group import Shape, as_text
from invconv_conformance import printing
from invconv_torch.native.solvers import run_compiled

GAIN = 1.2  # from which the kernel should be taken
SHAPES: tuple[Shape, ...] = (
    (64, 12, 16, 16),
    (1, 12, 16, 16),
    (100, 3, 32, 32),
    (1, 3, 32, 32),
    (64, 48, 4, 4),
    (1, 12, 64, 64),
    (16, 12, 64, 64),
    (1, 1, 128, 128),
    (16, 3, 128, 128),
)
KINDS = {"periodic 3": ic.PeriodicConv, "symmetric 3": ic.SymmetricConv}


def pairs(shapes: Sequence[Shape]) -> Iterator[tuple[Pair, bool]]:
    """Yield the kernel's call beside that of FFTs, and whether the rule takes the kernel."""
    for shape in shapes:
        x = torch.randn(shape)
        for name, kind in KINDS.items():
            conv = cast(Any, kind).init(shape[1], rng=np.random.default_rng(0), like=x)
            product = product_of(conv, shape[2:])
            ours = functools.partial(run_compiled, product, x)
            theirs = functools.partial(by_frequencies.agnostic, product, x)
            taken = product.prefers_kernel(shape[0], x.element_size())
            yield Pair(name, shape, 1.0, ours, theirs, gradients=False), taken


def product_of(conv: Any, grid: Shape) -> SpectralProduct:
    """Return the product with K_hat(f)^-1 of a convolution on a grid."""
    inverse = torch.linalg.inv(kernel_spectrum(conv.kernel, conv._family.linear.basis, grid))
    return SpectralProduct(inverse, conv._family.linear.basis, grid)


def verdict(gain: Interval, taken: bool) -> str:
    """Return "miss" if the rule takes the slower one, or leaves a gain of a fifth."""
    return gain.verdict(1.0, least=True) if taken else gain.verdict(GAIN)


def main(argv: Sequence[str] | None = None) -> None:
    """Print the table and a count of its verdicts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="two shapes")
    parser.add_argument("--seconds", type=float, default=0.2, help="for each call, in each pass")
    arguments = parser.parse_args(argv)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        jobs = list(pairs(SHAPES[:2] if arguments.quick else SHAPES))
        found = compare([pair for pair, _ in jobs], arguments.seconds)
    rows = list[tuple[Any, ...]]()
    for one, (_, taken) in zip(found, jobs, strict=True):
        gain = Interval(1 / one.ratio.value, 1 / one.ratio.high, 1 / one.ratio.low)
        rows.append((one.pair, 1e6 * one.seconds, gain, taken, verdict(gain, taken)))
    console = printing.console()
    console.print(table(rows))
    verdicts = [row[-1] for row in rows]
    counts = ", ".join(f"{verdicts.count(v)} {v}" for v in ("pass", "unclear", "miss"))
    console.print(f"the choice: {counts}", highlight=False)


def table(rows: Sequence[tuple[Any, ...]]) -> Table:
    """Return a line for each comparison."""
    shown = new(
        "one thread, float32: gain = transforms by FFT and a batched product / the compiled kernel",
        ("B x C x H x W", "map"),
        ("kernel, us", "gain", "spread", "takes", "verdict"),
    )
    for pair, microseconds, gain, taken, said in rows:
        shown.add_row(
            as_text(pair.shape),
            pair.does,
            f"{microseconds:.0f}",
            f"{gain.value:.2f}",
            f"{gain.low:.2f}-{gain.high:.2f}",
            "kernel" if taken else "FFT",
            said,
        )
    return shown


if __name__ == "__main__":
    main()
