"""Peers: what a user could run instead of invconv. A peer that cannot run says why."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
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
    return [
        contender
        for name in setup.group.peers * (setup.target.mode != "graph")  # peers are not captured
        for contender in PEERS[name](setup)
        if contender.target == setup.target
    ]


def _pixel_by_pixel(setup: Setup) -> list[Contender]:
    """Naive autoregressive inversion: a pass of the whole convolution for each pixel."""
    if setup.target.library.name not in ("numpy", "torch"):
        return []

    def build() -> Call:
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

    return [setup.contender("pixel by pixel", "peer", "inverse", build, images=to_numpy)]


def _matrix(setup: Setup) -> scipy.sparse.csr_array:
    """Return K on one image as a lower triangular matrix, pixels first and channels last."""
    kernel = setup.host.parameters()["kernel"]
    height, width = setup.grid
    total: Any = 0
    for a in range(kernel.shape[2]):
        for b in range(kernel.shape[3]):
            tap = np.tril(kernel[:, :, a, b]) if a == b == 0 else kernel[:, :, a, b]
            shift = scipy.sparse.kron(
                scipy.sparse.eye_array(height, k=-a), scipy.sparse.eye_array(width, k=-b)
            )
            total = total + scipy.sparse.kron(shift, scipy.sparse.csr_array(tap))
    return scipy.sparse.csr_array(total.astype(setup.group.dtype))


def _right_hand_sides(setup: Setup) -> Array:
    batch, channels = setup.group.shape[:2]
    return np.ascontiguousarray(
        setup.values.reshape(batch, channels, -1).transpose(2, 1, 0).reshape(-1, batch)
    )


def _sparse(setup: Setup) -> list[Contender]:
    def build() -> Call:
        matrix, rows = _matrix(setup), _right_hand_sides(setup)
        return lambda: spsolve_triangular(matrix, rows, lower=True)

    return _numpy_only(setup, "SciPy sparse solve", "inverse", build)


def _reflections(setup: Setup) -> list[Contender]:
    """Form W = H_1 ... H_m R by one rank-1 update a reflection."""

    def build() -> Call:
        conv: Any = setup.conv
        units = conv.reflectors / np.linalg.norm(conv.reflectors, axis=1, keepdims=True)
        upper = np.triu(conv.upper, 1) + np.diag(conv.scale)

        def run() -> Array:
            matrix = upper.copy()
            for v in units[::-1]:
                matrix -= np.outer(2 * v, v @ matrix)
            return matrix

        return run

    return _numpy_only(setup, "reflections", "matrix", build)


def _numpy_only(setup: Setup, name: str, does: str, build: Callable[[], Call]) -> list[Contender]:
    if setup.target.library.name != "numpy":
        return []

    def images(rows: Array) -> Array:
        batch, channels, *grid = setup.group.shape
        return rows.reshape(-1, channels, batch).transpose(2, 1, 0).reshape(batch, channels, *grid)

    restore = images if does == "inverse" else None
    return [setup.contender(name, "peer", does, build, images=restore)]


def _normflows(setup: Setup) -> list[Contender]:
    def layer() -> Any:
        from normflows.flows.mixing import Invertible1x1Conv

        return Invertible1x1Conv(setup.group.shape[1], use_lu=setup.group.map == "plu")

    # a normflows flow maps noise to data in `forward`: its `inverse` is our forward
    return _torch_layers(setup, "normflows", layer, {"forward": "inverse", "unprepared": "forward"})


def _nflows(setup: Setup) -> list[Contender]:
    def layer() -> Any:
        from nflows.transforms.conv import OneByOneConvolution

        return OneByOneConvolution(setup.group.shape[1])

    return _torch_layers(setup, "nflows", layer, {"forward": "forward", "unprepared": "inverse"})


def _torch_layers(
    setup: Setup, package: str, layer: Callable[[], Any], methods: dict[str, str]
) -> list[Contender]:
    if setup.target.library.name != "torch":
        return []
    absent = _absent(package)

    def build(method: str) -> Call:
        import torch

        torch.manual_seed(0)
        module, x = layer().to(setup.x), setup.x
        run = getattr(module, method)

        def call() -> Any:
            with torch.no_grad():
                return run(x)[0]

        return call

    return [
        setup.contender(
            f"{package} 1x1 {'inverse' if does == 'unprepared' else does}",
            "peer",
            does,
            lambda method=method: build(method),  # type: ignore[misc]
            absent,
        )
        for does, method in methods.items()
    ]


def _absent(package: str) -> str:
    return "" if importlib.util.find_spec(package) else f"{package}: not installed"


PEERS: dict[str, Callable[[Setup], list[Contender]]] = {
    "pixel by pixel": _pixel_by_pixel,
    "SciPy sparse solve": _sparse,
    "reflections": _reflections,
    "normflows 1x1": _normflows,
    "nflows 1x1": _nflows,
}
