"""Random operators of every family, well and badly conditioned, up to overflow, on random grids.

Where `CASES` lists operators, this draws them: for claims of the kind "of 500
random operators". Most grids are small enough for a dense matrix in extended precision.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

import invconv as ic
from invconv_conformance.cases.case import Shape

Drawn = tuple[ic.InvertibleConv, Shape]

SMALL, LARGE = 200, 1200  # unknowns of most operators, and of the largest
_DENSE = 300  # unknowns of the largest that elimination has to invert


def _grid(rng: np.random.Generator, ndim: int, channels: int, largest: int | None = None) -> Shape:
    """Return a grid of at most ``largest`` unknowns, one in five of more than `SMALL`."""
    largest = LARGE if largest is None else largest
    low, high = (SMALL, largest) if largest > SMALL and rng.random() < 0.2 else (4, SMALL)
    pixels = max(1.0, math.exp(rng.uniform(math.log(low), math.log(high))) / channels)
    shares = rng.dirichlet(np.full(ndim, 3.0))
    return tuple(max(1, int(pixels**share)) for share in shares)


def _scaled(conv: Any, rng: np.random.Generator, largest: float) -> Any:
    """Return a copy with N(0, s^2) added to every parameter, s up to ``largest``."""
    scale = largest * 10.0 ** rng.uniform(-2, 0)
    moved = {n: p + scale * rng.standard_normal(p.shape) for n, p in conv.parameters().items()}
    return conv.replace(**moved)


def _autoregressive(rng: np.random.Generator, mask: str) -> Drawn:
    ndim, channels = int(rng.integers(1, 4)), int(rng.integers(1, 5))
    one = int(rng.choice([-1, 1]))
    corner = tuple(int(s) for s in rng.choice([-1, 1], ndim))
    conv = ic.AutoregressiveConv.init(
        channels,
        tuple(int(k) for k in rng.integers(1, 4, ndim)),
        ndim,
        mask=mask,
        direction=corner if mask == "corner" else one,
        channel_order=str(rng.choice(["lower", "upper"])),
        dilation=tuple(int(d) for d in rng.integers(1, 3, ndim)),
        rng=rng,
    )
    return _scaled(conv, rng, 3.0), _grid(rng, ndim, channels)


def _emerging(rng: np.random.Generator) -> Drawn:
    ndim, channels = int(rng.integers(1, 4)), int(rng.integers(1, 5))
    size = tuple(int(k) for k in rng.choice([1, 3, 5], ndim))
    dilation = tuple(int(d) for d in rng.integers(1, 3, ndim))
    mask = str(rng.choice(["corner", "raster"]))
    conv = ic.EmergingConv.init(channels, size, ndim, dilation, mask=mask, rng=rng)
    return _scaled(conv, rng, 1.0), _grid(rng, ndim, channels)


def _periodic(rng: np.random.Generator) -> Drawn:
    ndim, channels = int(rng.integers(1, 4)), int(rng.integers(1, 5))
    size = tuple(int(k) for k in rng.integers(1, 5, ndim))
    dilation = tuple(int(d) for d in rng.integers(1, 3, ndim))
    grid = _grid(rng, ndim, channels, _DENSE)
    conv = _scaled(ic.PeriodicConv.init(channels, size, ndim, dilation=dilation, rng=rng), rng, 1.0)
    spread = all(d * (k - 1) < n for k, d, n in zip(size, dilation, grid, strict=True))
    if rng.random() < 0.5 and spread:  # what it makes of a constant image almost vanishes
        kernel = conv.kernel - conv.kernel.mean(axis=tuple(range(2, 2 + ndim)), keepdims=True)
        kernel.reshape(channels, channels, -1)[:, :, 0] += 10.0 ** rng.uniform(-20, 0)
        conv = conv.replace(kernel=kernel)
    return conv, grid


def _symmetric(rng: np.random.Generator) -> Drawn:
    ndim, channels = int(rng.integers(1, 4)), int(rng.integers(1, 5))
    size = tuple(int(k) for k in 2 * rng.integers(1, 4, ndim) - 1)
    conv = _scaled(ic.SymmetricConv.init(channels, size, ndim, rng=rng), rng, 1.0)
    return conv, _grid(rng, ndim, channels, _DENSE)


def _rotation(rng: np.random.Generator, channels: int) -> np.ndarray[Any, Any]:
    return np.asarray(ic.Conv1x1.init(channels, rng=rng).weight)


def _plain(rng: np.random.Generator) -> Drawn:
    channels = int(rng.integers(1, 13))
    values = 10.0 ** rng.uniform(-rng.uniform(0, 18), 0, channels)
    weight = _rotation(rng, channels) @ np.diag(values) @ _rotation(rng, channels)
    return ic.Conv1x1(weight), _grid(rng, 2, channels)


def _plu(rng: np.random.Generator) -> Drawn:
    channels = int(rng.integers(1, 13))
    conv = _scaled(ic.PLUConv1x1.init(channels, rng=rng), rng, 2.0)
    spread = rng.uniform(0, 50) * rng.standard_normal(channels)
    return conv.replace(log_scale=conv.log_scale + spread), _grid(rng, 2, channels)


def _qr(rng: np.random.Generator) -> Drawn:
    channels = int(rng.integers(1, 13))
    conv = _scaled(ic.QRConv1x1.init(channels, rng=rng), rng, 2.0)
    spread = np.exp(rng.uniform(0, 50) * rng.standard_normal(channels))
    return conv.replace(scale=conv.scale * spread), _grid(rng, 2, channels)


def _orthogonal(rng: np.random.Generator) -> Drawn:
    channels = int(rng.integers(1, 13))
    return ic.OrthogonalConv1x1.init(channels, rng=rng), _grid(rng, 2, channels)


def _circulant(rng: np.random.Generator) -> Drawn:
    channels = int(rng.integers(1, 13))
    conv = _scaled(ic.CirculantConv1x1.init(channels, rng=rng), rng, 2.0)
    left, right = np.exp(rng.uniform(0, 20) * rng.standard_normal((2, channels)))
    scaled: ic.CirculantConv1x1 = conv.replace(left=conv.left * left, right=conv.right * right)
    return scaled, _grid(rng, 2, channels)


def _actnorm(rng: np.random.Generator) -> Drawn:
    channels = int(rng.integers(1, 13))
    log_scale = rng.uniform(0, 200) * rng.standard_normal(channels)
    return ic.ActNorm(log_scale, None), _grid(rng, 2, channels)


def _chain(rng: np.random.Generator) -> Drawn:
    """Return one to three steps; a 1x1 first, as in the paper, half the time."""
    family: Callable[[np.random.Generator], Drawn] = [
        lambda r: _autoregressive(r, "corner"),
        lambda r: _autoregressive(r, "raster"),
        _emerging,
        _periodic,
    ][int(rng.integers(4))]
    conv, grid = family(rng)
    channels = conv.channels
    steps: list[ic.InvertibleConv] = [conv]
    if rng.random() < 0.5:
        steps.insert(0, _scaled(ic.QRConv1x1.init(channels, rng=rng), rng, 0.3))
    if rng.random() < 0.5:
        ndim = len(grid)
        steps.append(_scaled(ic.AutoregressiveConv.init(channels, 2, ndim, rng=rng), rng, 0.5))
    if rng.random() < 0.2:
        steps[-1] = ic.Inverse(steps[-1])
    return ic.Chain(steps), grid


def _inverse(rng: np.random.Generator) -> Drawn:
    conv, grid = FAMILIES[str(rng.choice(list(FAMILIES)[:-1]))](rng)
    return ic.Inverse(conv), grid


FAMILIES: dict[str, Callable[[np.random.Generator], Drawn]] = {
    "corner": lambda rng: _autoregressive(rng, "corner"),
    "raster": lambda rng: _autoregressive(rng, "raster"),
    "EmergingConv": _emerging,
    "PeriodicConv": _periodic,
    "SymmetricConv": _symmetric,
    "Conv1x1": _plain,
    "PLUConv1x1": _plu,
    "QRConv1x1": _qr,
    "OrthogonalConv1x1": _orthogonal,
    "CirculantConv1x1": _circulant,
    "ActNorm": _actnorm,
    "Chain": _chain,
    "Inverse": _inverse,
}
