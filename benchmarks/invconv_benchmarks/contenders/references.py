"""Peers: what a user could run instead of invconv to invert an autoregressive convolution."""

import itertools
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import scipy.sparse
from scipy.sparse.linalg import spsolve_triangular

from invconv.arrays.namespaces import to_numpy
from invconv_benchmarks.contenders.plain import spectrum
from invconv_benchmarks.contenders.setup import Setup
from invconv_benchmarks.measure.contender import Call, Contender
from invconv_benchmarks.suites.group import LFILTER, SPECTRAL

Array = Any


def contenders(setup: Setup) -> list[Contender]:
    """Return the peers of a group that belong to the setup's library."""
    return [
        setup.contender(name, "peer", "inverse", partial(PEERS[name][1], setup), to_numpy)
        for name in setup.group.peers
        if setup.target.library.name in PEERS[name][0] and setup.target.mode != "graph"
    ]


def pixel_by_pixel(setup: Setup, pixels: int | None = None) -> Call:
    """Naive autoregressive inversion: a pass of the whole convolution for each pixel, or some."""
    conv, y = setup.conv, setup.x
    xp = setup.target.library.namespace()
    at = conv.parameters()["kernel"][:, :, 0, 0]
    solve = xp.linalg.inv(xp.tril(at)).T

    def run() -> Array:
        x = xp.zeros_like(y)
        for i, j in itertools.islice(np.ndindex(setup.grid), pixels):
            residual = y[:, :, i, j] - conv.forward(x)[:, :, i, j]
            x[:, :, i, j] = residual @ solve
        return x

    return run


def sparse(setup: Setup) -> Call:
    """Solve with K on one image, a lower triangular matrix: pixels first and channels last."""
    kernel, (height, width) = setup.host.parameters()["kernel"], setup.grid
    batch, channels, *grid = setup.group.shape
    total: Any = 0
    for a, b in np.ndindex(kernel.shape[2:]):
        tap = np.tril(kernel[:, :, a, b]) if a == b == 0 else kernel[:, :, a, b]
        rows, columns = scipy.sparse.eye_array(height, k=-a), scipy.sparse.eye_array(width, k=-b)
        total = total + scipy.sparse.kron(scipy.sparse.kron(rows, columns), tap)
    matrix = scipy.sparse.csr_array(total.astype(setup.group.dtype))
    sides = setup.values.reshape(batch, channels, -1).transpose(2, 1, 0).reshape(-1, batch)

    def run() -> Array:
        x = spsolve_triangular(matrix, sides, lower=True)
        return x.reshape(-1, channels, batch).transpose(2, 1, 0).reshape(batch, channels, *grid)

    return run


def _lfilter(setup: Setup) -> Call:
    import scipy.signal

    (taps,) = setup.host.parameters()["kernel"][0].astype(setup.group.dtype)
    one, y = np.ones(1, taps.dtype), setup.values
    return lambda: scipy.signal.lfilter(one, taps, y)


def _spectral(setup: Setup) -> Call:
    import scipy.fft

    w, grid, y = setup.host.parameters()["kernel"], setup.grid, setup.values
    inverses = np.moveaxis(np.linalg.inv(spectrum(w, grid)), 0, 2)
    inverses = np.ascontiguousarray(inverses, np.result_type(setup.group.dtype, np.complex64))

    def run() -> Array:
        y_hat = scipy.fft.rfft2(y)
        x_hat = np.einsum("ocf,bcf->bof", inverses, y_hat.reshape(*y.shape[:2], -1))
        return scipy.fft.irfft2(x_hat.reshape(y_hat.shape), s=grid)

    return run


PEERS: dict[str, tuple[tuple[str, ...], Callable[[Setup], Call]]] = {  # in which libraries
    "pixel by pixel": (("numpy", "torch"), pixel_by_pixel),
    "SciPy sparse solve": (("numpy",), sparse),
    LFILTER: (("numpy",), _lfilter),
    SPECTRAL: (("numpy",), _spectral),
}
