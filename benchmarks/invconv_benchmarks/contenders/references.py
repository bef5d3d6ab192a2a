"""Peers: what a user could run instead of invconv."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import scipy.sparse
from scipy.sparse.linalg import spsolve_triangular

from invconv.arrays.namespaces import to_numpy
from invconv_benchmarks.contenders.setup import Setup
from invconv_benchmarks.measure.contender import Call, Contender

Array = Any


def contenders(setup: Setup) -> list[Contender]:
    """Return the peers of a group that belong to the setup's library."""
    found = []
    for name in setup.group.peers:
        does, libraries, build = PEERS[name]
        if setup.target.library.name in libraries and setup.target.mode != "graph":
            images = to_numpy if does == "inverse" else None
            found.append(setup.contender(name, "peer", does, partial(build, setup), images))
    return found


def _pixel_by_pixel(setup: Setup) -> Call:
    """Naive autoregressive inversion: a pass of the whole convolution for each pixel."""
    conv, y, (height, width) = setup.conv, setup.x, setup.grid
    xp = setup.target.library.namespace()
    at = conv.parameters()["kernel"][:, :, 0, 0]
    solve = xp.linalg.inv(xp.tril(at)).T

    def run() -> Array:
        x = xp.zeros_like(y)
        for i in range(height):
            for j in range(width):
                residual = y[:, :, i, j] - conv.forward(x)[:, :, i, j]
                x[:, :, i, j] = residual @ solve
        return x

    return run


def _sparse(setup: Setup) -> Call:
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


def _reflections(setup: Setup) -> Call:
    """Form W = H_1 ... H_m R by one rank-1 update a reflection."""
    conv: Any = setup.conv
    units = conv.reflectors / np.linalg.norm(conv.reflectors, axis=1, keepdims=True)
    upper = np.triu(conv.upper, 1) + np.diag(conv.scale)

    def run() -> Array:
        matrix = upper.copy()
        for v in units[::-1]:
            matrix -= np.outer(2 * v, v @ matrix)
        return matrix

    return run


# what each does, in which libraries
PEERS: dict[str, tuple[str, tuple[str, ...], Callable[[Setup], Call]]] = {
    "pixel by pixel": ("inverse", ("numpy", "torch"), _pixel_by_pixel),
    "SciPy sparse solve": ("inverse", ("numpy",), _sparse),
    "reflections": ("matrix", ("numpy",), _reflections),
}
