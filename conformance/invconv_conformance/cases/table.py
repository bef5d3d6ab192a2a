"""The list of cases: operators, kernels and grids that every library is held to."""

import dataclasses
import functools
import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np

import invconv as ic
from invconv.extend import Transposed
from invconv_conformance.cases.autoregressive import GRIDS, autoregressive_cases
from invconv_conformance.cases.case import Build, Case, biased, built, perturbed, with_bias
from invconv_conformance.cases.special import special_cases

_EMERGING = functools.partial(built, ic.EmergingConv)
_EXPONENTIAL = functools.partial(built, ic.ExponentialConv, scale=0.1)
_PERIODIC = functools.partial(built, ic.PeriodicConv)
_SYMMETRIC = functools.partial(built, ic.SymmetricConv)


def _emerging() -> Iterator[Case]:
    for ndim, grid in GRIDS.items():
        yield Case(f"emerging-{ndim}d", _EMERGING(ndim=ndim), grid)
    yield Case("emerging-k5", _EMERGING(kernel_size=5), (4, 5))
    yield Case("emerging-k1x3", _EMERGING(kernel_size=(1, 3)), (4, 5))
    yield Case("emerging-raster", _EMERGING(mask="raster"), (4, 5))
    yield Case("emerging-dilated", _EMERGING(dilation=(1, 2)), (4, 5), ())
    yield Case("emerging-biases", _with_biases, (4, 5), (1, 2, 1))


def _with_biases(rng: np.random.Generator) -> Any:
    conv = with_bias(_EMERGING()(rng), rng)
    return conv.replace(**{f"{p}.bias": rng.standard_normal(3) for p in ("first", "second")})


def _periodic() -> Iterator[Case]:
    for ndim, grid in GRIDS.items():
        yield Case(f"periodic-{ndim}d", _PERIODIC(ndim=ndim), grid)
    for k in (1, 2, 4, 5, 7):
        yield Case(f"periodic-k{k}", _PERIODIC(kernel_size=k), (4, 5))
    yield Case("periodic-k2x3", _PERIODIC(kernel_size=(2, 3)), (4, 5))
    # so many taps that its forward is a product per frequency
    yield Case("periodic-k25x24", _PERIODIC(2, kernel_size=(25, 24)), (4, 5))
    even = _PERIODIC(kernel_size=(4, 2), dilation=(1, 3))
    yield Case("periodic-even-dilated", even, (4, 5), ())
    yield Case("periodic-one-pixel", _PERIODIC(), (1, 1))
    yield Case("periodic-one-row", _PERIODIC(), (1, 6))
    yield Case("periodic-one-column", _PERIODIC(), (6, 1))
    for grid in ((7, 7), (8, 8), (6, 9)):
        yield Case(f"periodic-{grid[0]}x{grid[1]}", _PERIODIC(1), grid)
    yield Case("periodic-bias", biased(_PERIODIC()), (4, 5), (2, 2))


def _exponential() -> Iterator[Case]:
    for padding in ("zeros", "circular"):
        name = f"exponential-{padding}"
        for ndim, grid in GRIDS.items():
            yield Case(f"{name}-{ndim}d", _EXPONENTIAL(ndim=ndim, padding=padding), grid)
        for k, grid in ((5, (4, 5)), (7, (2, 3)), (3, (1, 1)), ((1, 3), (4, 5)), (1, (2, 3))):
            size = k if isinstance(k, int) else "x".join(map(str, k))
            build = _EXPONENTIAL(scale=0.05, kernel_size=k, padding=padding)
            yield Case(f"{name}-k{size}-on-{grid[0]}x{grid[1]}", build, grid)
        yield Case(f"{name}-dilated", _EXPONENTIAL(dilation=(1, 3), padding=padding), (3, 4), ())
        yield Case(f"{name}-skew", _of_norm(9.0, functools.partial(_skew, padding)), (3, 4))
        norm_20 = _of_norm(20.0, functools.partial(_random, padding))
        yield Case(f"{name}-norm-20", norm_20, (2, 3), wide=True)
    yield Case("exponential-one-row", _EXPONENTIAL(), (1, 6))
    yield Case("exponential-one-column", _EXPONENTIAL(padding="circular"), (6, 1))
    yield Case("exponential-bias", biased(_EXPONENTIAL()), (4, 5), (2, 2))
    yield Case("exponential-defective", _defective, (2, 4))
    yield Case("exponential-decaying", _decaying, (2, 3), wide=True)
    for norm in (1e-9, 1e-4, 1e-2):  # of which the series has a few terms, each of which shows
        wide = norm < 1e-6  # float16 has no such taps
        yield Case(f"exponential-norm-{norm:g}", _of_norm(norm, _EXPONENTIAL()), (3, 4), wide=wide)


def _of_norm(norm: float, build: Any) -> Build:
    def scaled(rng: np.random.Generator) -> ic.InvertibleConv:
        conv = build(rng)
        rows = np.abs(conv.kernel).sum(axis=(1, 2, 3)).max()
        return ic.ExponentialConv(norm * conv.kernel / rows, padding=conv.padding)

    return scaled


def _random(padding: str, rng: np.random.Generator) -> ic.ExponentialConv:
    return ic.ExponentialConv(rng.standard_normal((2, 2, 3, 3)), padding=padding)


def _skew(padding: str, rng: np.random.Generator) -> ic.ExponentialConv:
    kernel = _random(padding, rng).kernel
    turned = kernel.transpose(1, 0, 2, 3)[:, :, ::-1, ::-1]
    return ic.ExponentialConv(kernel - turned, padding=padding)


def _defective(rng: np.random.Generator) -> ic.ExponentialConv:
    """Return one with M^3 = 0, whose only eigenvector has no basis beside it."""
    kernel = np.zeros((3, 3, 1, 3))
    kernel[0, 1, 0], kernel[1, 2, 0] = rng.standard_normal((2, 3))
    return ic.ExponentialConv(kernel, padding="circular")


def _decaying(rng: np.random.Generator) -> ic.ExponentialConv:
    """Return e^(M - 12): a series of M - 12 would cancel all digits."""
    kernel = 0.1 * rng.standard_normal((2, 2, 1, 3))
    kernel[:, :, 0, 1] -= 12 * np.eye(2)
    return ic.ExponentialConv(kernel)


def _symmetric() -> Iterator[Case]:
    for ndim, grid in GRIDS.items():
        yield Case(f"symmetric-{ndim}d", _SYMMETRIC(ndim=ndim), grid)
    yield Case("symmetric-k9x3", _SYMMETRIC(2, kernel_size=(9, 3)), (3, 4))
    yield Case("symmetric-one-row", _SYMMETRIC(), (1, 6), ())
    yield Case("symmetric-long", _SYMMETRIC(1, ndim=1), (131,))
    yield Case("symmetric-bias", biased(_SYMMETRIC()), (4, 5), (2, 2))
    for boundary, size, grid in (
        (("odd",), 7, (4,)),
        (("zero", "zero"), 3, (4, 5)),
        (("mirror", "mirror"), (5, 3), (4, 5)),
        (("mirror", "odd"), (5, 3), (1, 4)),
        (("mirror", "periodic", "symmetric"), (7, 2, 3), (2, 4, 3)),
        (("odd", "odd"), (5, 3), (4, 5)),
        (("periodic", "symmetric"), (4, 5), (3, 4)),
        (("odd", "periodic"), (3, 2), (4, 5)),
        (("symmetric", "odd"), (3, 11), (3, 4)),
        (("zero", "symmetric", "periodic"), (3, 3, 2), (3, 2, 4)),
        (("periodic", "odd", "periodic"), (3, 5, 4), (3, 2, 3)),
    ):
        build = _SYMMETRIC(2, kernel_size=size, ndim=len(grid), boundary=boundary)
        yield Case(f"bordered-{'-'.join(boundary)}", biased(build), grid)
    yield Case("bordered-long", _SYMMETRIC(1, ndim=1, boundary="odd"), (131,))
    wide = _SYMMETRIC(1, kernel_size=(67, 40), boundary=("odd", "periodic"))
    yield Case("bordered-k67x40", wide, (7, 8))  # a product per frequency, by FFTs of the kernel
    wide = _SYMMETRIC(1, kernel_size=1025, ndim=1, boundary="mirror")
    yield Case("bordered-mirror-k1025", wide, (131,))


def _pointwise() -> Iterator[Case]:
    classes: list[Any] = [ic.Conv1x1, ic.PLUConv1x1, ic.QRConv1x1, ic.ActNorm]
    classes += [ic.OrthogonalConv1x1, ic.CirculantConv1x1, ic.HouseholderConv1x1]
    for cls in classes:
        name = cls.__name__.lower()
        for ndim, grid in GRIDS.items():
            yield Case(f"{name}-{ndim}d", _one_by_one(cls), grid)
        yield Case(f"{name}-batch-axes", _one_by_one(cls, ndim=2), (4, 5), (2, 1, 2))
    of = functools.partial
    for m in (0, 1, 2, 6, 100):
        yield Case(f"qrconv1x1-m{m}", of(_qr, m), (4, 5), wide=True)
    for channels in (1, 4):
        yield Case(f"circulantconv1x1-c{channels}", of(_circulant, channels), (4, 5))
    for m in (0, 2):
        yield Case(f"orthogonalconv1x1-m{m}", of(_orthogonal, m), (4, 5), wide=True)
    yield Case("conv1x1-one-channel", lambda rng: ic.Conv1x1.init(1, rng=rng), (4,))


def _one_by_one(cls: Any, ndim: int | None = None) -> Build:
    build = biased(built(cls, scale=0.1, ndim=ndim))
    if cls is not ic.PLUConv1x1:
        return build
    order = np.asarray([2, 0, 1])  # a permutation that is not its own inverse
    return lambda rng: build(rng).replace(permutation=order)


def _qr(m: int, rng: np.random.Generator) -> ic.QRConv1x1:
    reflectors = rng.standard_normal((m, 3)) * 10.0 ** rng.integers(-3, 4, (m, 1))
    return ic.QRConv1x1(reflectors, rng.standard_normal((3, 3)), np.exp(rng.standard_normal(3)))


def _circulant(channels: int, rng: np.random.Generator) -> ic.CirculantConv1x1:
    return ic.CirculantConv1x1(*rng.standard_normal((3, channels)))


def _orthogonal(m: int, rng: np.random.Generator) -> ic.OrthogonalConv1x1:
    return ic.OrthogonalConv1x1(_qr(m, rng).reflectors, rng.standard_normal(3))


def _flow_step(rng: np.random.Generator) -> ic.InvertibleConv:
    norm = perturbed(ic.ActNorm.init(3), rng)
    return ic.Chain([norm, built(ic.QRConv1x1, scale=0.1)(rng), _EMERGING()(rng)])


def _merged(rng: np.random.Generator) -> ic.InvertibleConv:
    steps = [cls.init(3, rng=rng) for cls in (ic.Conv1x1, ic.PLUConv1x1)]
    return ic.Chain([*steps, _PERIODIC()(rng), ic.QRConv1x1.init(3, rng=rng)])


def _with_inverses(rng: np.random.Generator) -> ic.InvertibleConv:
    emerging = ic.Inverse(biased(_EMERGING())(rng))
    periodic = ic.Inverse(ic.Chain([_PERIODIC()(rng)]))
    return ic.Chain([emerging, periodic, with_bias(ic.Conv1x1.init(3, rng=rng), rng)])


def _composite() -> Iterator[Case]:
    yield Case("chain-flow-step", _flow_step, (4, 5))
    yield Case("chain-flow-step-no-batch", _flow_step, (4, 5), ())
    yield Case("chain-merged", _merged, (4, 5))
    yield Case("chain-merged-one-pixel", _merged, (1, 1), (1,))
    yield Case("chain-inverses", _with_inverses, (4, 5))
    yield Case("chain-1x1", lambda rng: ic.Chain([ic.Conv1x1.init(3, rng=rng)] * 2), (4, 5))
    several = ["periodic-2d", "periodic-bias", "emerging-biases", "qrconv1x1-m2"]
    turned: list[tuple[str, Any, list[str]]] = [("inverse", ic.Inverse, several)]
    even = "emerging-biases periodic-even-dilated bordered-periodic-symmetric exponential-bias"
    turned += [("transposed", Transposed, [*even.split(), "circulantconv1x1-2d", "qrconv1x1-m2"])]
    others = (*_periodic(), *_emerging(), *_exponential(), *_symmetric(), *_pointwise())
    for case, (kind, cls, names) in itertools.product(others, turned):
        if case.name in names:
            build = functools.partial(lambda case, cls, rng: cls(case.build(rng)), case, cls)
            yield dataclasses.replace(case, name=f"{kind}-{case.name}", build=build)


CASES: tuple[Case, ...] = (
    *(*autoregressive_cases(), *_emerging(), *_periodic(), *_exponential()),
    *(*_symmetric(), *_pointwise(), *_composite(), *special_cases()),
)
