"""Plain convolutions of each library: the layer that ours is compared with.

Its kernel has as many taps as ours: for an emerging pair, whose factors have (k + 1)/2 taps an
axis, k, which is the same receptive field. Where a library has several ways, all are timed, and
ratios are taken to the fastest. PyTorch's, on images that are padded already, is the one yardstick
of all libraries besides.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from invconv.arrays.namespaces import constant, namespace, to_numpy
from invconv_benchmarks.contenders.setup import Setup
from invconv_benchmarks.measure.contender import Call, Contender

Array = Any
Floats = np.ndarray[Any, Any]
FFT = "FFT, one GEMM a frequency"
CONV2D = "F.conv2d"  # the yardstick of all libraries


def contenders(setup: Setup) -> list[Contender]:
    """Return the plain convolutions of the setup's library."""
    name, gradient = setup.target.library.name, "gradient" in setup.group.does
    if setup.group.does == ("matrix",) or setup.group.map == "actnorm":
        return []
    if gradient and setup.target.mode == "graph":
        return []  # a graph captures calls of images only
    ways: dict[str, Callable[[Setup], Call]] = {}
    if name == "torch":
        ways[CONV2D] = _torch_gradient if gradient else _torch
    elif name == "jax":
        ways["lax.conv"] = _jax_gradient if gradient else _jax
    if not gradient and name != "torch":  # nor have the others automatic differentiation
        ways["im2col, one GEMM"] = _im2col
        if name != "jax" and not wraps(setup):
            ways["GEMM, then shifts"] = _shifts
    if wraps(setup) and not gradient:
        ways[FFT] = _fft
    does = "gradient" if gradient else "forward"
    return [
        setup.contender(way, "plain", does, lambda build=build: build(setup))  # type: ignore[misc]
        for way, build in ways.items()
    ]


def size(setup: Setup) -> int:
    """Return the taps an axis."""
    _, _, k = setup.group.map.partition(" ")
    return int(k or 1)


def kernel(setup: Setup) -> Array:
    """Return a random kernel (C, C, k, k) in the library."""
    channels, k = setup.group.shape[1], size(setup)
    return setup.asarray(np.random.default_rng(2).standard_normal((channels, channels, k, k)))


def wraps(setup: Setup) -> bool:
    """Tell whether the padding is circular."""
    return setup.group.map.startswith("periodic")


def padded(setup: Setup) -> Array:
    """Return PyTorch's images with what the convolution needs around them, which no clock sees."""
    import torch.nn.functional as F

    k = size(setup)
    edges = ((k - 1) // 2, k // 2) * 2
    return F.pad(setup.x, edges, mode="circular" if wraps(setup) else "constant")


def _torch(setup: Setup) -> Call:
    import torch.nn.functional as F

    w, x = kernel(setup), padded(setup)
    compiled = setup.target.compile(lambda x: F.conv2d(x, w))
    return lambda: compiled(x)


def _torch_gradient(setup: Setup) -> Call:
    import torch
    import torch.nn.functional as F

    w, x = kernel(setup).requires_grad_(), padded(setup).requires_grad_()
    y_bar = setup.asarray(np.roll(setup.values, 1))
    return lambda: torch.autograd.grad(F.conv2d(x, w), (x, w), y_bar)


def _jax_function(setup: Setup) -> Callable[[Array, Array], Array]:
    import jax
    import jax.numpy as jnp

    k = size(setup)
    edges = ((k - 1) // 2, k // 2)

    def run(x: Array, w: Array) -> Array:
        padding = [edges, edges]
        if wraps(setup):
            x, padding = jnp.pad(x, ((0, 0), (0, 0), edges, edges), mode="wrap"), [(0, 0), (0, 0)]
        return jax.lax.conv_general_dilated(x, w, (1, 1), padding, precision="highest")

    return run


def _jax(setup: Setup) -> Call:
    run, w = _jax_function(setup), kernel(setup)
    return setup.on_images(lambda x: run(x, w))


def _jax_gradient(setup: Setup) -> Call:
    import jax

    run, w, x = _jax_function(setup), kernel(setup), setup.x
    y_bar = setup.asarray(np.roll(setup.values, 1))
    step = jax.jit(jax.grad(lambda w, x: (run(x, w) * y_bar).sum(), argnums=(0, 1)))
    return lambda: step(w, x)


def _im2col(setup: Setup) -> Call:
    xp, w = setup.target.library.namespace(), kernel(setup)
    return setup.on_images(lambda x: im2col(xp, x, w, wraps(setup)))


def _shifts(setup: Setup) -> Call:
    xp, w = setup.target.library.namespace(), kernel(setup)
    return setup.on_images(lambda x: shifts(xp, x, w))


def _fft(setup: Setup) -> Call:
    w = to_numpy(kernel(setup))
    matrices = spectrum(w, setup.grid).astype(np.result_type(w.dtype, np.complex64))
    known = constant(matrices, setup.x)
    return setup.on_images(lambda x: fft(namespace(x), x, known))


def spectrum(w: Floats, grid: tuple[int, ...]) -> Floats:
    """Return the sum over t of w[..., t] exp(2 pi i f . (t - (k - 1) // 2) / n), (F, C, C)."""
    channels, k = w.shape[0], w.shape[2]
    spread = np.zeros((channels, channels, *grid), w.dtype)
    for a, b in np.ndindex(k, k):
        spread[:, :, (k - 1) // 2 - a, (k - 1) // 2 - b] = w[:, :, a, b]
    return np.moveaxis(np.fft.rfft2(spread).reshape(channels, channels, -1), 2, 0)


def fft(xp: Any, x: Array, known: Array) -> Array:
    """Return the circular convolution by real FFTs and a product with each frequency's matrix."""
    batch, channels, height, width = x.shape
    x_hat = xp.fft.rfftn(x, axes=(2, 3))
    frequencies = x_hat.shape[2] * x_hat.shape[3]
    rows = xp.permute_dims(xp.reshape(x_hat, (batch, channels, frequencies)), (2, 1, 0))
    y_hat = xp.permute_dims(known @ rows, (2, 1, 0))
    return xp.fft.irfftn(xp.reshape(y_hat, x_hat.shape), s=(height, width), axes=(2, 3))


def im2col(xp: Any, x: Array, w: Array, wrap: bool) -> Array:
    """Return the convolution as one matrix product with all windows."""
    batch, channels, height, width = x.shape
    k = w.shape[2]
    if k == 1:
        windows = x
    else:
        edges = ((0, 0), (0, 0), *(((k - 1) // 2, k // 2),) * 2)
        padded = xp.pad(x, edges, **({"mode": "wrap"} if wrap else {}))
        windows = xp.stack(
            [padded[:, :, a : a + height, b : b + width] for a in range(k) for b in range(k)], 1
        )
    matrix = xp.moveaxis(xp.reshape(w, (channels, channels, k * k)), 2, 1)
    rows = xp.reshape(windows, (batch, k * k * channels, height * width))
    return xp.reshape(xp.reshape(matrix, (channels, k * k * channels)) @ rows, x.shape)


def shifts(xp: Any, x: Array, w: Array) -> Array:
    """Return the convolution as one matrix product with all taps, added up in their places."""
    batch, channels, height, width = x.shape
    k = w.shape[2]
    matrix = xp.reshape(xp.permute_dims(w, (2, 3, 0, 1)), (k * k * channels, channels))
    products = xp.reshape(
        matrix @ xp.reshape(x, (batch, channels, height * width)),
        (batch, k, k, channels, height, width),
    )
    if k == 1:
        return products[:, 0, 0]
    after = k // 2
    edges = ((0, 0), (0, 0), *((after, (k - 1) // 2),) * 2)
    y = xp.zeros_like(xp.pad(x, edges))
    for a in range(k):
        for b in range(k):
            i, j = k - 1 - a, k - 1 - b
            y[:, :, i : i + height, j : j + width] += products[:, a, b]
    return y[:, :, after : after + height, after : after + width]
