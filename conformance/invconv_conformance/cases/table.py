"""The list of cases: operators, kernels and grids that every library is held to."""

import dataclasses
import functools
import itertools
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

import invconv as ic
from invconv.extend import Transposed

Shape = tuple[int, ...]
Build = Callable[[np.random.Generator], ic.InvertibleConv]


@dataclass(frozen=True)
class Case:
    """An operator on a grid."""

    name: str
    build: Build  # makes the operator, in NumPy float64, from a random generator
    spatial_shape: Shape
    batch_shape: Shape = (2,)
    singular: bool = False  # exactly, as computed
    wide: bool = False  # whether its numbers leave the range of float16

    def rng(self) -> np.random.Generator:
        """Return the case's own generator, the same on every run."""
        return np.random.default_rng(zlib.crc32(self.name.encode()))

    def conv(self) -> ic.InvertibleConv:
        """Return the operator, in NumPy float64."""
        return self.build(self.rng())

    def images(self, count: int) -> list[np.ndarray[Any, Any]]:
        """Return random arrays of the input's shape."""
        rng = self.rng().spawn(1)[0]
        shape = (*self.batch_shape, self.conv().channels, *self.spatial_shape)
        return [rng.standard_normal(shape) for _ in range(count)]


def built(cls: Any, channels: int = 3, scale: float = 0.05, **options: Any) -> Build:
    """Return a function that makes an operator, its parameters moved by N(0, scale^2)."""
    return lambda rng: perturbed(cls.init(channels, rng=rng, **options), rng, scale)


def perturbed(conv: ic.InvertibleConv, rng: np.random.Generator, scale: float = 0.1) -> Any:
    """Return a copy with N(0, scale^2) added to every parameter, masked entries too."""
    arrays = conv.parameters().items()
    return conv.replace(**{n: a + scale * rng.standard_normal(a.shape) for n, a in arrays})


def with_bias(conv: Any, rng: np.random.Generator) -> Any:
    """Return a copy with a random bias."""
    return conv.replace(bias=rng.standard_normal(conv.channels))


def biased(build: Build) -> Build:
    """Return a function that makes the operator with a random bias."""
    return lambda rng: with_bias(build(rng), rng)


def of_values(values: Any, rng: np.random.Generator) -> ic.Conv1x1:
    """Return a 1x1 with these singular values, between random rotations."""
    left, right = (ic.Conv1x1.init(len(values), rng=rng).weight for _ in range(2))
    return ic.Conv1x1((left * values) @ right)


def edited(conv: Any, name: str, place: Any, value: Any) -> Any:
    """Return a copy with other numbers in a place of a parameter."""
    array = conv.parameters()[name].copy()
    array[place] = value
    return conv.replace(**{name: array})


GRIDS: dict[int, Shape] = {1: (7,), 2: (4, 5), 3: (3, 2, 4), 4: (2, 3, 2, 2)}
_CAUSAL = functools.partial(built, ic.AutoregressiveConv, scale=0.1)
_RASTER: dict[str, Any] = {"mask": "raster"}


def _autoregressive() -> Iterator[Case]:
    some: dict[int, list[Shape]] = {3: [(1, 1, 1), (1, -1, 1)]}
    some[4] = [(-1, 1, 1, -1), (-1, -1, -1, -1)]
    for ndim, grid in GRIDS.items():
        for direction in some.get(ndim, list(itertools.product((1, -1), repeat=ndim))):
            signs = "".join("+" if s > 0 else "-" for s in direction)
            order = "lower" if sum(direction) >= 0 else "upper"
            corner = _CAUSAL(ndim=ndim, direction=direction, channel_order=order)
            yield Case(f"corner-{ndim}d{signs}", corner, grid)
        for way in (1, -1):
            raster = _CAUSAL(ndim=ndim, direction=way, channel_order="upper", **_RASTER)
            yield Case(f"raster-{ndim}d{way:+d}", raster, grid)
        dilation = (2, 1, 3, 1)[:ndim]
        yield Case(f"corner-{ndim}d-dilated", _CAUSAL(ndim=ndim, dilation=dilation), grid)
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
        yield Case(name, _CAUSAL(mask=name.partition("-")[0], **given), grid)
    yield Case("corner-9-channels-on-20", _CAUSAL(9, ndim=1, kernel_size=3), (20,))
    # more than a vector holds: 16 numbers at most
    yield Case("corner-on-18-rows", _CAUSAL(2, kernel_size=(3, 2), direction=(1, -1)), (18, 4))
    # wide enough to have rows in the lanes
    yield Case("raster-on-18-rows", _CAUSAL(2, direction=-1, **_RASTER), (18, 6))
    planes = _CAUSAL(2, ndim=3, direction=(1, -1, 1), channel_order="upper")
    yield Case("corner-3d-on-18-rows", planes, (2, 18, 2))
    yield Case("corner-wide-on-one-image", _CAUSAL(1, kernel_size=(2, 10)), (18, 10), (1,))
    yield Case("corner-tall-on-one-image", _CAUSAL(1, kernel_size=(6, 1)), (20, 3), (1,))
    yield Case("corner-17-images", _CAUSAL(direction=-1), (3, 4), (17,))
    yield Case("corner-31-images", _CAUSAL(), (3, 4), (31,))  # a forward has these in the lanes
    # no processor has registers for the sums of 25 channels: they are solved in blocks
    blocks = _CAUSAL(25, scale=0.02, channel_order="upper")
    yield Case("corner-25-channels", blocks, (2, 2))
    yield Case("raster-3d-dilated-beyond", _CAUSAL(3, ndim=3, dilation=2, **_RASTER), (3, 4, 2))
    name = "corner-ill-conditioned-at-the-pixel"
    yield Case(name, lambda rng: skewed(_CAUSAL()(rng), 3.0), (4, 5), wide=True)
    yield Case("corner-one-channel", _CAUSAL(1, kernel_size=2), (4, 4), (3,))
    signal = _CAUSAL(1, ndim=1, kernel_size=4, direction=-1)
    yield Case("corner-signal", signal, (40,))
    yield Case("corner-many-samples", _CAUSAL(kernel_size=3), (4, 5), (1500,))
    yield Case("corner-bias", biased(_CAUSAL()), (4, 5), (2, 2))


def skewed(conv: Any, size: float) -> Any:
    """Return the operator with large numbers beside D's diagonal."""
    kernel, side = conv.kernel.copy(), np.tril if conv.channel_order == "lower" else np.triu
    strict = side(1 - np.eye(conv.channels))
    kernel[(..., *conv._family.centre)] += size * strict
    return conv.replace(kernel=kernel)


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
    for norm in (1e-9, 1e-4, 1e-2):  # the series has few terms, so that each one shows
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
    """Return an exponential with M^3 = 0, whose eigenvectors are no basis."""
    kernel = np.zeros((3, 3, 1, 3))
    kernel[0, 1, 0], kernel[1, 2, 0] = rng.standard_normal((2, 3))
    return ic.ExponentialConv(kernel, padding="circular")


def _decaying(rng: np.random.Generator) -> ic.ExponentialConv:
    """Return e^(M - 12): a series in powers of M - 12 would cancel all digits."""
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


_FACTOR = 2.0**50  # with it and its square, float32 stays in range


def _fixed(conv: ic.InvertibleConv) -> Build:
    return lambda rng: conv


def _zeroed(cls: Any, name: str, place: Any, value: float = 0.0, scale: float = 0.1) -> Build:
    build = built(cls, scale=scale)
    return lambda rng: edited(build(rng), name, place, value)


def _quarter_turns(rng: np.random.Generator) -> ic.PeriodicConv:
    # K_hat(f) has a row exp(-2 pi i f/n) + exp(2 pi i f/n) = 2 cos(2 pi f/n), zero at f = n/4
    kernel = 0.1 * np.triu(rng.standard_normal((3, 3)), 1)[:, :, None, None] * np.ones(3)
    kernel[0, 0, 0, 1] = kernel[2, 2, 0, 1] = kernel[1, 1, 0, 0] = kernel[1, 1, 0, 2] = 1.0
    return ic.PeriodicConv(kernel)


def _singular() -> Iterator[tuple[str, Build, Shape]]:
    """Yield operators whose zero pivot no rounding can hide."""
    rows, ends = np.asarray([[1.0, 2, 0], [2, 4, 0], [0, 0, 1]]), np.asarray([1.0, 2.0])
    pivot = _zeroed(ic.AutoregressiveConv, "kernel", (1, 1, 0, 0))

    def chain(rng: np.random.Generator) -> ic.Chain:
        return ic.Chain([with_bias(ic.Conv1x1.init(3, rng=rng), rng), pivot(rng)])

    yield "corner", pivot, (4, 5)
    yield "emerging", _zeroed(ic.EmergingConv, "second.kernel", (0,) * 4, scale=0.05), (4, 5)
    yield "periodic", _fixed(ic.PeriodicConv(np.asarray([[[1.0, -1.0]]]))), (6,)
    # 1 - 1/2 (x[p - 1] + x[p + 1]) of a constant image
    yield "symmetric", _fixed(ic.SymmetricConv(np.asarray([[[1.0, -0.5]]]))), (6,)
    # cos(pi m / 2) is zero for odd m
    turned = ic.SymmetricConv(np.asarray([[[0.0, 1.0]]]))
    yield "symmetric-quarter-turns", _fixed(turned), (2,)
    yield "quarter-turns", _quarter_turns, (2, 8)
    yield "conv1x1", _fixed(ic.Conv1x1(rows)), (4, 5)
    # exp(-20000) is zero in every dtype, even in extended precision
    yield "pluconv1x1", _zeroed(ic.PLUConv1x1, "log_scale", 1, -20000.0), (4, 5)
    yield "qrconv1x1", _zeroed(ic.QRConv1x1, "scale", 1), (4, 5)
    # the mean of c is c_hat at frequency 0
    circulant = ic.CirculantConv1x1(ends, np.asarray([3.0, -3.0]), ends)
    yield "circulantconv1x1", _fixed(circulant), (4, 5)
    yield "actnorm", _zeroed(ic.ActNorm, "log_scale", 1, -20000.0), (4, 5)
    yield "chain", chain, (4, 5)


def _one_channel(*taps: float, **options: Any) -> ic.AutoregressiveConv:
    return ic.AutoregressiveConv(np.asarray(taps).reshape(1, 1, 1, -1), **options)


def _triangle(channels: int, first: float, others: float, rng: np.random.Generator) -> Any:
    """Return an operator whose matrix at the pixel grows, with D^-1 multiplied or solved."""
    kernel = others * rng.standard_normal((channels, channels, 2, 2))
    kernel[:, :, 0, 0] = np.eye(channels) - first * np.tril(np.ones((channels,) * 2), -1)
    return ic.AutoregressiveConv(kernel)


def _two_taps(cls: Any, tap: float, beside: float, rng: np.random.Generator) -> Any:
    kernel = np.zeros((3, 3, 1, 2))
    kernel[:, :, 0, 0] = np.eye(3)
    kernel[:, :, 0, 1] = np.eye(3) * tap + beside * np.triu(rng.standard_normal((3, 3)), 1)
    return cls(kernel)


def _frequencies(rng: np.random.Generator) -> ic.PeriodicConv:
    """Return an operator that loses its digits in products with the spectrum's inverse."""
    weight = of_values(np.geomspace(1.0, 1e-8, 4), rng).weight
    return ic.PeriodicConv(np.stack([weight, 0.5 * weight], -1)[:, :, None])


def _weak_circulant(rng: np.random.Generator) -> ic.CirculantConv1x1:
    scales = [rng.permutation(np.geomspace(1.0, 1e-3, 5)) for _ in range(2)]
    c = np.fft.irfft(np.asarray([1.0, 1e-3j, 0.5]), 5)
    return ic.CirculantConv1x1(scales[0], c, scales[1])


def _scales(rng: np.random.Generator) -> ic.InvertibleConv:
    conv, scale = ic.QRConv1x1.init(4, rng=rng), np.geomspace(1.0, 1e-4, 4)
    return conv.replace(scale=scale, upper=0.1 * rng.standard_normal((4, 4)))


def _ill_conditioned() -> Iterator[tuple[str, Build, Shape]]:
    """Yield operators whose inverse float32 cannot carry, and some that float64 cannot."""
    of = functools.partial
    yield "symmetric", of(_two_taps, ic.SymmetricConv, 0.5 - 2.0**-8, 0.05), (2, 8)
    # lost if D^-1 is multiplied instead of solved with
    yield "pixel", of(_triangle, 8, 9.1, 1e-9), (2, 3)
    yield "frequencies", _frequencies, (2, 5)
    yield "corner", _fixed(_one_channel(1.0, -3.0)), (2, 16)
    yield "corner-in-float64", _fixed(_one_channel(1.0, -29.6)), (1, 16)
    first = _one_channel(1.0, -1.5, direction=-1)
    pair = ic.EmergingConv(first, _one_channel(1.0, -1.5, channel_order="upper"))
    yield "emerging", _fixed(pair), (2, 12)
    yield "triangle", of(_triangle, 5, 9, 0.1), (2, 3)
    yield "periodic", of(_two_taps, ic.PeriodicConv, 1.0 - 2.0**-7, 0.1), (2, 8)
    yield "conv1x1", of(of_values, np.geomspace(1.0, 1e-6, 4)), (2, 3)
    yield "circulantconv1x1", _weak_circulant, (2, 3)
    yield "qrconv1x1", _scales, (2, 3)


def _scaled() -> Iterator[Case]:
    classes: list[Any] = [ic.AutoregressiveConv, ic.EmergingConv, ic.PeriodicConv, ic.Conv1x1]
    for name, factor in (("huge", _FACTOR), ("tiny", 1 / _FACTOR)):
        for cls in classes:
            build = functools.partial(_with_factor, cls, factor)
            yield Case(f"{name}-{cls.__name__.lower()}", build, (4, 5), wide=True)
        log_scaled = functools.partial(_log_scaled, np.log(factor))
        yield Case(f"{name}-actnorm", log_scaled, (4, 5), wide=True)


def _log_scaled(shift: float, rng: np.random.Generator) -> ic.ActNorm:
    return ic.ActNorm(shift + 0.1 * rng.standard_normal(3), rng.standard_normal(3))


def _with_factor(cls: Any, factor: float, rng: np.random.Generator) -> Any:
    conv = built(cls)(rng)
    # only one factor of the pair grows, so that the product stays in range
    name, array = next(iter(conv.parameters().items()))
    return edited(conv, name, ..., factor * array)


_SINGULAR = (Case(f"singular-{n}", build, on, singular=True) for n, build, on in _singular())
_ILL = (Case(f"ill-{n}", build, on, wide=True) for n, build, on in _ill_conditioned())
CASES: tuple[Case, ...] = (
    *(*_autoregressive(), *_emerging(), *_periodic(), *_exponential(), *_symmetric()),
    *(*_pointwise(), *_composite(), *_SINGULAR, *_ILL, *_scaled()),
)
