"""Random operators of every family, well and badly conditioned, up to overflow, on random grids.

Most grids are small enough for a dense matrix in extended precision.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np

import invconv as ic
from invconv_conformance.cases.table import Shape, of_values, perturbed

Rng = np.random.Generator
Drawn = tuple[ic.InvertibleConv, Shape]

SMALL, LARGE = 200, 1200  # unknowns of most operators, and of the largest
_DENSE = 300  # unknowns of the largest that elimination has to invert


def _grid(rng: Rng, ndim: int, channels: int, largest: int | None = None) -> Shape:
    """Return a grid of at most ``largest`` unknowns, one in five of more than `SMALL`."""
    largest = LARGE if largest is None else largest
    low, high = (SMALL, largest) if largest > SMALL and rng.random() < 0.2 else (4, SMALL)
    pixels = max(1.0, math.exp(rng.uniform(math.log(low), math.log(high))) / channels)
    shares = rng.dirichlet(np.full(ndim, 3.0))
    return tuple(max(1, int(pixels**share)) for share in shares)


def _scaled(conv: Any, rng: Rng, largest: float) -> Any:
    return perturbed(conv, rng, largest * 10.0 ** rng.uniform(-2, 0))


def _numbers(rng: Rng, ndim: int, low: int, high: int) -> Shape:
    return tuple(int(n) for n in rng.integers(low, high, ndim))


def _size(rng: Rng) -> tuple[int, int]:
    return int(rng.integers(1, 4)), int(rng.integers(1, 5))


def _autoregressive(mask: str, rng: Rng) -> Drawn:
    ndim, channels = _size(rng)
    one = int(rng.choice([-1, 1]))
    corner = tuple(int(s) for s in rng.choice([-1, 1], ndim))
    size, order = _numbers(rng, ndim, 1, 4), str(rng.choice(["lower", "upper"]))
    settings: dict[str, Any] = {"direction": corner if mask == "corner" else one, "mask": mask}
    settings |= {"channel_order": order, "dilation": _numbers(rng, ndim, 1, 3)}
    conv = ic.AutoregressiveConv.init(channels, size, ndim, rng=rng, **settings)
    return _scaled(conv, rng, 3.0), _grid(rng, ndim, channels)


def _emerging(rng: Rng) -> Drawn:
    ndim, channels = _size(rng)
    size = tuple(int(k) for k in rng.choice([1, 3, 5], ndim))
    dilation, mask = _numbers(rng, ndim, 1, 3), str(rng.choice(["corner", "raster"]))
    conv = ic.EmergingConv.init(channels, size, ndim, dilation, mask=mask, rng=rng)
    return _scaled(conv, rng, 1.0), _grid(rng, ndim, channels)


def _periodic(rng: Rng) -> Drawn:
    ndim, channels = _size(rng)
    size, dilation = _numbers(rng, ndim, 1, 5), _numbers(rng, ndim, 1, 3)
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
    size = tuple(2 * k - 1 for k in _numbers(rng, ndim, 1, 4))
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
