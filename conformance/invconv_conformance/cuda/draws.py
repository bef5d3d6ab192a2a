"""Jobs: random ones, those of the case list, and small ones whose every thread can be followed."""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

import invconv as ic
from invconv.arrays.namespaces import Shape
from invconv.kernels.cuda.plan import Device
from invconv_conformance.cases.table import Case, skewed
from invconv_conformance.cuda.solves import LARGE, CudaSolve, Floats, in_precision, plan_for

_SMALL = Device(75, 48 * 1024, 40)
_TINY = Device(75, 20 * 1024, 40)  # what a device with little left would have
_LEAST = Device(75, 512, 40)  # no device's: rows of more than 20 pixels do not fit
_CHANNELS = (1, 2, 3, 4, 5, 6, 7, 8, 9, 12, 13, 17, 24, 25, 33, 48)
_IMAGES = 3  # of a case at most: more of them are more blocks that do the same


def drawn(rng: np.random.Generator, channels: int, ndim: int, **settings: Any) -> Any:
    """Return an operator of a mild condition, whose D may be badly conditioned."""
    mask = str(rng.choice(["corner", "raster"]))
    direction = tuple(int(s) for s in rng.choice([-1, 1], ndim))
    most = {1: 7, 2: 7 if channels < 8 else 3, 3: 3, 4: 2}[ndim]
    given: dict[str, Any] = {
        "kernel_size": tuple(int(k) for k in rng.integers(1, most + 1, ndim)),
        "mask": mask,
        "direction": direction[0] if mask == "raster" else direction,
        "channel_order": str(rng.choice(["lower", "upper"])),
        "dilation": tuple(int(d) for d in rng.choice([1, 1, 2, 3], ndim)),
    }
    conv = ic.AutoregressiveConv.init(channels, ndim=ndim, rng=rng, **(given | settings))
    terms = channels * len(conv._family.offsets)
    moved = 0.3 / np.sqrt(terms) * rng.standard_normal(conv.kernel.shape)
    conv = conv.replace(kernel=conv.kernel + moved)
    # D^-1 is not folded into a skewed one
    return skewed(conv, 6 / channels) if rng.integers(3) == 0 else conv


def random_jobs(count: int, seed: int) -> Iterator[CudaSolve]:
    """Yield solves of all kinds, in bands of any height, on devices of little or much memory."""
    for n in range(count):
        rng = np.random.default_rng([seed, n])
        ndim = int(rng.choice([1, 2, 2, 2, 3, 4]))
        channels = int(rng.choice(_CHANNELS if ndim < 3 else _CHANNELS[:6]))
        most = {1: 40, 2: 14, 3: 6, 4: 4}[ndim]
        shape = tuple(int(s) for s in rng.integers(1, most, ndim))
        conv = in_precision(drawn(rng, channels, ndim), str(rng.choice(["float32", "float64"])))
        y = rng.standard_normal((int(rng.integers(1, 4)), channels, *shape))
        device = (_TINY, _SMALL, LARGE, LARGE)[int(rng.integers(4))]
        if n % 4 == 0 and (plan := plan_for(conv, shape, conv.kernel.itemsize, LARGE)):
            lines = replace(plan, weights_shared=False).band_bytes(max(1, plan.depth))
            device = Device(75, lines - 1, 40)  # too small for rows: the plane is turned
        yield from _jobs(f"random {n}", conv, y, device, rng)


def many_channels() -> Iterator[CudaSolve]:
    """Yield solves with up to 512 channels."""
    for n, channels in enumerate((96, 200, 512, 512)):
        rng, dtype = np.random.default_rng(n), f"float{64 if n % 2 else 32}"
        conv = ic.AutoregressiveConv.init(channels, 2, rng=rng, channel_order="upper")
        y = rng.standard_normal((1, channels, 2, 3))
        yield from _jobs(f"{channels} channels", in_precision(conv, dtype), y, LARGE, rng)


def listed_jobs(
    cases: Iterable[Case], dtypes: Sequence[str] = ("float32", "float64")
) -> Iterator[CudaSolve]:
    """Yield the solves of every autoregressive operator in a list of cases."""
    for case in cases:
        rng, operator = case.rng(), case.conv()
        for part, conv in enumerate(factors(operator)):
            images = min(_IMAGES, int(np.prod(case.batch_shape)))
            y = rng.standard_normal((images, conv.channels, *case.spatial_shape))
            for dtype in dtypes:
                name = f"{case.name} {part} {dtype}"
                yield from _jobs(name, in_precision(conv, dtype), y, LARGE, rng)


def factors(operator: Any) -> Iterator[ic.AutoregressiveConv]:
    """Yield the autoregressive parts of an operator."""
    if isinstance(operator, ic.AutoregressiveConv):
        yield operator
    for part in operator._parts().values() if operator._part_names else ():
        yield from factors(part)


def _jobs(
    name: str, conv: ic.AutoregressiveConv, y: Floats, device: Device, rng: np.random.Generator
) -> Iterator[CudaSolve]:
    y = y.astype(conv.kernel.dtype)
    plan = plan_for(conv, y.shape[2:], y.itemsize, device)
    if plan is None or 0 in y.shape:
        return
    least = min(max(1, plan.depth), plan.plane[0])
    rows = int(rng.integers(least, min(plan.most_rows, least + 6) + 1))
    chunk, resident = int(rng.choice([1, 2, 8])), int(rng.choice([1, 3]))
    yield CudaSolve(name, conv, y, plan, plan.in_bands(len(y), rows, chunk=chunk), resident)


def in_volumes() -> list[CudaSolve]:
    """Return the group of `small_jobs` on grids of more than one plane, which uses all waits."""
    return next(group for group in small_jobs() if group[0].y.ndim > 4)


def small_jobs() -> Iterator[list[CudaSolve]]:
    """Yield groups of solves of the same constants, by few threads that use every wait and flag."""
    settings: tuple[tuple[int, Shape, dict[str, Any]], ...] = (
        (3, (6, 5), {"kernel_size": (2, 2), "direction": (1, -1)}),
        (2, (2, 4, 3), {"kernel_size": (2, 2, 2), "channel_order": "upper"}),
        (7, (4, 6), {"kernel_size": (2, 3), "mask": "raster", "dilation": (1, 2)}),
        (9, (4, 4), {"kernel_size": (2, 2)}),
        (2, (64,), {"kernel_size": (3,), "dilation": (2,), "direction": -1}),
        (2, (2, 40), {"kernel_size": (2, 2), "direction": (1, -1)}),
    )
    for channels, shape, options in settings:
        rng = np.random.default_rng(channels)
        given = {"mask": "corner", "direction": 1, "dilation": 1} | options
        conv = in_precision(drawn(rng, channels, len(shape), **given), "float32")
        y = rng.standard_normal((2 if len(shape) < 3 else 1, channels, *shape)).astype("float32")
        group: list[CudaSolve] = []
        both, ways = (conv, skewed(conv, 6 / channels)), ((1, 8), (8, 8), (2, 3), (1, 1))
        for one, (chunk, resident) in itertools.product(both, ways):
            plan: Any = plan_for(one, shape, 4, _LEAST if max(shape) > 20 else LARGE)
            launch = plan.in_bands(len(y), max(2, plan.depth), 2 * channels + 1, chunk)
            group.append(CudaSolve(f"small {len(group)}", one, y, plan, launch, resident))
        yield group
