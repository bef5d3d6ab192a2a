"""Every law that holds for any operator, on an operator of one's own."""

import functools
import math
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

import invconv as ic
from invconv.arrays.namespaces import Shape, ops_of
from invconv.operators.base.calls import require_spatial_shape
from invconv.operators.base.factors import require_operator
from invconv_conformance.cases.table import GRIDS, Case
from invconv_conformance.laws import LAWS, values
from invconv_conformance.laws.law import Floats, Law
from invconv_conformance.laws.setting import Setting
from invconv_conformance.libraries import KNOWN, Library, Target, unadapted
from invconv_conformance.run import check
from invconv_conformance.truth.bounds import Scales
from invconv_conformance.truth.oracle import EXTENDED


@dataclass(frozen=True, eq=False)
class _Own(Setting):
    """A setting whose truth is a given matrix, or the operator's own forward map."""

    matrix: Floats | None = None
    known = False

    def dense(self, conv: ic.InvertibleConv) -> tuple[Floats, Floats]:
        """Return the matrix and the shift of an operator's forward map, from unit images."""
        shape = self.case.spatial_shape
        size = conv.channels * math.prod(shape)
        unit = 2.0**64  # exact, and so large that a bias vanishes beside it
        images = np.concatenate([np.zeros((1, size)), unit * np.eye(size)])
        with warnings.catch_warnings(action="ignore", category=ic.IllConditionedWarning):
            found = conv.forward(images.reshape(-1, conv.channels, *shape)).reshape(-1, size)
        return (found[1:] - found[0]).T / unit, found[0]

    @functools.cached_property
    def affine(self) -> tuple[Floats, Floats]:
        """The dense matrix and shift."""
        dense, shift = self.dense(self.host)
        if self.matrix is not None:
            dense = np.kron(self.matrix, np.eye(len(dense) // len(self.matrix)))
        return dense.astype(EXTENDED), shift.astype(EXTENDED)

    @functools.cached_property
    def scales(self) -> Scales:
        """The sizes that the bounds depend on: every entry of the matrix is a product."""
        values = np.linalg.svd(self.affine[0].astype(float), compute_uv=False)
        size, condition = len(values), float(values[0] / values[-1])
        logs = size * (float(np.abs(np.log(values)).sum()) + size * condition)
        return Scales(size, float(values[0]), float(1 / values[-1]), logs)


def check_operator(
    conv: ic.InvertibleConv, matrix: Any = None, *, xp: Any = np, spatial_shape: Any = None
) -> None:
    """Hold an operator to every law that holds for any operator.

    Values, inverses, log-determinants and derivatives agree with a dense matrix, samples do not
    mix, files, copies and pickles keep it, singular or ill-conditioned inverses are judged.

    Parameters
    ----------
    conv : InvertibleConv
        An operator of any class, of any library; its values are used.
    matrix : array, optional
        The dense matrix K on one sample, (C N, C N) with N pixels and the channels as the slower
        index, or (C, C) for an operator that is one matrix at every pixel. Unless given, K is what
        ``conv.forward`` does in NumPy's float64: then the laws hold the rest to that.
    xp : module
        The array library to check with, in float32 and float64 (of one without, NumPy's float64):
        numpy, torch, jax.numpy, ... JAX compiles each operation: there float32 is held only to the
        laws that depend on the dtype, and a line on standard error shows how far it is.
    spatial_shape : tuple of int, optional
        The grid. Unless given: one of about 20 pixels, and, where ``matrix`` is not of that grid,
        in NumPy's float64 the laws of values and derivatives on a grid of odd sizes, of even ones,
        with an axis of one pixel, and of two pixels an axis. A grid on which the operator is
        singular is left out of these.

    Raises
    ------
    AssertionError
        With the law, the output, the grid, the error and its bound, and the methods to look at.
    ValueError
        If the operator or the matrix is singular on the grid, to rounding in float64.

    Examples
    --------
    >>> import numpy as np
    >>> import invconv
    >>> from invconv_conformance import check_operator
    >>> check_operator(invconv.Conv1x1(np.asarray([[2.0, 1.0], [0.0, 1.0]])), [[2, 1], [0, 1]])
    """
    require_operator("conv", conv)
    host = conv.asarrays(np.empty(0))
    ndim = 2 if host.ndim is None else host.ndim
    grid = GRIDS.get(ndim, (2,) * ndim) if spatial_shape is None else spatial_shape
    shape, cls = require_spatial_shape(host, grid), type(conv)
    name = ops_of(xp.zeros(1)).name
    library = KNOWN.get(name) or unadapted(xp.__name__)
    if not (library.adapted or library.native):
        raise ValueError(f"xp: expected {', '.join(KNOWN)}, or one with an adapter, got {name}")
    left_out = {"drop_in"}  # a law about another function of the library
    if getattr(sys.modules.get(cls.__module__), cls.__qualname__, None) is not cls:
        left_out.add("copies")  # pickle finds classes by name, but none that a function defines
    dense = None if matrix is None else np.asarray(matrix, dtype=np.float64)
    fitting = [(size, size) for size in (host.channels, host.channels * math.prod(shape))]
    if dense is not None and dense.shape not in fitting:
        raise ValueError(f"matrix: expected one of the shapes {fitting}, got {dense.shape}")
    laws = [law for law in LAWS.values() if law.id not in left_out]
    whole = dense is not None and dense.shape != fitting[0]
    others = [] if whole or spatial_shape is not None else further_grids(ndim, shape)
    with _float64():
        numpy = KNOWN["numpy"]
        wide = library if "float64" in library.dtypes else numpy
        # formulas are the same in every library, and NumPy looks at them within seconds
        _hold(_setting(host, shape, numpy, "float64", dense), _FORMULAS)
        for other in others:
            _hold(_setting(host, other, numpy, "float64", dense), _FORMULAS, regular=False)
        rest = [law for law in laws if wide is not numpy or law not in _FORMULAS]
        _hold(_setting(host, shape, wide, "float64", dense), rest)
        if "float32" in library.dtypes:
            # rounded arrays have another matrix
            few = [law for law in laws if law.id in _OF_ROUNDING or not library.compiles_eagerly]
            _hold(_setting(host, shape, library, "float32", None), few)


_FORMULAS = [law for law in vars(values).values() if isinstance(law, Law)]
# laws whose verdict depends on the dtype, where each dtype is compiled anew for a minute
_OF_ROUNDING = {
    *("forward.value", "inverse.value", "log_det.value", "vjp.input", "vjp.parameters"),
    *("kind", "no_promotion", "precision", "warning", "file"),
}


def further_grids(ndim: int, shape: Shape) -> list[Shape]:
    """Return a grid of odd sizes, of even ones, with an axis of one pixel, and a small one."""
    sizes = (3, 5, 3, 1), (4, 6, 2, 2), (1, 4, 2, 2)
    grids = [*((*few, *(2,) * ndim)[:ndim] for few in sizes), (2,) * ndim]
    return [grid for grid in dict.fromkeys(grids) if grid != shape]


def _setting(
    host: ic.InvertibleConv, shape: Shape, library: Library, dtype: str, matrix: Floats | None
) -> _Own:
    case = Case(type(host).__name__, lambda rng: host, shape)
    return _Own(case, Target(library, library.devices()[0]), dtype, matrix)


def _hold(setting: _Own, laws: Sequence[Law], *, regular: bool = True) -> None:
    """Raise at the first law that fails.

    A grid on which the operator is singular is skipped, unless it has to be regular.
    """
    shape, library = setting.case.spatial_shape, setting.target.library
    where = f"{setting.case.name}, {library.name} {setting.dtype}"
    try:
        rank, size = np.linalg.matrix_rank(setting.affine[0].astype(float)), setting.size
    except Exception as error:
        error.add_note(f"{where}: forward on the grid {shape}; spatial_shape= names another grid")
        raise
    if rank < size:
        if not regular:
            return
        whose = "conv" if setting.matrix is None else "matrix"
        raise ValueError(
            f"{whose}: expected an invertible operator, got one of rank {rank} of {size} "
            f"on the grid {shape}; the laws compare with the inverse of its matrix"
        )
    laws = [law for law in laws if law.speaks_of(setting.case, "eager")]
    for n, law in enumerate(laws, 1):
        if library.compiles_eagerly:
            text = f"\r{where}: law {n} of {len(laws)}, {law.id}, which compiles"
            print(f"{text:<79}", end="\n" * (n == len(laws)), file=sys.stderr, flush=True)
        result = check(law, setting)
        if result.bad:
            numbers = f": error {result.error:.3g}, bound {result.bound:.3g}"
            numbers *= result.status == "fail"
            look = f"; look at {result.rules}" if result.rules else ""
            raise AssertionError(
                f"{where}: {law.id}, {result.what} on the grid {shape}{numbers} "
                f"({law.definition}){look}" + f"\n{result.frames}" * bool(result.frames)
            )


@contextmanager
def _float64() -> Iterator[None]:
    """Leave JAX's float64 switched as the caller has it: the suite switches it on."""
    jax = sys.modules.get("jax")
    before = jax is not None and jax.config.jax_enable_x64
    try:
        yield
    finally:
        if jax is not None:
            jax.config.update("jax_enable_x64", before)
