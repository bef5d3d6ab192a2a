"""The list of cases: operators, kernels and grids that every library is held to."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np

import invconv as ic
from invconv_conformance.cases.case import Build, Case, Shape, perturbed, with_bias
from invconv_conformance.cases.special import special_cases

GRIDS: dict[int, Shape] = {1: (7,), 2: (4, 5), 3: (3, 2, 4), 4: (2, 3, 2, 2)}


def _autoregressive() -> Iterator[Case]:
    def build(channels: int, ndim: int, **options: Any) -> Build:
        return lambda rng: perturbed(
            ic.AutoregressiveConv.init(channels, ndim=ndim, rng=rng, **options), rng
        )

    some: dict[int, list[Shape]] = {
        3: [(1, 1, 1), (1, -1, 1)],
        4: [(-1, 1, 1, -1), (-1, -1, -1, -1)],
    }
    for ndim, grid in GRIDS.items():
        for direction in some.get(ndim, list(itertools.product((1, -1), repeat=ndim))):
            signs = "".join("+" if s > 0 else "-" for s in direction)
            order = "lower" if sum(direction) >= 0 else "upper"
            options = {"direction": direction, "channel_order": order}
            yield Case(f"corner-{ndim}d{signs}", build(3, ndim, **options), grid)
        for way in (1, -1):
            raster = build(3, ndim, mask="raster", direction=way, channel_order="upper")
            yield Case(f"raster-{ndim}d{way:+d}", raster, grid)
        dilation = (2, 1, 3, 1)[:ndim]
        yield Case(f"corner-{ndim}d-dilated", build(3, ndim, dilation=dilation), grid)
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
        yield Case(name, build(3, 2, **options), grid)
    yield Case("corner-9-channels-on-20", build(9, 1, kernel_size=3), (20,))
    yield from _beyond_one_vector()

    plane = build(3, 3, mask="raster", dilation=2)
    yield Case("raster-3d-dilated-beyond", plane, (3, 4, 2))

    def skewed(rng: np.random.Generator) -> ic.InvertibleConv:
        conv = build(3, 2)(rng)
        kernel = conv.parameters()["kernel"].copy()
        kernel[:, :, 0, 0] += 3 * np.tril(np.ones((3, 3)), -1)
        return conv.replace(kernel=kernel)

    yield Case("corner-ill-conditioned-at-the-pixel", skewed, (4, 5), wide=True)
    yield Case("corner-one-channel", build(1, 2, kernel_size=2), (4, 4), (3,))
    many = build(3, 2, kernel_size=3)
    yield Case("corner-many-samples", many, (4, 5), (1500,))
    yield Case("corner-bias", lambda rng: with_bias(build(3, 2)(rng), rng), (4, 5), (2, 2))


def _beyond_one_vector() -> Iterator[Case]:
    """Yield cases that no vector holds at once: 16 numbers are the most that one has."""

    def build(channels: int, ndim: int = 2, scale: float = 0.1, **options: Any) -> Build:
        return lambda rng: perturbed(
            ic.AutoregressiveConv.init(channels, ndim=ndim, rng=rng, **options), rng, scale
        )

    rows = build(2, kernel_size=(3, 2), direction=(1, -1))
    yield Case("corner-on-18-rows", rows, (18, 4))
    raster = build(2, mask="raster", direction=-1)
    yield Case("raster-on-18-rows", raster, (18, 6))  # wide enough for rows in the lanes
    planes = build(2, 3, direction=(1, -1, 1), channel_order="upper")
    yield Case("corner-3d-on-18-rows", planes, (2, 18, 2))
    yield Case("corner-17-images", build(3, direction=-1), (3, 4), (17,))
    # no processor has registers for the sums of 25 channels: they are solved in blocks
    blocks = build(25, scale=0.02, channel_order="upper")
    yield Case("corner-25-channels", blocks, (2, 2))


def _emerging() -> Iterator[Case]:
    def build(channels: int, **options: Any) -> Build:
        return lambda rng: perturbed(ic.EmergingConv.init(channels, rng=rng, **options), rng, 0.05)

    for ndim, grid in GRIDS.items():
        yield Case(f"emerging-{ndim}d", build(3, ndim=ndim), grid)
    yield Case("emerging-k5", build(3, kernel_size=5), (4, 5))
    yield Case("emerging-k1x3", build(3, kernel_size=(1, 3)), (4, 5))
    yield Case("emerging-raster", build(3, mask="raster"), (4, 5))
    yield Case("emerging-dilated", build(3, dilation=(1, 2)), (4, 5), ())

    def biased(rng: np.random.Generator) -> ic.InvertibleConv:
        conv = with_bias(build(3)(rng), rng)
        biases = {f"{part}.bias": rng.standard_normal(3) for part in ("first", "second")}
        replaced: ic.InvertibleConv = conv.replace(**biases)
        return replaced

    yield Case("emerging-biases", biased, (4, 5), (1, 2, 1))


def _periodic() -> Iterator[Case]:
    def build(channels: int, **options: Any) -> Build:
        return lambda rng: perturbed(ic.PeriodicConv.init(channels, rng=rng, **options), rng, 0.05)

    for ndim, grid in GRIDS.items():
        yield Case(f"periodic-{ndim}d", build(3, ndim=ndim), grid)
    for k in (1, 2, 4, 5, 7):
        yield Case(f"periodic-k{k}", build(3, kernel_size=k), (4, 5))
    yield Case("periodic-k2x3", build(3, kernel_size=(2, 3)), (4, 5))
    yield Case("periodic-even-dilated", build(3, kernel_size=(4, 2), dilation=(1, 3)), (4, 5), ())
    yield Case("periodic-one-pixel", build(3), (1, 1))
    yield Case("periodic-one-row", build(3), (1, 6))
    yield Case("periodic-one-column", build(3), (6, 1))
    for grid in ((7, 7), (8, 8), (6, 9)):
        yield Case(f"periodic-{grid[0]}x{grid[1]}", build(1), grid)
    yield Case("periodic-bias", lambda rng: with_bias(build(3)(rng), rng), (4, 5), (2, 2))


def _pointwise() -> Iterator[Case]:
    classes: list[Any] = [ic.Conv1x1, ic.PLUConv1x1, ic.QRConv1x1, ic.ActNorm]
    for cls in classes:

        def build(rng: np.random.Generator, cls: Any = cls, ndim: int | None = None) -> Any:
            return with_bias(perturbed(cls.init(3, ndim=ndim, rng=rng), rng), rng)

        for ndim, grid in GRIDS.items():
            yield Case(f"{cls.__name__}-{ndim}d".lower(), build, grid)
        batched = functools.partial(build, ndim=2)
        yield Case(f"{cls.__name__}-batch-axes".lower(), batched, (4, 5), (2, 1, 2))
    for m in (0, 1, 2, 6):
        yield Case(f"qrconv1x1-m{m}", functools.partial(_qr, 3, m), (4, 5), wide=True)
    yield Case("conv1x1-one-channel", lambda rng: ic.Conv1x1.init(1, rng=rng), (4,))


def _qr(channels: int, m: int, rng: np.random.Generator) -> ic.QRConv1x1:
    reflectors = rng.standard_normal((m, channels)) * 10.0 ** rng.integers(-3, 4, (m, 1))
    upper = rng.standard_normal((channels, channels))
    return ic.QRConv1x1(reflectors, upper, np.exp(rng.standard_normal(channels)))


def _composite() -> Iterator[Case]:
    def flow_step(rng: np.random.Generator) -> ic.InvertibleConv:
        return ic.Chain(
            [
                perturbed(ic.ActNorm.init(3), rng),
                perturbed(ic.QRConv1x1.init(3, rng=rng), rng),
                perturbed(ic.EmergingConv.init(3, rng=rng), rng, 0.05),
            ]
        )

    def merged(rng: np.random.Generator) -> ic.InvertibleConv:
        return ic.Chain(
            [
                ic.Conv1x1.init(3, rng=rng),
                ic.PLUConv1x1.init(3, rng=rng),
                perturbed(ic.PeriodicConv.init(3, rng=rng), rng, 0.05),
                ic.QRConv1x1.init(3, rng=rng),
            ]
        )

    def with_inverse(rng: np.random.Generator) -> ic.InvertibleConv:
        return ic.Chain(
            [
                ic.Inverse(with_bias(perturbed(ic.EmergingConv.init(3, rng=rng), rng, 0.05), rng)),
                ic.Inverse(ic.Chain([perturbed(ic.PeriodicConv.init(3, rng=rng), rng, 0.05)])),
                with_bias(ic.Conv1x1.init(3, rng=rng), rng),
            ]
        )

    yield Case("chain-flow-step", flow_step, (4, 5))
    yield Case("chain-flow-step-no-batch", flow_step, (4, 5), ())
    yield Case("chain-merged", merged, (4, 5))
    yield Case("chain-merged-one-pixel", merged, (1, 1), (1,))
    yield Case("chain-inverses", with_inverse, (4, 5))
    yield Case("chain-1x1", lambda rng: ic.Chain([ic.Conv1x1.init(3, rng=rng)] * 2), (4, 5))
    for case in (*_periodic(), *_emerging(), *_pointwise()):
        if case.name in ("periodic-2d", "periodic-bias", "emerging-biases", "qrconv1x1-m2"):
            build = functools.partial(_inverse_of, case)
            shape, batch = case.spatial_shape, case.batch_shape
            yield Case(f"inverse-{case.name}", build, shape, batch, wide=case.wide)


def _inverse_of(case: Case, rng: np.random.Generator) -> ic.Inverse:
    return ic.Inverse(case.build(rng))


CASES: tuple[Case, ...] = (
    *_autoregressive(),
    *_emerging(),
    *_periodic(),
    *_pointwise(),
    *_composite(),
    *special_cases(),
)
