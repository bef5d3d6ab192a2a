"""The maps that are measured, as the paper initialises them, and the operators that are checked."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

import invconv as ic
from invconv.operators.base.fields import mixings

Shape = tuple[int, ...]
Make = Callable[[np.random.Generator, int, int, int], ic.InvertibleConv]

_CLASSES: dict[str, Any] = {**mixings(), "actnorm": ic.ActNorm}

# the mixing layers of the flows that are compared, in the order of the tables
_MATRICES = ("plain", "plu", "qr", "orthogonal", "circulant", "householder")
_EMERGING = ("emerging", "emerging_plu", "emerging_qr")
MIXINGS = (*_MATRICES, *_EMERGING, "periodic", "symmetric", "exponential")


def build(name: str, channels: int, ndim: int = 2) -> ic.InvertibleConv:
    """Return a map of NumPy float64 arrays; ``ndim`` are the axes of a corner's grid, else two.

    Names are "corner k", "circular k" (an exponential of a circular convolution), and those of
    `_CLASSES`, followed by k taps per axis where it has any.
    """
    rng = np.random.default_rng(0)
    kind, _, size = name.partition(" ")
    if kind == "corner":
        return _tame(ic.AutoregressiveConv.init(channels, int(size), ndim, rng=rng))
    if kind == "circular":
        return ic.ExponentialConv.init(channels, int(size), padding="circular", rng=rng)
    conv: ic.InvertibleConv = _CLASSES[kind].init(channels, *map(int, size.split()), rng=rng)
    return conv


def _tame(conv: ic.AutoregressiveConv) -> ic.AutoregressiveConv:
    """Shrink the noise of more taps than the limits' shapes have: inverses stay in range."""
    kernel = conv.kernel
    terms = kernel.shape[1] * (kernel[0, 0].size - 1)
    factor = min(1.0, (48 * 3 / terms) ** 0.5)
    return conv.replace(kernel=np.rint(kernel) + factor * (kernel - np.rint(kernel)))


def _blur(rng: np.random.Generator, channels: int, taps: int, ndim: int) -> ic.InvertibleConv:
    """Return a Gaussian of 1.5 pixels, which leaves no digit of float32."""
    along = np.exp(-(np.arange((taps + 1) // 2) ** 2) / 4.5)
    kernel = np.ones(())
    for _ in range(ndim):
        kernel = np.multiply.outer(kernel, along / (2 * along.sum() - along[0]))
    return ic.SymmetricConv(kernel * np.eye(channels)[(..., *(None,) * ndim)])


def _moved(conv: ic.InvertibleConv, rng: np.random.Generator) -> ic.InvertibleConv:
    """Return an operator whose kernels are moved so far that no bound at O(1) cost holds."""
    arrays = conv.parameters()
    scale = {n: 0.5 / math.sqrt(a[0].size) for n, a in arrays.items() if "kernel" in n}
    return conv.replace(
        **{n: a + scale[n] * rng.standard_normal(a.shape) for n, a in arrays.items() if n in scale}
    )


def _corner(rng: np.random.Generator, channels: int, taps: int, ndim: int) -> ic.InvertibleConv:
    return _moved(ic.AutoregressiveConv.init(channels, (taps + 1) // 2, ndim, rng=rng), rng)


def _raster(rng: np.random.Generator, channels: int, taps: int, ndim: int) -> ic.InvertibleConv:
    sizes = ((taps + 1) // 2, *(taps,) * (ndim - 1))
    return _moved(ic.AutoregressiveConv.init(channels, sizes, ndim, mask="raster", rng=rng), rng)


def _chain(rng: np.random.Generator, channels: int, taps: int, ndim: int) -> ic.InvertibleConv:
    periodic = ic.PeriodicConv.init(channels, taps, ndim, rng=rng)
    return ic.Chain([ic.Conv1x1.init(channels, rng=rng), periodic, _corner(rng, channels, 3, ndim)])


CHECKED: dict[str, Make] = {  # of every class, with kernels that no cheap bound clears
    "PeriodicConv": lambda rng, c, k, n: ic.PeriodicConv.init(c, k, n, rng=rng),
    "SymmetricConv": lambda rng, c, k, n: ic.SymmetricConv.init(c, k, n, rng=rng),
    "SymmetricConv, a blur": _blur,
    "AutoregressiveConv": _corner,
    "AutoregressiveConv, raster": _raster,
    "EmergingConv": lambda rng, c, k, n: _moved(ic.EmergingConv.init(c, k, n, rng=rng), rng),
    "ExponentialConv": lambda rng, c, k, n: _moved(ic.ExponentialConv.init(c, k, n, rng=rng), rng),
    "ExponentialConv, circular": lambda rng, c, k, n: _moved(
        ic.ExponentialConv.init(c, k, n, padding="circular", rng=rng), rng
    ),
    "Chain": _chain,
    "Inverse": lambda rng, c, k, n: ic.Inverse(ic.PeriodicConv.init(c, k, n, rng=rng)),
    "Conv1x1": lambda rng, c, _, n: ic.Conv1x1.init(c, ndim=n, rng=rng),
    "PLUConv1x1": lambda rng, c, _, n: ic.PLUConv1x1.init(c, ndim=n, rng=rng),
    "QRConv1x1": lambda rng, c, _, n: ic.QRConv1x1.init(c, ndim=n, rng=rng),
    "OrthogonalConv1x1": lambda rng, c, _, n: ic.OrthogonalConv1x1.init(c, ndim=n, rng=rng),
    "CirculantConv1x1": lambda rng, c, _, n: ic.CirculantConv1x1.init(c, ndim=n, rng=rng),
    "ActNorm": lambda _, c, __, n: ic.ActNorm.init(c, ndim=n),
}


def checked(name: str, shape: Shape, dtype: str) -> ic.InvertibleConv:
    """Return an operator of the suite checks, of NumPy arrays."""
    kind, _, words = name.rpartition(", ")
    taps, named = (int(words.split()[0]), kind) if words.endswith("taps") else (1, name)
    rng, (_, channels, *grid) = np.random.default_rng(0), shape
    return CHECKED[named](rng, channels, taps, len(grid)).asarrays(np.empty(0, dtype))
