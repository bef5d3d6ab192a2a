"""The maps that are measured, as in the paper's initialisation, and the arithmetic they need."""

from __future__ import annotations

from typing import Any

import numpy as np

import invconv as ic
from invconv.kernels.series import counts_of
from invconv_benchmarks.suites.group import Group

Floats = np.ndarray[Any, Any]


def build(name: str, channels: int) -> ic.InvertibleConv:
    """Return a map of NumPy float64 arrays.

    Parameters
    ----------
    name : str
        "corner k", "emerging k", "periodic k", "symmetric k", "exponential k" (zeros outside),
        "circular k" (an exponential too) with k taps an axis; "plain", "plu", "qr", "orthogonal",
        "circulant", "actnorm".
    """
    rng = np.random.default_rng(0)
    kind, _, size = name.partition(" ")
    match kind:
        case "corner":
            return _tame(ic.AutoregressiveConv.init(channels, int(size), rng=rng))
        case "emerging":
            return ic.EmergingConv.init(channels, int(size), rng=rng)
        case "periodic":
            return ic.PeriodicConv.init(channels, int(size), rng=rng)
        case "exponential":
            return ic.ExponentialConv.init(channels, int(size), rng=rng)
        case "circular":
            return ic.ExponentialConv.init(channels, int(size), padding="circular", rng=rng)
        case "symmetric":
            return ic.SymmetricConv.init(channels, int(size), rng=rng)
        case "plain":
            return ic.Conv1x1.init(channels, rng=rng)
        case "plu":
            return ic.PLUConv1x1.init(channels, rng=rng)
        case "qr":
            return ic.QRConv1x1.init(channels, rng=rng)
        case "orthogonal":
            return ic.OrthogonalConv1x1.init(channels, rng=rng)
        case "circulant":
            return ic.CirculantConv1x1.init(channels, rng=rng)
        case "actnorm":
            return ic.ActNorm.init(channels)
    raise ValueError(f"expected the name of a map, got {name!r}")


def _tame(conv: ic.AutoregressiveConv) -> ic.AutoregressiveConv:
    """Shrink the noise where there are many taps, so that no inverse grows beyond a float's range.

    The arithmetic is the same; at the sizes of the limits nothing is shrunk.
    """
    kernel = conv.kernel
    terms = kernel.shape[1] * (kernel[0, 0].size - 1)
    factor = min(1.0, (48 * 3 / terms) ** 0.5)
    return conv.replace(kernel=np.rint(kernel) + factor * (kernel - np.rint(kernel)))


def taps(name: str) -> int:
    """Return how many C x C matrices a pixel meets when the map runs as a plain convolution."""
    kind, _, size = name.partition(" ")
    if kind == "emerging":
        return 2 * ((int(size) + 1) // 2) ** 2
    return int(size) ** 2 if size else 1


def flops(group: Group) -> float:
    """Return multiplications and additions that the map needs, done directly, once."""
    batch, channels = group.shape[:2]
    if group.does == ("matrix",):
        return 4.0 * channels**3  # Householder's algorithm: 2 C^2 a reflection, and Q R
    inner = 1 if group.map == "actnorm" else channels
    times = 3 if "gradient" in group.does else 1
    times *= _terms(group)
    return 2.0 * times * taps(group.map) * batch * group.pixels * channels * inner


def _terms(group: Group) -> int:
    """Return how often an exponential applies its convolution, 1 for the other maps."""
    if group.map.partition(" ")[0] not in ("exponential", "circular"):
        return 1
    conv = build(group.map, group.shape[1]).asarrays(np.empty(0, group.dtype or "float32"))
    assert isinstance(conv, ic.ExponentialConv)
    counts = counts_of(conv._family.linear, conv._family.taps(conv.kernel, group.shape[2:]))
    return counts.steps * counts.terms


def input_bytes(group: Group) -> int:
    """Return the size of the images."""
    return int(np.prod(group.shape)) * np.dtype(group.dtype).itemsize
