"""The timed calls of a map on images, in a library: ours, plain convolutions, and peers.

A plain convolution is the layer that ours is compared with: its kernel has as many taps, and for an
emerging pair the same receptive field. Peers are what a user could run instead of invconv.
"""

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property, partial
from typing import Any

import numpy as np
import scipy.fft
import scipy.signal
import scipy.sparse
from scipy.sparse.linalg import spsolve_triangular

import invconv as ic
from invconv.arrays.namespaces import constant, namespace, to_numpy
from invconv_benchmarks import suites
from invconv_benchmarks.measure.timing import Call, Contender, Floats, set_threads
from invconv_benchmarks.suites import CONV1D, CONV2D, FFT, LFILTER, SPECTRAL, Group
from invconv_conformance.libraries import Target

Array = Any


@dataclass(frozen=True)
class Setup:
    """A group on one library and device: the map and random images there."""

    group: Group
    target: Target

    @cached_property
    def conv(self) -> ic.InvertibleConv:
        """The map, in the library."""
        return self.host.asarrays(self.x)

    @cached_property
    def host(self) -> ic.InvertibleConv:
        """The map, in NumPy float64."""
        return suites.build(self.group.map, self.group.shape[1], len(self.grid))

    @cached_property
    def values(self) -> Floats:
        """Random images, in NumPy."""
        rng = np.random.default_rng(1)
        return rng.standard_normal(self.group.shape, np.float32).astype(self.group.dtype)

    @cached_property
    def x(self) -> Array:
        """The images, in the library."""
        return self.target.asarray(self.values, self.group.dtype)

    @property
    def grid(self) -> tuple[int, ...]:
        """The spatial shape."""
        return self.group.shape[2:]

    def contender(self, name: str, role: str, does: str, build: Callable[[], Call]) -> Contender:
        """Return a contender of this library."""
        return Contender(name, role, does, self.target, build)

    def residual(self, x: Floats) -> float:
        """Return ||K x - y|| / (||x|| + ||y||) in float64, y being the images; at most 1e30."""
        x, y = x.astype(np.float64), self.values.astype(np.float64)
        rest = np.linalg.norm(self.host.forward(x) - y)
        share = float(rest / (np.linalg.norm(x) + np.linalg.norm(y)))
        return share if math.isfinite(share) else 1e30  # JSON has no NaN

    def on_images(self, function: Callable[[Array], Any]) -> Call:
        """Return a call of a function with the images, compiled where the mode compiles."""
        run, x = self.target.compile(function), self.x
        return lambda: run(x)


def ours(setup: Setup) -> list[Contender]:
    """Return a contender for each call that the group times."""
    build: dict[str, Callable[[], Call]] = {
        "forward": lambda: setup.on_images(setup.conv.forward),
        "inverse": partial(_prepared, setup),
        "unprepared": partial(_unprepared, setup),
    }
    return [
        setup.contender(f"invconv {does}", "ours", does, build[does])
        for does in setup.group.does
        if does != "unprepared" or setup.target.mode == "eager"  # compiled code makes no plan
    ]


def _prepared(setup: Setup) -> Call:
    return setup.on_images(setup.conv.prepare(setup.grid, check=False).inverse)


def _unprepared(setup: Setup) -> Call:
    """Return an inverse with new weights at each call, as a training step has them."""
    conv, x, grid = setup.conv, setup.x, setup.grid
    return lambda: conv.prepare(grid, check=False).inverse(x)


def threads(setup: Setup) -> list[Contender]:
    """Return a prepared inverse twice; each sets the number of threads as its turn comes."""
    target, build, library = setup.target, partial(_prepared, setup), setup.target.library.name
    ways = {1: ("one thread", "plain"), 2: ("two threads", "ours")}
    return [
        Contender(*way, "inverse", target, build, partial(set_threads, library, n))
        for n, way in ways.items()
        if library in ("numpy", "torch") and not target.on_cuda
    ]


def checks(setup: Setup) -> list[Contender]:
    """Return a solve, one with its check, and a diagnosis, of operators that remember nothing."""
    grid, y, build = setup.grid, setup.values, cache(suites.checked)
    given = setup.group.map, setup.group.shape, setup.group.dtype
    calls: dict[str, Call] = {
        "solve": lambda: build(*given).replace().prepare(grid, check=False).inverse(y),
        "check": lambda: build(*given).replace().inverse(y),
        "diagnosis": lambda: ic.diagnose(build(*given).replace(), grid).digits,
    }
    quiet = np.errstate(all="ignore")  # the operators' inverses grow
    return [
        setup.contender(does, "plain" if does == "solve" else "ours", does, partial(quiet, call))
        for does, call in calls.items()
        if setup.target.library.name == "numpy"
    ]


def plain(setup: Setup) -> list[Contender]:
    """Return the plain convolutions of the setup's library."""
    name, ways = setup.target.library.name, dict[str, Callable[[Setup], Call]]()
    if setup.group.map == "actnorm":
        return []
    # in "odd" a peer, if there is one, is the yardstick, whichever libraries run
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
    values = np.random.default_rng(2).standard_normal(size)
    return setup.target.asarray(values, setup.group.dtype)


def _wraps(setup: Setup) -> bool:
    return setup.group.map.startswith("periodic")


def _edges(w: Array) -> tuple[int, int]:
    """Return how many pixels a convolution needs before and after each axis."""
    return (w.shape[2] - 1) // 2, w.shape[2] // 2


def _torch(setup: Setup) -> Call:
    """Return PyTorch's convolution; the images are padded before the clock starts."""
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


def peers(setup: Setup) -> list[Contender]:
    """Return the peers of a group that belong to the setup's library."""
    return [
        setup.contender(name, "peer", "inverse", partial(PEERS[name][1], setup))
        for name in setup.group.peers
        if setup.target.library.name in PEERS[name][0] and setup.target.mode != "graph"
    ]


def pixel_by_pixel(setup: Setup, pixels: int | None = None) -> Call:
    """Naive autoregressive inversion: a pass of the whole convolution for each or some pixels."""
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
    (taps,) = setup.host.parameters()["kernel"][0].astype(setup.group.dtype)
    one, y = np.ones(1, taps.dtype), setup.values
    return lambda: scipy.signal.lfilter(one, taps, y)


def _spectral(setup: Setup) -> Call:
    w, grid, y = setup.host.parameters()["kernel"], setup.grid, setup.values
    inverses = np.moveaxis(np.linalg.inv(spectrum(w, grid)), 0, 2)
    inverses = np.ascontiguousarray(inverses, np.result_type(setup.group.dtype, np.complex64))

    def run() -> Array:
        y_hat = scipy.fft.rfft2(y)
        x_hat = np.einsum("ocf,bcf->bof", inverses, y_hat.reshape(*y.shape[:2], -1))
        return scipy.fft.irfft2(x_hat.reshape(y_hat.shape), s=grid)

    return run


PEERS: dict[str, tuple[tuple[str, ...], Callable[[Setup], Call]]] = {  # the libraries, and the call
    "pixel by pixel": (("numpy", "torch"), pixel_by_pixel),
    "SciPy sparse solve": (("numpy",), sparse),
    LFILTER: (("numpy",), _lfilter),
    SPECTRAL: (("numpy",), _spectral),
}
