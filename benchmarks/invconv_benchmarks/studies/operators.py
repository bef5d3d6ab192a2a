"""Operators to judge: random ones, and some that were silent while the condition alone judged."""

import functools
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

import invconv as ic
from invconv.arrays.namespaces import Shape
from invconv_benchmarks.demo.diagnose import random_corner
from invconv_benchmarks.report.figures import Floats
from invconv_conformance.cases.table import of_values, perturbed

Construction = tuple[str, ic.InvertibleConv, Shape]

_SMALL = 1e-6
_LOWER = np.asarray([[1, 0], [1 / _SMALL, 1]])
_UPPER = np.asarray([[_SMALL, 1], [0, 1 - 1 / _SMALL]])
_CHANNELS, _GROWTH, _PIXELS = 64, 1.5, 17


def growing_factors() -> ic.PLUConv1x1:
    """Return W = L U of condition 2.1, whose factors have one of 1e12."""
    scale = np.diagonal(_UPPER)
    triangles = np.tril(_LOWER, -1), np.triu(_UPPER, 1)
    return ic.PLUConv1x1(np.arange(2), *triangles, np.sign(scale), np.log(np.abs(scale)))


def growing_pair() -> ic.EmergingConv:
    """Return an emerging convolution with the same two as matrices at the pixel itself."""

    def at_the_pixel(matrix: Floats, direction: int, order: str) -> ic.AutoregressiveConv:
        kernel = np.zeros((2, 2, 2, 2))
        kernel[:, :, 0, 0] = matrix
        return ic.AutoregressiveConv(kernel, direction=direction, channel_order=order)

    return ic.EmergingConv(at_the_pixel(_UPPER, -1, "upper"), at_the_pixel(_LOWER, 1, "lower"))


def undone() -> ic.Chain:
    """Return A and then (2 A)^-1: the condition of the whole is 1, that of A is 1e6."""
    one = of_values([1.0, 1e-1, 1e-3, 1e-6], np.random.default_rng(0))
    return ic.Chain([one, ic.Inverse(ic.Conv1x1(2 * one.weight))])


def wide_sum() -> ic.AutoregressiveConv:
    """Return D (1 - 1.5 S), S a shift by a pixel, D = I with a last row of 3s for 64 channels."""
    at_pixel = np.eye(_CHANNELS)
    at_pixel[-1] = 3
    return ic.AutoregressiveConv(np.stack([at_pixel, -_GROWTH * at_pixel], axis=-1))


def hidden() -> ic.Chain:
    """Return 1 + s v v^T at each pixel, and an identity, which hides that it is one matrix.

    v is orthogonal to the start vectors of Hager's and Higham's estimate whose random signs are
    those of ``default_rng(0)``, and to what it climbs to from there: it said 1.
    """
    channels, v = 96, np.zeros(96)
    v[[0, 59]], v[[57, 2]] = 1, -1
    kernel = np.zeros((channels, channels, 2))
    kernel[:, :, 0] = np.eye(channels)
    matrix = np.eye(channels) + 2.0**20 * np.outer(v, v)
    return ic.Chain([ic.Conv1x1(matrix), ic.AutoregressiveConv(kernel)])


def constructions() -> Iterator[Construction]:
    """Yield each with its name and grid."""
    every: tuple[Construction, ...] = (
        ("PLU factors that grow", growing_factors(), (8, 8)),
        ("an emerging pair of them", growing_pair(), (8, 8)),
        ("steps that undo each other", undone(), (8, 8)),
        ("a sum over 64 channels", wide_sum(), (_PIXELS,)),
        ("an estimate fooled", hidden(), (6,)),
    )
    yield from ((name, _cast(conv, 0), shape) for name, conv, shape in every)


def grey() -> Iterator[Construction]:
    """Yield what was silent on images that are evenly grey: too large for dense matrices."""
    rng = np.random.default_rng(0)
    laplacian = np.asarray([[0, -1, 0], [-1, 4 + _SMALL, -1], [0, -1, 0]])[None, None]
    every: list[Construction] = [
        (f"a Laplacian + 1e-6 on {n} x {n}", ic.PeriodicConv(laplacian), (n, n)) for n in (256, 512)
    ]
    for channels, sums, grid in ((16, 12, (7, 11, 8)), (16, 13, (7, 11, 8)), (48, 12, (4, 5, 6))):
        kernel = rng.random((channels, channels, 3, 3, 3))
        kernel *= sums / kernel.sum(axis=(1, 2, 3, 4)).max()
        title = f"e to the power of a positive kernel, C = {channels}, row sums of {sums}"
        every.append((title, ic.ExponentialConv(kernel), grid))
    for channels in (8, 16, 48):
        title = f"nearly singular at frequency 0, C = {channels}"
        grows = _losing(grey=True)(rng, channels, (3, 3))
        every.append((title, grows(_LOSES), (16, 16)))
    yield from ((name, _cast(conv, 0), shape) for name, conv, shape in every)


_LOSES = 5e5
_FEW, _GRID = (1, 5), (3, 4)  # numbers of channels, and the grid, of chains
_LARGE = 48, 24  # pixels along each of two axes, and channels
_LOST, _WIDER = (2.5, 7.5), 29 * math.log10(2)  # digits of float32's, and more of float64
_HALVINGS = 30
_STEPS: tuple[Any, ...] = (
    *(ic.Conv1x1, ic.PLUConv1x1, ic.QRConv1x1, ic.ActNorm),
    *(ic.AutoregressiveConv, ic.EmergingConv, ic.PeriodicConv),
)


# unknowns of most operators, of the largest, and of those that elimination has to invert
SMALL, LARGE, _DENSE = 80, 160, 80
Rng = np.random.Generator
Drawn = tuple[ic.InvertibleConv, Shape]


def _grid(rng: Rng, ndim: int, channels: int, largest: int = LARGE) -> Shape:
    """Return a grid of at most ``largest`` unknowns, one in five of more than `SMALL`."""
    low, high = (SMALL, largest) if largest > SMALL and rng.random() < 0.2 else (4, SMALL)
    return split(rng, math.exp(rng.uniform(math.log(low), math.log(high))) / channels, ndim)


def split(rng: Rng, pixels: float, ndim: int, alike: float = 3.0) -> Shape:
    """Return a grid of at most so many pixels; large ``alike`` make its sides so."""
    shares = rng.dirichlet(np.full(ndim, alike))
    return tuple(max(1, int(max(1.0, pixels) ** share)) for share in shares)


def _scaled(conv: Any, rng: Rng, largest: float) -> Any:
    return perturbed(conv, rng, largest * 10.0 ** rng.uniform(-2, 0))


def numbers(rng: Rng, ndim: int, low: int, high: int) -> Shape:
    """Return a number from low to high - 1 for each axis."""
    return tuple(int(n) for n in rng.integers(low, high, ndim))


def _size(rng: Rng) -> tuple[int, int]:
    return int(rng.integers(1, 4)), int(rng.integers(1, 5))


def _autoregressive(mask: str, rng: Rng) -> Drawn:
    ndim, channels = _size(rng)
    one = int(rng.choice([-1, 1]))
    corner = tuple(int(s) for s in rng.choice([-1, 1], ndim))
    size, order = numbers(rng, ndim, 1, 4), str(rng.choice(["lower", "upper"]))
    settings: dict[str, Any] = {"direction": corner if mask == "corner" else one, "mask": mask}
    settings |= {"channel_order": order, "dilation": numbers(rng, ndim, 1, 3)}
    conv = ic.AutoregressiveConv.init(channels, size, ndim, rng=rng, **settings)
    return _scaled(conv, rng, 3.0), _grid(rng, ndim, channels)


def _emerging(rng: Rng) -> Drawn:
    ndim, channels = _size(rng)
    size = tuple(int(k) for k in rng.choice([1, 3, 5], ndim))
    dilation, mask = numbers(rng, ndim, 1, 3), str(rng.choice(["corner", "raster"]))
    conv = ic.EmergingConv.init(channels, size, ndim, dilation, mask=mask, rng=rng)
    return _scaled(conv, rng, 1.0), _grid(rng, ndim, channels)


def _periodic(rng: Rng) -> Drawn:
    ndim, channels = _size(rng)
    size, dilation = numbers(rng, ndim, 1, 5), numbers(rng, ndim, 1, 3)
    grid = _grid(rng, ndim, channels, _DENSE)
    conv = _scaled(ic.PeriodicConv.init(channels, size, ndim, dilation=dilation, rng=rng), rng, 1.0)
    spread = all(d * (k - 1) < n for k, d, n in zip(size, dilation, grid, strict=True))
    if rng.random() < 0.5 and spread:  # what it makes of a constant image almost vanishes
        kernel = conv.kernel - conv.kernel.mean(axis=tuple(range(2, 2 + ndim)), keepdims=True)
        kernel.reshape(channels, channels, -1)[:, :, 0] += 10.0 ** rng.uniform(-20, 0)
        conv = conv.replace(kernel=kernel)
    return conv, grid


def _symmetric(rng: Rng) -> Drawn:
    ndim, channels = _size(rng)
    size = tuple(2 * k - 1 for k in numbers(rng, ndim, 1, 4))
    words = tuple(map(str, rng.choice(["symmetric", "mirror", "odd", "periodic"], ndim)))
    conv = ic.SymmetricConv.init(channels, size, ndim, boundary=words, rng=rng)
    conv = _scaled(conv, rng, 1.0)
    return conv, _grid(rng, ndim, channels, _DENSE)


def _plain(rng: Rng, channels: int) -> ic.InvertibleConv:
    return of_values(10.0 ** rng.uniform(-rng.uniform(0, 18), 0, channels), rng)


def _plu(rng: Rng, channels: int) -> Any:
    conv = _scaled(ic.PLUConv1x1.init(channels, rng=rng), rng, 2.0)
    spread = rng.uniform(0, 50) * rng.standard_normal(channels)
    return conv.replace(log_scale=conv.log_scale + spread)


def _qr(rng: Rng, channels: int) -> Any:
    conv = _scaled(ic.QRConv1x1.init(channels, rng=rng), rng, 2.0)
    spread = np.exp(rng.uniform(0, 50) * rng.standard_normal(channels))
    return conv.replace(scale=conv.scale * spread)


def _circulant(rng: Rng, channels: int) -> Any:
    conv = _scaled(ic.CirculantConv1x1.init(channels, rng=rng), rng, 2.0)
    left, right = np.exp(rng.uniform(0, 20) * rng.standard_normal((2, channels)))
    return conv.replace(left=conv.left * left, right=conv.right * right)


def _actnorm(rng: Rng, channels: int) -> ic.InvertibleConv:
    return ic.ActNorm(rng.uniform(0, 200) * rng.standard_normal(channels), None)


def _one_by_one(build: Callable[[Rng, int], ic.InvertibleConv], rng: Rng) -> Drawn:
    channels = int(rng.integers(1, 13))
    return build(rng, channels), _grid(rng, 2, channels)


def _chain(rng: Rng) -> Drawn:
    conv, grid = list(FAMILIES.values())[int(rng.integers(4))](rng)
    channels = conv.channels
    steps: list[ic.InvertibleConv] = [conv]
    if rng.random() < 0.5:
        steps.insert(0, _scaled(ic.QRConv1x1.init(channels, rng=rng), rng, 0.3))
    if rng.random() < 0.5:
        last = ic.AutoregressiveConv.init(channels, 2, len(grid), rng=rng)
        steps.append(_scaled(last, rng, 0.5))
    if rng.random() < 0.2:
        steps[-1] = ic.Inverse(steps[-1])
    return ic.Chain(steps), grid


def _inverse(rng: Rng) -> Drawn:
    conv, grid = FAMILIES[str(rng.choice(list(FAMILIES)[:-1]))](rng)
    return ic.Inverse(conv), grid


_ONE_BY_ONE: dict[str, Callable[[Rng, int], ic.InvertibleConv]] = {
    "Conv1x1": _plain,
    "PLUConv1x1": _plu,
    "QRConv1x1": _qr,
    "OrthogonalConv1x1": lambda rng, channels: ic.OrthogonalConv1x1.init(channels, rng=rng),
    "CirculantConv1x1": _circulant,
    "ActNorm": _actnorm,
}
FAMILIES: dict[str, Callable[[Rng], Drawn]] = {
    "corner": functools.partial(_autoregressive, "corner"),
    "raster": functools.partial(_autoregressive, "raster"),
    "EmergingConv": _emerging,
    "PeriodicConv": _periodic,
    "SymmetricConv": _symmetric,
    **{name: functools.partial(_one_by_one, build) for name, build in _ONE_BY_ONE.items()},
    "Chain": _chain,
    "Inverse": _inverse,
}


def random_operators(count: int, seed: int = 0) -> Iterator[Construction]:
    """Yield so many operators of each family, in float32 and float64 by turns."""
    for number, (name, draw) in enumerate(FAMILIES.items()):
        for i, rng in enumerate(np.random.default_rng([seed, number]).spawn(count)):
            conv, shape = draw(rng)
            yield name, _cast(conv, i), shape


def chains(count: int, seed: int = 0) -> Iterator[Construction]:
    """Yield so many chains of two to eight steps, in float32 and float64 by turns."""
    for i, rng in enumerate(np.random.default_rng([seed, 1]).spawn(count)):
        channels = int(rng.integers(*_FEW))
        scale = 10.0 ** rng.uniform(-2, 0)
        steps = []
        for _ in range(int(rng.integers(2, 9))):
            step = _step(rng, channels, scale)
            steps.append(ic.Inverse(step) if rng.random() < 0.2 else step)
        if rng.random() < 0.3:
            steps.append(ic.Inverse(steps[0]))
        yield "chains of 2 to 8 steps", _cast(ic.Chain(steps), i), _GRID


def _step(rng: Rng, channels: int, scale: float = 0.02, ndim: int = 2) -> ic.InvertibleConv:
    cls = _STEPS[int(rng.integers(len(_STEPS)))]
    conv: ic.InvertibleConv = perturbed(cls.init(channels, ndim=ndim, rng=rng), rng, scale)
    return conv


def large_grids(count: int) -> Iterator[Construction]:
    """Yield convolutions that lose many digits of float64 on a large grid."""
    side, channels = _LARGE
    for rng in np.random.default_rng([0, 2]).spawn(count):
        conv = random_corner(channels, rng.uniform(0.12, 0.2), rng)
        yield "large grids, float64", conv, (side, side)


Grows = Callable[[float], ic.InvertibleConv]  # from a number whose logarithm the condition follows


def near_threshold(count: int) -> Iterator[Construction]:
    """Yield so many operators of each kind that leave some four digits of their dtype or fewer."""
    for number, (name, draw) in enumerate(_NEAR.items()):
        for i, rng in enumerate(np.random.default_rng([0, 3, number]).spawn(count)):
            channels = int(rng.integers(*_FEW))
            grid = _GRID if rng.random() < 0.5 else (int(rng.integers(4, 33)),)
            digits = rng.uniform(*_LOST) + (0 if i % 2 == 0 else _WIDER)
            grows = draw(rng, channels, grid)
            conv = _conditioned(grows, grid, 10.0**digits)
            yield f"near the threshold: {name}", _cast(conv, i), grid


def _conditioned(grows: Grows, grid: Shape, condition: float) -> ic.InvertibleConv:
    low, high = -4.0, 17.0  # logarithms
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        with np.errstate(all="ignore"):
            small = grows(10.0**middle).condition(grid) < condition
        low, high = (middle, high) if small else (low, middle)
    return grows(10.0**low)


def _moving(cls: Any, positive: bool = False, **settings: Any) -> Any:
    """Return what adds noise to the parameters, or numbers of one sign."""

    def draw(rng: Rng, channels: int, grid: Shape) -> Grows:
        ndim = len(grid)
        own = {n: v[:ndim] if isinstance(v, tuple) else v for n, v in settings.items()}
        conv = cls.init(channels, ndim=ndim, **own, rng=rng)
        arrays = conv.parameters()
        noise = {n: rng.standard_normal(a.shape) for n, a in arrays.items()}
        noise = {n: np.abs(a) if positive else a for n, a in noise.items()}
        return lambda scale: conv.replace(**{n: a + scale * noise[n] for n, a in arrays.items()})

    return draw


def _losing(grey: bool) -> Any:
    """Return what nearly loses one frequency: that of evenly grey images, or any."""

    def draw(rng: Rng, channels: int, grid: Shape) -> Grows:
        axes = tuple(range(2, 2 + len(grid)))
        small = rng.standard_normal((channels, channels, *(min(3, n) for n in grid)))
        spectrum: Any = np.fft.fftn(small, grid, axes)
        at = tuple(0 if grey else int(rng.integers(n)) for n in grid)
        mirrored = tuple(-f % n for f, n in zip(at, grid, strict=True))
        left, values, right = np.linalg.svd(spectrum[(..., *at)])

        def conv(scale: float) -> ic.InvertibleConv:
            values[-1] = values[0] / scale
            changed = spectrum.copy()
            changed[(..., *at)] = (left * values) @ right
            changed[(..., *mirrored)] = changed[(..., *at)].conj()
            return ic.PeriodicConv(np.fft.ifftn(changed, axes=axes).real)

        return conv

    return draw


def _of_values(rng: Rng, channels: int, grid: Shape) -> Grows:
    left, right = (ic.Conv1x1.init(channels, rng=rng).weight for _ in range(2))
    logs = rng.uniform(0, 1, channels) if channels > 2 else np.arange(channels)
    return lambda scale: ic.Conv1x1((left * scale**-logs) @ right, ndim=len(grid))


def _among_others(rng: Rng, channels: int, grid: Shape) -> Grows:
    """Return a chain of steps as they are initialised, and one that grows."""
    bad = _NEAR[str(rng.choice([*_NEAR][:-1]))](rng, channels, grid)
    others = [_step(rng, channels, ndim=len(grid)) for _ in range(int(rng.integers(1, 4)))]
    place = int(rng.integers(len(others) + 1))
    return lambda scale: ic.Chain([*others[:place], bad(scale), *others[place:]])


_NEAR: dict[str, Any] = {
    "corner": _moving(ic.AutoregressiveConv),
    "raster": _moving(ic.AutoregressiveConv, mask="raster", kernel_size=(2, 3)),
    "EmergingConv": _moving(ic.EmergingConv),
    "ExponentialConv": _moving(ic.ExponentialConv),
    "ExponentialConv, positive": _moving(ic.ExponentialConv, positive=True),
    "ExponentialConv, circular": _moving(ic.ExponentialConv, positive=True, padding="circular"),
    "PeriodicConv, a frequency": _losing(grey=False),
    "PeriodicConv, evenly grey": _losing(grey=True),
    "SymmetricConv": _moving(ic.SymmetricConv),
    "Conv1x1": _of_values,
    "PLUConv1x1": _moving(ic.PLUConv1x1),
    "QRConv1x1": _moving(ic.QRConv1x1),
    "a chain": _among_others,
}


def blamed(count: int) -> Iterator[tuple[ic.Chain, Shape, int]]:
    """Yield so many chains in float32 with one step that is lost, its grid, and its number."""
    for i, rng in enumerate(np.random.default_rng([0, 4]).spawn(count)):
        channels, grid = int(rng.integers(1, 9)), ((8, 8), (16,), (6, 10), (32, 32))[i % 4]
        draw = list(_NEAR.values())[i % (len(_NEAR) - 1)]
        bad = _conditioned(draw(rng, channels, grid), grid, 10 ** rng.uniform(9, 14))
        steps = [_step(rng, channels, ndim=len(grid)) for _ in range(int(rng.integers(1, 5)))]
        place = int(rng.integers(len(steps) + 1))
        chain = ic.Chain([*steps[:place], bad, *steps[place:]])
        yield _cast(chain, 0), grid, place


def _cast(conv: Any, number: int) -> Any:
    with np.errstate(over="ignore"):  # inf is what float32 makes of it
        return conv.asarrays(np.empty(0, ("float32", "float64")[number % 2]))
