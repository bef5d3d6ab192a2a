"""The list of cases: operators, kernels and grids that every library is held to."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import numpy as np

import invconv as ic
from invconv.extend import Transposed
from invconv_conformance.cases.autoregressive import GRIDS, autoregressive_cases
from invconv_conformance.cases.case import Build, Case, perturbed, with_bias
from invconv_conformance.cases.exponential import exponential_cases
from invconv_conformance.cases.special import special_cases


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
    # so many taps that its forward is a product a frequency
    yield Case("periodic-k25x24", build(2, kernel_size=(25, 24)), (4, 5), (2,))
    yield Case("periodic-even-dilated", build(3, kernel_size=(4, 2), dilation=(1, 3)), (4, 5), ())
    yield Case("periodic-one-pixel", build(3), (1, 1))
    yield Case("periodic-one-row", build(3), (1, 6))
    yield Case("periodic-one-column", build(3), (6, 1))
    for grid in ((7, 7), (8, 8), (6, 9)):
        yield Case(f"periodic-{grid[0]}x{grid[1]}", build(1), grid)
    yield Case("periodic-bias", lambda rng: with_bias(build(3)(rng), rng), (4, 5), (2, 2))


def _symmetric() -> Iterator[Case]:
    def build(channels: int, **options: Any) -> Build:
        return lambda rng: perturbed(ic.SymmetricConv.init(channels, rng=rng, **options), rng, 0.05)

    for ndim, grid in GRIDS.items():
        yield Case(f"symmetric-{ndim}d", build(3, ndim=ndim), grid)
    yield Case("symmetric-k9x3", build(2, kernel_size=(9, 3)), (3, 4))
    yield Case("symmetric-one-row", build(3), (1, 6), ())
    yield Case("symmetric-long", build(1, ndim=1), (131,))
    yield Case("symmetric-bias", lambda rng: with_bias(build(3)(rng), rng), (4, 5), (2, 2))


def _pointwise() -> Iterator[Case]:
    classes: list[Any] = [ic.Conv1x1, ic.PLUConv1x1, ic.QRConv1x1, ic.ActNorm]
    classes += [ic.OrthogonalConv1x1, ic.CirculantConv1x1, ic.HouseholderConv1x1]
    for cls in classes:

        def build(rng: np.random.Generator, cls: Any = cls, ndim: int | None = None) -> Any:
            conv = with_bias(perturbed(cls.init(3, ndim=ndim, rng=rng), rng), rng)
            if cls is ic.PLUConv1x1:  # a permutation that is not its own inverse
                conv = conv.replace(permutation=np.asarray([2, 0, 1]))
            return conv

        for ndim, grid in GRIDS.items():
            yield Case(f"{cls.__name__}-{ndim}d".lower(), build, grid)
        batched = functools.partial(build, ndim=2)
        yield Case(f"{cls.__name__}-batch-axes".lower(), batched, (4, 5), (2, 1, 2))
    for m in (0, 1, 2, 6, 100):
        yield Case(f"qrconv1x1-m{m}", functools.partial(_qr, 3, m), (4, 5), wide=True)
    for channels in (1, 4):
        build = functools.partial(_circulant, channels)
        yield Case(f"circulantconv1x1-c{channels}", build, (4, 5))
    for m in (0, 2):
        build = functools.partial(_orthogonal, m)
        yield Case(f"orthogonalconv1x1-m{m}", build, (4, 5), wide=True)
    yield Case("conv1x1-one-channel", lambda rng: ic.Conv1x1.init(1, rng=rng), (4,))


def _qr(channels: int, m: int, rng: np.random.Generator) -> ic.QRConv1x1:
    reflectors = rng.standard_normal((m, channels)) * 10.0 ** rng.integers(-3, 4, (m, 1))
    upper = rng.standard_normal((channels, channels))
    return ic.QRConv1x1(reflectors, upper, np.exp(rng.standard_normal(channels)))


def _circulant(channels: int, rng: np.random.Generator) -> ic.CirculantConv1x1:
    left, c, right = rng.standard_normal((3, channels))
    return ic.CirculantConv1x1(left, c, right)


def _orthogonal(m: int, rng: np.random.Generator) -> ic.OrthogonalConv1x1:
    return ic.OrthogonalConv1x1(_qr(3, m, rng).reflectors, rng.standard_normal(3))


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
        if case.name == "emerging-biases":
            turned = functools.partial(_transposed, case)
            yield Case("transposed-emerging-biases", turned, case.spatial_shape, case.batch_shape)


def _inverse_of(case: Case, rng: np.random.Generator) -> ic.Inverse:
    return ic.Inverse(case.build(rng))


def _transposed(case: Case, rng: np.random.Generator) -> Transposed:
    return Transposed(case.build(rng))


CASES: tuple[Case, ...] = (
    *autoregressive_cases(),
    *_emerging(),
    *_periodic(),
    *exponential_cases(),
    *_symmetric(),
    *_pointwise(),
    *_composite(),
    *special_cases(),
)
