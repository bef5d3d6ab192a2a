"""The cases of autoregressive convolutions: directions, kernels, grids, and batches."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np

import invconv as ic
from invconv_conformance.cases.case import Build, Case, Shape, perturbed, with_bias

GRIDS: dict[int, Shape] = {1: (7,), 2: (4, 5), 3: (3, 2, 4), 4: (2, 3, 2, 2)}


def autoregressive_cases() -> Iterator[Case]:
    """Yield them."""
    yield from _directions()
    yield from _kernels()
    yield Case("corner-9-channels-on-20", _build(9, 1, kernel_size=3), (20,))
    yield from _beyond_one_vector()
    plane = _build(3, 3, mask="raster", dilation=2)
    yield Case("raster-3d-dilated-beyond", plane, (3, 4, 2))
    yield Case("corner-ill-conditioned-at-the-pixel", _skewed, (4, 5), wide=True)
    yield Case("corner-one-channel", _build(1, 2, kernel_size=2), (4, 4), (3,))
    many = _build(3, 2, kernel_size=3)
    yield Case("corner-many-samples", many, (4, 5), (1500,))
    yield Case("corner-bias", lambda rng: with_bias(_build(3, 2)(rng), rng), (4, 5), (2, 2))


def _build(channels: int, ndim: int = 2, scale: float = 0.1, **options: Any) -> Build:
    return lambda rng: perturbed(
        ic.AutoregressiveConv.init(channels, ndim=ndim, rng=rng, **options), rng, scale
    )


def _skewed(rng: np.random.Generator) -> ic.InvertibleConv:
    conv = _build(3)(rng)
    kernel = conv.parameters()["kernel"].copy()
    kernel[:, :, 0, 0] += 3 * np.tril(np.ones((3, 3)), -1)
    return conv.replace(kernel=kernel)


def _directions() -> Iterator[Case]:
    """Yield cases of both masks in one to four dimensions, in all or some directions."""
    some: dict[int, list[Shape]] = {
        3: [(1, 1, 1), (1, -1, 1)],
        4: [(-1, 1, 1, -1), (-1, -1, -1, -1)],
    }
    for ndim, grid in GRIDS.items():
        for direction in some.get(ndim, list(itertools.product((1, -1), repeat=ndim))):
            signs = "".join("+" if s > 0 else "-" for s in direction)
            order = "lower" if sum(direction) >= 0 else "upper"
            options: dict[str, Any] = {"direction": direction, "channel_order": order}
            yield Case(f"corner-{ndim}d{signs}", _build(3, ndim, **options), grid)
        for way in (1, -1):
            raster = _build(3, ndim, mask="raster", direction=way, channel_order="upper")
            yield Case(f"raster-{ndim}d{way:+d}", raster, grid)
        dilation = (2, 1, 3, 1)[:ndim]
        yield Case(f"corner-{ndim}d-dilated", _build(3, ndim, dilation=dilation), grid)


def _kernels() -> Iterator[Case]:
    """Yield kernels of several sizes and dilations, and grids that are as small as they."""
    more: list[tuple[str, dict[str, Any], Shape]] = [
        ("corner-k1", {"kernel_size": 1}, (4, 5)),
        ("corner-k3", {"kernel_size": 3}, (4, 5)),
        ("corner-k2x4", {"kernel_size": (2, 4)}, (4, 5)),
        ("corner-wider-than-grid", {"kernel_size": 4}, (2, 3)),
        ("corner-one-pixel", {"kernel_size": 2}, (1, 1)),
        ("corner-one-row", {"kernel_size": 3}, (1, 6)),
        ("corner-one-column", {"kernel_size": 3}, (6, 1)),
        ("raster-k3", {"kernel_size": 3, "mask": "raster"}, (4, 5)),
        ("raster-on-11-columns", {"kernel_size": 3, "mask": "raster"}, (3, 11)),
        (
            "raster-k2x3-dilated",
            {"kernel_size": (2, 3), "mask": "raster", "dilation": (1, 2)},
            (4, 5),
        ),
        ("raster-wide-on-narrow", {"kernel_size": 3, "mask": "raster", "direction": -1}, (5, 2)),
        ("raster-on-one-column", {"kernel_size": 3, "mask": "raster"}, (6, 1)),
        ("raster-dilated-beyond", {"mask": "raster", "dilation": (2, 4)}, (5, 4)),
    ]
    for name, options, grid in more:
        yield Case(name, _build(3, 2, **options), grid)


def _beyond_one_vector() -> Iterator[Case]:
    """Yield cases that no vector holds at once: 16 numbers are the most that one has."""
    rows = _build(2, kernel_size=(3, 2), direction=(1, -1))
    yield Case("corner-on-18-rows", rows, (18, 4))
    raster = _build(2, mask="raster", direction=-1)
    yield Case("raster-on-18-rows", raster, (18, 6))  # wide enough for rows in the lanes
    planes = _build(2, 3, direction=(1, -1, 1), channel_order="upper")
    yield Case("corner-3d-on-18-rows", planes, (2, 18, 2))
    wide, tall = (_build(1, kernel_size=size) for size in ((2, 10), (6, 1)))
    yield Case("corner-wide-on-one-image", wide, (18, 10), (1,))
    yield Case("corner-tall-on-one-image", tall, (20, 3), (1,))
    yield Case("corner-17-images", _build(3, direction=-1), (3, 4), (17,))
    yield Case("corner-31-images", _build(3), (3, 4), (31,))  # a forward has them in the lanes
    # no processor has registers for the sums of 25 channels: they are solved in blocks
    blocks = _build(25, scale=0.02, channel_order="upper")
    yield Case("corner-25-channels", blocks, (2, 2))
