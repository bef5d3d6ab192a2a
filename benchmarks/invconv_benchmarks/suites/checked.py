"""Operators whose check is timed: of every class, with kernels that no cheap bound clears."""

import math
from collections.abc import Callable, Iterator

import numpy as np

import invconv as ic
from invconv_benchmarks.suites.group import Group, Shape

_SHAPES: tuple[Shape, ...] = (  # C, then the grid; the first two are quick
    (3, 32, 32), (12, 64, 64), (4, 20000), (1, 100000), (2, 48, 48, 48), (1, 1000, 1200),
)  # fmt: skip
_TAPS = 3, 15, 29
_MOST = 1e8  # products of a map that no frequencies decouple, so that a line is done in seconds
_MOVED = 0.5

Make = Callable[[np.random.Generator, int, int, int], ic.InvertibleConv]


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
    scale = {n: _MOVED / math.sqrt(a[0].size) for n, a in arrays.items() if "kernel" in n}
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


_OPERATORS: dict[str, Make] = {
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


def groups() -> Iterator[Group]:
    """Yield a group for each operator, grid and number of taps; one image, in both dtypes."""
    for name in _OPERATORS:
        for number, shape in enumerate(_SHAPES):
            for taps in _TAPS:
                channels, *grid = shape
                products = channels**2 * taps ** len(grid) * math.prod(grid)
                decoupled = name.startswith(("PeriodicConv", "SymmetricConv"))
                pointwise = name.endswith("1x1") or name == "ActNorm"
                if (decoupled or products <= _MOST) and not (pointwise and taps > _TAPS[0]):
                    title = name if pointwise else f"{name}, {taps} taps"
                    does = ("solve", "check", "diagnosis")
                    yield Group("checks", title, (1, *shape), does, quick=number < 2, thorough=True)


def build(group: Group) -> ic.InvertibleConv:
    """Return a group's operator, of NumPy arrays."""
    name, _, words = group.map.rpartition(", ")
    taps, named = (int(words.split()[0]), name) if words.endswith("taps") else (1, group.map)
    _, channels, *grid = group.shape
    rng = np.random.default_rng(0)
    return _OPERATORS[named](rng, channels, taps, len(grid)).asarrays(np.empty(0, group.dtype))
