"""Plain convolutions of each library: the layer that ours is compared with.

Its kernel has as many taps as ours, and for an emerging pair the same receptive field. Where a
library has several ways, ratios are taken to the fastest. PyTorch's, on images that are padded
already, is the one yardstick of all libraries besides.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from invconv.arrays.namespaces import constant, namespace, to_numpy
from invconv_benchmarks.contenders.setup import Setup
from invconv_benchmarks.measure.contender import Call, Contender, Floats
from invconv_benchmarks.suites.group import CONV1D, CONV2D

Array = Any
FFT = "FFT, one GEMM a frequency"


def contenders(setup: Setup) -> list[Contender]:
    """Return the plain convolutions of the setup's library."""
    name, ways = setup.target.library.name, dict[str, Callable[[Setup], Call]]()
    if setup.group.map == "actnorm":
        return []
    # in "odd" a peer is the yardstick where there is one, whichever libraries run
    odd, wraps = setup.group.suite == "odd", _wraps(setup)
    if name == "torch" and not (odd and (wraps or setup.group.peers)):
        ways[CONV2D if len(setup.grid) == 2 else CONV1D] = _torch
    elif name == "jax" and not odd:
        ways["lax.conv"] = _jax
    if name != "torch" and not odd:  # NumPy and CuPy have no convolution
        ways["im2col, one GEMM"] = _im2col
    if wraps and not odd:
        ways[FFT] = _fft
    return [setup.contender(w, "plain", "forward", partial(b, setup)) for w, b in ways.items()]


def _kernel(setup: Setup) -> Array:
    channels, k = setup.group.shape[1], int(setup.group.map.partition(" ")[2] or 1)
    size = channels, channels, *[k] * len(setup.grid)
    return setup.asarray(np.random.default_rng(2).standard_normal(size))


def _wraps(setup: Setup) -> bool:
    return setup.group.map.startswith("periodic")


def _edges(w: Array) -> tuple[int, int]:
    """Return how many pixels a convolution needs before and after each axis."""
    return (w.shape[2] - 1) // 2, w.shape[2] // 2


def _torch(setup: Setup) -> Call:
    """Return PyTorch's convolution; no clock sees that the images are padded."""
    import torch.nn.functional as F

    w = _kernel(setup)
    ndim, convolution = len(setup.grid), F.conv1d if len(setup.grid) == 1 else F.conv2d
    x = F.pad(setup.x, _edges(w) * ndim, mode="circular" if _wraps(setup) else "constant")
    compiled = setup.target.compile(lambda x: convolution(x, w))
    return lambda: compiled(x)


def _jax(setup: Setup) -> Call:
    import jax
    import jax.numpy as jnp

    w = _kernel(setup)

    def run(x: Array) -> Array:
        padding = [_edges(w)] * 2
        if _wraps(setup):
            x, padding = jnp.pad(x, [(0, 0), (0, 0), *padding], mode="wrap"), [(0, 0)] * 2
        return jax.lax.conv_general_dilated(x, w, (1, 1), padding, precision="highest")

    return setup.on_images(run)


def _im2col(setup: Setup) -> Call:
    xp, w, mode = setup.target.library.namespace(), _kernel(setup), {"mode": "wrap"}
    _, channels, height, width = setup.group.shape
    k = w.shape[2]
    matrix = xp.reshape(xp.moveaxis(xp.reshape(w, (channels, channels, k * k)), 2, 1),
                        (channels, k * k * channels))  # fmt: skip

    def run(x: Array) -> Array:
        windows = x
        if k > 1:
            edges = ((0, 0), (0, 0), *(_edges(w),) * 2)
            padded = xp.pad(x, edges, **(mode if _wraps(setup) else {}))
            places = np.ndindex(k, k)
            windows = xp.stack([padded[:, :, a : a + height, b : b + width] for a, b in places], 1)
        rows = xp.reshape(windows, (x.shape[0], k * k * channels, height * width))
        return xp.reshape(matrix @ rows, x.shape)

    return setup.on_images(run)


def _fft(setup: Setup) -> Call:
    w = to_numpy(_kernel(setup))
    matrices = spectrum(w, setup.grid).astype(np.result_type(w.dtype, np.complex64))
    known, xp = constant(matrices, setup.x), namespace(setup.x)

    def run(x: Array) -> Array:
        x_hat = xp.fft.rfftn(x, axes=(2, 3))
        rows = xp.permute_dims(xp.reshape(x_hat, (*x.shape[:2], -1)), (2, 1, 0))
        y_hat = xp.reshape(xp.permute_dims(known @ rows, (2, 1, 0)), x_hat.shape)
        return xp.fft.irfftn(y_hat, s=x.shape[2:], axes=(2, 3))

    return setup.on_images(run)


def spectrum(w: Floats, grid: tuple[int, ...]) -> Floats:
    """Return the sum over t of w[..., t] exp(2 pi i f . (t - (k - 1) // 2) / n), (F, C, C)."""
    channels, k = w.shape[0], w.shape[2]
    spread = np.zeros((channels, channels, *grid), w.dtype)
    for a, b in np.ndindex(k, k):
        spread[:, :, (k - 1) // 2 - a, (k - 1) // 2 - b] = w[:, :, a, b]
    return np.moveaxis(np.fft.rfft2(spread).reshape(channels, channels, -1), 2, 0)
