"""The cases of autoregressive convolutions: directions, kernels, grids, and batches."""

import functools
import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np

import invconv as ic
from invconv_conformance.cases.case import Case, Shape, biased, built

GRIDS: dict[int, Shape] = {1: (7,), 2: (4, 5), 3: (3, 2, 4), 4: (2, 3, 2, 2)}
SAMPLES = 35  # of a batch: more than two vectors have lanes, and some are left over
FULL = 34  # of a batch that fills vectors, and has a rest that is solved apart
# of one channel: more than a buffer holds at a time, so wide or so tall
LARGE: tuple[Shape, ...] = ((9000,), (20, 9000), (700, 64), (7, 20, 90), (3, 5, 20, 30))
WIDE = (50, 36000)  # a second thread comes before the first one has done it all
_build = functools.partial(built, ic.AutoregressiveConv, scale=0.1)
_RASTER: dict[str, Any] = {"mask": "raster"}


def autoregressive_cases() -> Iterator[Case]:
    """Yield them."""
    yield from _directions()
    yield from _kernels()
    yield Case("corner-9-channels-on-20", _build(9, ndim=1, kernel_size=3), (20,))
    yield from _beyond_one_vector()
    yield Case("raster-3d-dilated-beyond", _build(3, ndim=3, dilation=2, **_RASTER), (3, 4, 2))
    name = "corner-ill-conditioned-at-the-pixel"
    yield Case(name, lambda rng: skewed(_build()(rng), 3.0), (4, 5), wide=True)
    yield Case("corner-one-channel", _build(1, kernel_size=2), (4, 4), (3,))
    signal = _build(1, ndim=1, kernel_size=4, direction=-1)
    yield Case("corner-signal", signal, (40,))
    yield Case("corner-many-samples", _build(kernel_size=3), (4, 5), (1500,))
    yield Case("corner-bias", biased(_build()), (4, 5), (2, 2))


def skewed(conv: Any, size: float) -> Any:
    """Return the operator with large numbers beside D's diagonal."""
    kernel, side = conv.kernel.copy(), np.tril if conv.channel_order == "lower" else np.triu
    strict = side(1 - np.eye(conv.channels))
    kernel[(..., *conv._family.centre)] += size * strict
    return conv.replace(kernel=kernel)


def _directions() -> Iterator[Case]:
    some: dict[int, list[Shape]] = {3: [(1, 1, 1), (1, -1, 1)]}
    some[4] = [(-1, 1, 1, -1), (-1, -1, -1, -1)]
    for ndim, grid in GRIDS.items():
        for direction in some.get(ndim, list(itertools.product((1, -1), repeat=ndim))):
            signs = "".join("+" if s > 0 else "-" for s in direction)
            order = "lower" if sum(direction) >= 0 else "upper"
            corner = _build(ndim=ndim, direction=direction, channel_order=order)
            yield Case(f"corner-{ndim}d{signs}", corner, grid)
        for way in (1, -1):
            raster = _build(ndim=ndim, direction=way, channel_order="upper", **_RASTER)
            yield Case(f"raster-{ndim}d{way:+d}", raster, grid)
        dilation = (2, 1, 3, 1)[:ndim]
        yield Case(f"corner-{ndim}d-dilated", _build(ndim=ndim, dilation=dilation), grid)


def _kernels() -> Iterator[Case]:
    options: list[tuple[str, dict[str, Any], Shape]] = [
        ("corner-k1", {"kernel_size": 1}, (4, 5)),
        ("corner-k3", {"kernel_size": 3}, (4, 5)),
        ("corner-k2x4", {"kernel_size": (2, 4)}, (4, 5)),
        ("corner-wider-than-grid", {"kernel_size": 4}, (2, 3)),
        ("corner-one-pixel", {"kernel_size": 2}, (1, 1)),
        ("corner-one-row", {"kernel_size": 3}, (1, 6)),
        ("corner-one-column", {"kernel_size": 3}, (6, 1)),
        ("raster-k3", {"kernel_size": 3}, (4, 5)),
        ("raster-on-11-columns", {"kernel_size": 3}, (3, 11)),
        ("raster-k2x3-dilated", {"kernel_size": (2, 3), "dilation": (1, 2)}, (4, 5)),
        ("raster-wide-on-narrow", {"kernel_size": 3, "direction": -1}, (5, 2)),
        ("raster-on-one-column", {"kernel_size": 3}, (6, 1)),
        ("raster-dilated-beyond", {"dilation": (2, 4)}, (5, 4)),
    ]
    for name, given, grid in options:
        yield Case(name, _build(mask=name.partition("-")[0], **given), grid)


def _beyond_one_vector() -> Iterator[Case]:
    """Yield cases that no vector holds at once: 16 numbers are the most that one has."""
    yield Case("corner-on-18-rows", _build(2, kernel_size=(3, 2), direction=(1, -1)), (18, 4))
    # wide enough for rows in the lanes
    yield Case("raster-on-18-rows", _build(2, direction=-1, **_RASTER), (18, 6))
    planes = _build(2, ndim=3, direction=(1, -1, 1), channel_order="upper")
    yield Case("corner-3d-on-18-rows", planes, (2, 18, 2))
    yield Case("corner-wide-on-one-image", _build(1, kernel_size=(2, 10)), (18, 10), (1,))
    yield Case("corner-tall-on-one-image", _build(1, kernel_size=(6, 1)), (20, 3), (1,))
    yield Case("corner-17-images", _build(direction=-1), (3, 4), (17,))
    yield Case("corner-31-images", _build(), (3, 4), (31,))  # a forward has them in the lanes
    # no processor has registers for the sums of 25 channels: they are solved in blocks
    blocks = _build(25, scale=0.02, channel_order="upper")
    yield Case("corner-25-channels", blocks, (2, 2))
