"""What is timed on CUDA devices besides: our wavefronts where the kernel would run, FInC's way.

Beside a group's kernel, of PyTorch also as a captured graph. Not yet run on a GPU.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from invconv.arrays.namespaces import to_numpy
from invconv.kernels.plain.pitched import PitchedSolver, StridedOps
from invconv.kernels.wavefront import inverse_at_the_pixel
from invconv_benchmarks.contenders.setup import Setup
from invconv_benchmarks.measure.contender import Call, Contender

Array = Any
FINC = "FInC's way"


def contenders(setup: Setup) -> list[Contender]:
    """Return wavefronts in PyTorch and CuPy, and FInC's way in PyTorch."""
    target = setup.target
    if not target.on_cuda or "kernel" not in setup.group.does:
        return []
    found = []
    if target.library.name in ("torch", "cupy"):
        found.append(
            setup.contender(
                "wavefront", "ours", "wavefront", lambda: wavefront(setup), images=to_numpy
            )
        )
    if target.library.name == "torch" and target.mode == "eager":
        found.append(setup.contender(FINC, "peer", "inverse", lambda: finc(setup), images=to_numpy))
    return found


def wavefront(setup: Setup) -> Call:
    """Return the solve that runs where no kernel does, whatever runs here."""
    conv: Any = setup.conv
    causal = conv._family.linear.stencil(conv.kernel)
    at_pixel = inverse_at_the_pixel(causal)
    return setup.on_images(PitchedSolver(causal, at_pixel, setup.grid, _ops(setup)))


def _ops(setup: Setup) -> StridedOps:
    if setup.target.library.name == "cupy":
        from invconv_cupy.primitives import CUPY

        return CUPY
    from invconv_torch.native.devices import TORCH

    return TORCH


def finc(setup: Setup) -> Call:
    """Return the solve of FInC Flow's authors, as it is described, by operations of PyTorch.

    For each antidiagonal of the image, and on it for each channel, one launch solves all pixels of
    all images; the host waits for each. Theirs is one kernel, these are two: products of a window
    with the channel's weights, and their sum. Memory is allocated before the clock starts.
    """
    import torch

    conv: Any = setup.conv
    batch, channels, height, width = setup.group.shape
    corner = conv.kernel.shape[2] - 1  # rows and columns that are read before a pixel
    pitch, plane = width + corner, (height + corner) * (width + corner)
    whole = setup.x.new_zeros(batch, channels, height + corner, pitch)
    image, wait = whole[:, :, corner:, corner:], setup.target.library.synchronise
    weights = setup.asarray(_weights(conv))

    diagonals, longest = [], min(height, width)
    for level in range(height + width - 1):
        first = max(0, level - width + 1)  # row of the diagonal's first pixel
        count = min(height - 1, level) - first + 1
        start = first * pitch + level - first  # of the window that ends there
        step, apart = pitch - 1, channels * plane
        window = (batch, count, channels, corner + 1, corner + 1)
        windows = whole.as_strided(window, (apart, step, plane, pitch, 1), start)
        ends = start + corner * (pitch + 1)
        pixels = [
            whole.as_strided((batch, count), (apart, step), ends + c * plane)
            for c in range(channels)
        ]
        diagonals.append((windows, pixels))
    room = setup.x.new_empty(batch * longest * weights[0].numel())

    def run() -> Array:
        image.copy_(setup.x)
        for windows, pixels in diagonals:
            products = room[: windows.numel()].view(windows.shape)
            for c, pixel in enumerate(pixels):
                torch.mul(windows, weights[c], out=products)
                torch.sum(products, (2, 3, 4), out=pixel)
                wait(whole)
        return image

    return run


def _weights(conv: Any) -> np.ndarray[Any, Any]:
    """Return what x[c] at a pixel is made of: its window, where x[c] and later channels hold y.

    x[c] = (y[c] - sum over earlier channels and pixels) / D[c, c], shape (C, C, k, k).
    """
    flipped = to_numpy(conv.kernel)[:, :, ::-1, ::-1]  # tap o reads p - o
    weights = np.array(-flipped, np.float64)
    at = weights[:, :, -1, -1]
    scale = -np.diagonal(at).copy()
    at[...] = np.tril(at, -1) + np.eye(len(at))
    return weights / scale[:, None, None, None]
