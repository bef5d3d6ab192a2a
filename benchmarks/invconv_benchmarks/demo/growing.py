"""Kernels whose inverse does or does not grow along the image, and the digits that it loses."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

import invconv as ic
from invconv_benchmarks.suites.group import Shape
from invconv_conformance.truth.oracle import EXTENDED, convolve, substitute

EPS = 2.0**-23


def authors() -> ic.AutoregressiveConv:
    """Return the kernel of "Numerical stability of inverse", open in the authors' repository."""
    kernel = np.asarray([[[[0.0, 0.0462, -1.3683], [0.0, 0.0, 0.0]]]])
    return ic.AutoregressiveConv(kernel, mask="raster", direction=-1)


def corner(tap: float) -> ic.AutoregressiveConv:
    """Return a 2 x 2 corner of one channel: 1 at the pixel, the same tap at the other three."""
    kernel = np.full((1, 1, 2, 2), tap)
    kernel[0, 0, 0, 0] = 1.0
    return ic.AutoregressiveConv(kernel)


def random_corner(channels: int, scale: float, seed: Any = 0) -> ic.AutoregressiveConv:
    """Return a 2 x 2 corner: the identity at the pixel, N(0, scale^2) at the other three."""
    kernel = scale * np.random.default_rng(seed).standard_normal((channels, channels, 2, 2))
    kernel[:, :, 0, 0] = np.eye(channels)
    return ic.AutoregressiveConv(kernel)


def examples() -> Iterator[tuple[str, ic.AutoregressiveConv, Shape]]:
    """Yield kernels, their names, and grids."""
    for tap in (-0.3, -0.5):
        for n in (8, 32, 64):
            yield f"C = 1, taps {tap}", corner(tap), (n, n)
    for scale, sizes in ((0.1, (16, 128)), (0.2, (16, 64))):
        for n in sizes:
            yield f"C = 12, taps N(0, {scale}²)", random_corner(12, scale), (n, n)
    for n in (2, 4, 32):
        yield "the authors' issue", authors(), (n, n)


@dataclass(frozen=True)
class Loss:
    """The digits of x that are right after z = K x was changed."""

    largest: float  # error of a pixel, of an image of N(0, 1) numbers whose z is rounded to float32
    typical: float  # the same in digits
    worst: float  # of the worst image, after the worst change of z by float32's eps |z|_1


def measure(conv: ic.AutoregressiveConv, diagnosis: ic.Diagnosis) -> Loss:
    """Invert a rounded z, and a z that was changed where it harms most, in extended precision."""
    shape = diagnosis.spatial_shape
    x = np.random.default_rng(0).standard_normal((conv.channels, *shape)).astype(EXTENDED)
    z = convolve(conv, x)
    # K^-1 of the change alone, since K^-1 K x is x
    error = substitute(conv, z.astype(np.float32).astype(EXTENDED) - z)
    unit = np.zeros(x.shape, EXTENDED)
    assert diagnosis.pixel is not None
    unit[(diagnosis.channel, *diagnosis.pixel)] = 1
    absolute = conv.replace(kernel=np.abs(conv.kernel)).transpose()
    columns = convolve(absolute, np.ones(x.shape, EXTENDED))  # their sums, |K|^T 1
    change = EPS * columns.max() * substitute(conv, unit)
    largest = np.abs(error).max()
    return Loss(float(largest), digits(largest), digits(np.abs(change).sum()))


def digits(error: Any) -> float:
    """Return -log10 of an error, at least 0."""
    return max(0.0, -float(np.log10(error))) if error else math.inf
