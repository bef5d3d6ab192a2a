"""Maps, as the paper initialises them, and groups of them on images: contenders run in turns.

The suite checks has operators of its own. May import the core alone.
"""

import fnmatch
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

import invconv as ic
from invconv.arrays.namespaces import Shape
from invconv.operators.base.fields import mixings

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


LIBRARY_SUITES = ("forward", "inverse", "periodic", "pointwise", "growth")
ONE_THREAD = {
    "odd": ("numpy", "torch", "jax"),
    "overhead": ("torch",),
    "threads": ("numpy", "torch"),
    "checks": ("numpy",),
}
SUITES = (*LIBRARY_SUITES, *ONE_THREAD)  # the latter in these libraries, with one thread
ALTERNATING = ("overhead", "checks")  # one call each in turns, with the caches as others left them


@dataclass(frozen=True)
class Group:
    """A map on images, which all libraries and peers run in turns in one process."""

    suite: str  # one of `SUITES`
    map: str  # a name that the suite's contenders know, such as "corner 2"
    shape: Shape  # (B, C, *grid)
    does: tuple[str, ...]  # calls to time, such as "forward", "inverse", "unprepared"
    peers: tuple[str, ...] = ()  # alternatives: names of `contenders.operators.PEERS`
    quick: bool = False  # whether ``--quick`` runs it
    # whether in every dtype and number of threads, else in the first one with the most threads
    thorough: bool = False
    axis: str = ""  # the size that grows along this group's series, in the suite growth
    limit: float | None = None  # of our time ÷ the plain one's; in "odd", NumPy's ÷ the yardstick's
    dtype: str = ""  # which `select` fills in

    @property
    def title(self) -> str:
        """Words for it, unique among the groups of a run."""
        series = f" ({self.axis})" if self.axis else ""
        return f"{self.suite}: {self.map}, {as_text(self.shape)}, {self.dtype}{series}"


def as_text(shape: Shape) -> str:
    """Return "64x12x16x16"."""
    return "x".join(map(str, shape))


FFT = "FFT, one GEMM a frequency"  # a plain convolution
# contenders by which all libraries are measured: peers of a group, else PyTorch's convolution
LFILTER, SPECTRAL = "scipy.signal.lfilter", "SciPy's rfft2, product, irfft2"
CONV2D, CONV1D = "F.conv2d", "F.conv1d"
YARDSTICKS = (LFILTER, SPECTRAL, CONV2D, CONV1D)

# limits of inverse / F.conv2d of a 2 x 2 corner with one thread in NumPy, in float32 and float64,
# by (B, C, H, W) of single images and of batches, as a flow's levels have them
AGAINST_CONV2D: dict[Shape, tuple[float, float]] = {
    (1, 12, 16, 16): (3.0, 3.0),
    (64, 12, 16, 16): (0.8, 0.8),
    (64, 24, 8, 8): (0.6, 0.75),
    (64, 48, 4, 4): (0.8, 0.9),
    (100, 3, 32, 32): (0.4, 0.6),
    (100, 12, 32, 32): (0.85, 0.4),
    (1, 12, 64, 64): (1.0, 1.0),
    (16, 48, 64, 64): (1.3, 0.6),
    (1, 3, 256, 256): (0.6, 0.8),
    (1, 12, 512, 512): (1.1, 0.4),
}
LIMIT_SHAPES = tuple(AGAINST_CONV2D)

_BOTH = ("forward", "inverse")
_SOLVERS = ("pixel by pixel", "SciPy sparse solve")
_LEVEL, _WIDE = (64, 12, 16, 16), (16, 48, 64, 64)


# of each suite: maps, shapes, calls, and the map that --quick runs on the first shape
_TABLES: dict[str, tuple[tuple[str, ...], tuple[Shape, ...], tuple[str, ...], str]] = {
    "forward": (
        ("corner 2", "corner 3", "emerging 3", "exponential 3"),
        (_LEVEL, (100, 3, 32, 32), _WIDE, (1, 12, 512, 512)),
        *(("forward",), "emerging 3"),
    ),
    "periodic": (
        ("periodic 3", "periodic 5", "symmetric 3"),
        (_LEVEL, (100, 3, 32, 32), _WIDE),
        *((*_BOTH, "unprepared"), "periodic 5"),
    ),
    "pointwise": (
        ("plain", "plu", "qr", "orthogonal", "circulant", "actnorm"),
        (_LEVEL, _WIDE, (64, 192, 8, 8)),
        *((*_BOTH, "unprepared"), "plu"),
    ),
}


def _tables() -> Iterator[Group]:
    for suite, (names, shapes, does, quick) in _TABLES.items():
        for name, shape in itertools.product(names, shapes):
            yield Group(suite, name, shape, does, quick=(name, shape) == (quick, _LEVEL))


def _inverse() -> Iterator[Group]:
    quick = (_LEVEL, (64, 48, 4, 4), (1, 12, 64, 64), _WIDE)
    corner = Group("inverse", "corner 2", _LEVEL, _BOTH, thorough=True)
    for shape in LIMIT_SHAPES:
        peers = _SOLVERS if shape in (_LEVEL, (64, 48, 4, 4)) else ()
        yield replace(corner, shape=shape, quick=shape in quick, peers=peers)
    yield replace(corner, shape=(64, 48, 16, 16))
    yield replace(corner, map="corner 3")
    yield replace(corner, map="corner 3", shape=_WIDE)
    for name in ("emerging 3", "periodic 3"):
        yield replace(corner, map=name, quick=True)
        yield replace(corner, map=name, shape=_WIDE)
    yield replace(corner, map="symmetric 3", quick=True)
    yield replace(corner, map="exponential 3")
    yield replace(corner, map="circular 3")


# of each axis, the shapes in two dimensions and in one; of "taps" those along an axis, too
_GROWTH: dict[str, list[tuple[int, Shape]]] = {
    "pixels": [
        *((2, (1, 3, n, n)) for n in (64, 128, 256, 512, 1024, 2048)),
        *((2, (1, 3, n)) for n in (1000, 4000, 16_000, 64_000, 256_000)),
    ],
    "batch": [(2, (b, 12, *grid)) for grid in ((16, 16), (256,)) for b in (1, 4, 16, 64, 256)],
    "channels": [
        (2, (16, c, *grid)) for grid in ((16, 16), (256,)) for c in (4, 8, 16, 32, 64, 128)
    ],
    "taps": [(k, (16, 12, *grid)) for grid in ((32, 32), (1024,)) for k in (2, 3, 4, 5, 6)],
}


def _growth() -> Iterator[Group]:
    for axis, points in _GROWTH.items():
        for taps, shape in points:
            quick = axis == "batch" and len(shape) == 4
            yield Group("growth", f"corner {taps}", shape, _BOTH, axis=axis, quick=quick)


def _overhead() -> Iterator[Group]:
    """Yield the lines of `invconv_benchmarks.contenders.layers`, with our limits."""
    small, lines = (1, 12, 8, 8), list[tuple[str, Shape, float | None]]()
    for shape, limit, of_qr in ((small, 3.0, 7.0), (_LEVEL, 1.1, 1.6), ((32, 48, 8, 8), 1.3, 1.6)):
        lines += [("emerging forward", shape, limit), ("emerging step", shape, limit)]
        lines += [("emerging QR step", shape, of_qr)]
    for name in ("1x1", "PLU 1x1", "QR 1x1"):
        lines += [(f"{name} inverse, {lib}", (100, 12, 32, 32), 1.5) for lib in ("torch", "numpy")]
    lines += [("periodic forward", _LEVEL, 2.0), ("periodic step", _LEVEL, 2.0)]
    for padding in ("zeros", "circular"):
        lines += [(f"exponential {does}, {padding}", _LEVEL, 1.0) for does in _BOTH]
    lines += [(f"symmetric {does} / periodic", _LEVEL, 2.0) for does in _BOTH]
    for name in ("symmetric", "periodic", "exponential", "circular", "orthogonal", "circulant"):
        lines += [(f"{name} inverse / forward", _LEVEL, 1.3)]
    steps = {"emerging": 1.25, "qr": 1.05}
    samples = {"emerging": 1.2, "qr": 1.2, "periodic": 1.2}  # the paper's
    for name in MIXINGS[1:]:
        lines += [(f"Glow step, {name} / plain", (32, 3, 32, 32), steps.get(name))]
        lines += [(f"Glow samples, {name} / plain", (100, 3, 32, 32), samples.get(name))]
    for name, size, most in lines:
        quick = "Glow" not in name
        yield Group("overhead", name, size, ("call",), quick=quick, limit=most)


def _odd() -> Iterator[Group]:
    """Yield inverses where images and rows are few, and wide periodic ones, with our limits."""
    lines: list[tuple[str, Shape, float, tuple[str, ...]]] = [
        ("corner 2", (1, 256, 8, 8), 1.2, ()),
        ("corner 2", (8, 128, 16, 16), 1.6, ()),
        ("corner 2", (4, 256, 16, 16), 1.5, ()),
        ("corner 2", (1, 48, 8, 8), 1.4, ()),
        ("corner 2", (2, 96, 12, 20), 1.3, ()),
        ("corner 2", (1, 8, 100_000), 3.5, ()),
        ("corner 2", (1, 64, 10_000), 2.5, ()),
        ("corner 3", (1, 12, 50_000), 3.0, ()),
        ("corner 2", (1, 256, 1000), 2.5, ()),
        ("corner 3", (1, 1, 1_000_000), 0.5, (LFILTER,)),
        ("periodic 9", (1, 1, 1024, 1024), 1.5, (SPECTRAL,)),
        ("periodic 3", (1, 3, 512, 512), 2.2, (SPECTRAL,)),
    ]
    for name, size, most, peers in lines:
        quick = size[1] == 48 or peers == (LFILTER,)
        yield Group("odd", name, size, ("inverse",), peers, quick=quick, limit=most)


def _threads() -> Iterator[Group]:
    for shape in LIMIT_SHAPES:
        quick = shape in ((1, 12, 16, 16), (100, 12, 32, 32))
        yield Group("threads", "corner 2", shape, ("inverse",), quick=quick, thorough=True)


_SHAPES: tuple[Shape, ...] = (  # C, then the grid; the first two are quick
    (3, 32, 32), (12, 64, 64), (4, 20000), (1, 100000), (2, 48, 48, 48), (1, 1000, 1200),
)  # fmt: skip
_TAPS = 3, 15, 29
_MOST = 1e8  # products of a map that no frequencies decouple, so that a line is done in seconds


def _checks() -> Iterator[Group]:
    """Yield a group for each operator, grid and number of taps; one image, in both dtypes."""
    does = ("solve", "check", "diagnosis")
    for name, (number, shape), taps in itertools.product(CHECKED, enumerate(_SHAPES), _TAPS):
        channels, *grid = shape
        products = channels**2 * taps ** len(grid) * math.prod(grid)
        decoupled = name.startswith(("PeriodicConv", "SymmetricConv"))
        pointwise = name.endswith("1x1") or name == "ActNorm"
        if (decoupled or products <= _MOST) and not (pointwise and taps > _TAPS[0]):
            title = name if pointwise else f"{name}, {taps} taps"
            yield Group("checks", title, (1, *shape), does, quick=number < 2, thorough=True)


_ALL = (_inverse, _tables, _growth, _odd, _overhead, _threads, _checks)
GROUPS = tuple(group for groups in _ALL for group in groups())


def select(
    suite: str, shapes: Sequence[Shape], dtypes: Sequence[str], quick: bool, only: str = "*"
) -> list[Group]:
    """Return the groups of a suite, one per dtype, whose maps match a pattern.

    The suite "all" are those that compare libraries. Shapes (B, C, H, W) take the place of the
    suite's own, whose limits and peers go with them, but for series of growing sizes. ``quick``
    leaves all dtypes but the first out.
    """
    suites = LIBRARY_SUITES if suite == "all" else (suite,)
    chosen = [g for g in GROUPS if g.suite in suites and (g.quick or not quick)]
    chosen = [g for g in chosen if fnmatch.fnmatchcase(g.map, only)]
    if shapes:
        kept = [g for g in chosen if g.axis == ""]
        other = [replace(g, shape=s, peers=(), limit=None) for g in kept for s in shapes]
        other += [g for g in kept if g.shape in shapes]  # which take the others' places
        chosen = list({(g.suite, g.map, g.shape): g for g in other}.values())
    return [
        replace(g, dtype=dtype)
        for g in chosen
        for dtype in (dtypes if g.thorough and not quick else dtypes[:1])
    ]
