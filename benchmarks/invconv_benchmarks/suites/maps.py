"""The maps that are measured, as the paper initialises them."""

from typing import Any

import numpy as np

import invconv as ic
from invconv.operators.base.fields import mixings

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
