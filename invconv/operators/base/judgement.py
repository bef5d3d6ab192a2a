"""Whether an operator's inverse can be right: the judgement behind every warning.

A bound that costs nothing shows that some inverses are safe (`invconv.trust.bound`). The error of
any other is measured by round trips of images on the host (`invconv.trust.round_trip`), with the
solver of the call that is judged. So that roundings cannot cancel, some products K x are computed
differently: in float64 where float32 is judged; otherwise with one more rounding, and with spectral
weights moved by one ulp.
"""

import contextlib
import itertools
import math
import warnings
from collections.abc import Iterator
from functools import partial
from typing import Any, NamedTuple, Self

import numpy as np

from invconv.arrays.errors import IllConditionedWarning
from invconv.arrays.namespaces import (
    Array,
    Shape,
    bits,
    callers_level,
    dtype_name,
    grid_text,
    is_half,
    ops_of,
    readable,
    size,
    to_numpy,
)
from invconv.arrays.registry import agnostic
from invconv.families import path as paths
from invconv.families.path import Factor, Path, Route, State, solvers_of
from invconv.kernels.primitives import Map, in_turn
from invconv.operators.base.conditions import broken, condition_about, linear_maps
from invconv.operators.base.factors import Operator
from invconv.operators.base.work import products, quicker_by_blas, summed, work_of
from invconv.trust import limits
from invconv.trust.bound import Bounds, Floats, error_bound
from invconv.trust.condition import (
    EPS,
    HALF_EPS,
    digits_left,
    tried,
)
from invconv.trust.limits import NEAR, TOLERATED
from invconv.trust.round_trip import Judgement, RoundTrip


class Blame(NamedTuple):
    """The step of an operator with the largest error of its own."""

    name: str  # its prefix in `parameters`: "first", "0", "1.second"
    kind: str  # the name of its class
    error: float

    @property
    def bad(self) -> bool:
        """Whether the step is bad by itself: fewer than three digits are left."""
        return self.error > NEAR * TOLERATED


def bound(conv: Operator) -> float:
    """Return a bound of the error in units of eps at O(1) cost, on every grid, or inf."""

    def steps() -> Iterator[Bounds]:
        for family, w, inverted in conv._on_host(np.float64)._path():
            yield family.bounds(w).inverted() if inverted else family.bounds(w)

    return tried(lambda: error_bound(steps()), math.inf)


def judge(
    conv: Operator,
    shape: Shape,
    precision: str,
    state: State | None = None,
    *,
    limit: float | None = None,
    times: float = 0.5,
    squares: bool = False,
    half: str = "",
) -> Judgement:
    """Measure the error of the inverse, or if ``squares`` that of least squares, in a precision.

    ``half`` is the half type in which y is given, if it is one.

    ``state`` is the factored operator, if it is known; else matrices are undone factor by factor,
    as where a library records derivatives. With a limit, images are taken only until it is clear on
    which side of it the error is. ``times`` is the number of operators that share the work of a
    call. Least squares are without damp, and judged by the components that a singular K keeps.
    """

    def measure() -> float:
        judged, reachable = _Judged.of(conv, precision, half), None
        solve: Map | None = None
        if squares:
            judged = judged._replace(
                path=paths.linear(judged.path), other=paths.linear(judged.other)
            )
            host: Any = conv._on_host(np.dtype(precision))
            solve = host._regularised(shape, 0.0)
            reachable = in_turn([_forward(judged.path, shape, by_taps=False), solve])
        elif state is not None:
            solve = state.on_host(paths.inverse(judged.path), shape).solve
        return judged.error(shape, limit, times, solve, reachable)

    return Judgement(tried(measure, math.inf))


def blame(conv: Operator, shape: Shape, precision: str, by_factor: bool = True) -> Blame | None:
    """Return the step with the largest error of its own, or None if the operator has no steps.

    Matrices are undone factor by factor, unless the call that is judged multiplies by an inverse.
    """
    labels = conv._labels
    if not any(name for name, _ in labels):
        return None
    judged, runs = _Judged.of(conv, precision), []
    for label, places in itertools.groupby(range(len(labels)), labels.__getitem__):
        path, other = zip(*((judged.path[i], judged.other[i]) for i in places), strict=True)
        step = judged._replace(path=path, other=other)
        solve = in_turn(solvers_of(paths.inverse(path), shape, by_factor=by_factor))
        runs.append((label, partial(step.error, solve=solve)))
    errors = [
        (tried(partial(run, shape, TOLERATED, len(runs)), math.inf), *label) for label, run in runs
    ]
    error, name, kind = max(errors)
    return Blame(name, kind, error)


class _Judged(NamedTuple):
    """A path on the host, in the precision that is judged."""

    path: Path
    other: Path  # the same path, for products that are computed differently
    channels: int
    precision: str
    flushes: bool  # whether subnormal numbers are zero where the path runs
    rounded: Map | None  # y -> y in the dtype of the operator's arrays, if it is a half type

    @classmethod
    def of(cls, conv: Operator, precision: str, half: str = "") -> Self:
        host = conv._on_host(np.dtype(precision))
        half = half if precision == "float32" else ""
        flushes = ops_of(conv._reference()[1]).flushes_subnormals
        path, single = host._path(), precision == "float32"
        other = host._on_host(np.float64)._path() if single else list(map(_moved, path))
        rounded = partial(_rounded, half=half) if half else None
        return cls(path, other, conv.channels, precision, flushes, rounded)

    def error(
        self,
        shape: Shape,
        limit: float | None,
        times: float,
        solve: Map | None = None,
        reachable: Map | None = None,
    ) -> float:
        """Return the error of a solve; ``reachable`` maps an image to the part it can restore."""
        if all(factor.family.pixelwise for factor in self.path):  # a few pixels suffice
            shape = (min(size(shape), limits.PIXELS), *(1 for _ in shape[1:]))
        if solve is None:
            solve = in_turn(solvers_of(paths.inverse(self.path), shape, by_factor=True))
        linear = paths.linear(self.path)
        by_taps, spectral, work = work_of(linear, self.channels, shape)
        other = self._with_other_numbers(_forward(self.other, shape, by_taps, quickest=True))
        own = _forward(self.path, shape, by_taps=True) if by_taps else other
        if self.flushes:
            own, other, solve = map(_flushed, (own, other, solve))
        sample, dtype = (self.channels, *shape), np.dtype(self.precision)
        kinds = [f.family for f in linear]
        steps = any(not (k.pixelwise or k.spectral or k.solves_by_applying) for k in kinds)
        matrices = sum(k.pixelwise for k in kinds) > 1
        signs = np.ones((2, *sample), dtype)
        with contextlib.suppress(NotImplementedError):  # raised by a family without a transpose
            signs = tried(lambda: self._signs(shape), signs)
        trip = RoundTrip(
            *(own, other, solve, sample, dtype, signs, spectral, steps, matrices),
            reachable=reachable,
            rounded=self.rounded,
        )
        affordable = int(limits.WORK / (times * work))
        few = spectral and reachable is None and trip.is_few(affordable)
        part = self._part(shape) if few else None
        error = trip.error(max(affordable, part is None), limit)  # of a part, one image is enough
        # an image of the part, repeated, is one of the whole grid, and many of the part are quick
        if part is None or (limit and error > limit):
            return error
        return max(error, self.error(part, limit, times))

    def _part(self, shape: Shape) -> Shape | None:
        """Return a small grid whose waves are also waves of this grid, None if there is none."""
        bases = {getattr(f.family, "basis", None) for f in self.path if not f.family.pixelwise}
        basis = bases.pop() if len(bases) == 1 else None
        part = basis and basis.part(shape, limits.PIXELS)
        return part if part != shape else None

    def _signs(self, shape: Shape) -> Floats:
        """Return signs (2, C, *shape) of images for which K x is large, and small.

        The ascent x -> sign(K^T sign(K x)) of W. Hager's norm estimate leads to the first, the one
        of K^-1 to the second: for a K of positive numbers all become alike; for D K D, D =
        diag(+-1), they become those of D. On a large grid the signs of a part are repeated, which
        has an even number of pixels along each axis, so that alternating signs go on alternating.
        """
        path, part = paths.linear(self.path), shape
        work = products(path, shape) / size(shape) / 16 + 8 * self.channels
        while max(part) > limits.PIXELS or (work * size(part) > limits.SIGNS and max(part) > 4):
            axis = int(np.argmax(part))
            part = (*part[:axis], (part[axis] + 3) // 4 * 2, *part[axis + 1 :])
        pairs = linear_maps(path, part), linear_maps(paths.transposed(path), part)
        x = np.random.default_rng().choice([-1.0, 1.0], (1, self.channels, *part))
        signs = []
        for there, back in zip(*pairs, strict=True):
            z = x.astype(self.precision)
            for run in limits.ROUNDS * (there, back):
                y = run(z)
                z = np.where(np.abs(y) > 0, np.sign(y), z)
            signs.append(z)
        both = np.concatenate(signs)
        for axis, n in enumerate(shape, 2):
            both = np.take(both, np.arange(n) % both.shape[axis], axis=axis)
        return both

    def _with_other_numbers(self, run: Map) -> Map:
        """Return the map ``run`` of the other path, for arrays in the precision that is judged."""
        if self.precision == "float32":
            return lambda x: run(x.astype(np.float64)).astype(np.float32)
        rng = np.random.default_rng()
        return lambda x: run(x) * (1 + EPS["float64"] * rng.uniform(-0.5, 0.5, x.shape))


def half_of(conv: Operator) -> str:
    """Return the name of an operator's half type, "" if it has another type."""
    like = conv._reference()[1]
    return dtype_name(like.dtype) if is_half(like.dtype, like) else ""


def _rounded(y: Floats, half: str) -> Any:
    """Return float32 numbers rounded to a half type."""
    if half == "float16":
        return y.astype(np.float16).astype(y.dtype)
    words = y.view(np.uint32)  # bfloat16 is the upper half of float32; ties go to the even one
    return (words + 0x7FFF + (words >> 16 & 1) & np.uint32(0xFFFF0000)).view(np.float32)


def _moved(factor: Factor) -> Factor:
    """Return a factor; if it is a matrix per frequency, its weights are moved by an ulp."""
    if not factor.family.spectral or isinstance(factor.w, tuple):
        return factor
    signs = np.random.default_rng().choice([-EPS["float64"], EPS["float64"]], factor.w.shape)
    return factor._replace(w=factor.w * (1 + signs))


def _forward(path: Path, shape: Shape, by_taps: bool, quickest: bool = False) -> Map:
    """Return x -> K x + b as a call runs it; if ``quickest``, as what takes less time to set up.

    Then small sums over taps run by BLAS, not compiled, and exponentials as their inverses do.
    """

    def way(factor: Factor) -> tuple[bool, bool]:
        ready = factor.family.spectral and not by_taps
        if factor.family.solves_by_applying:
            ready = quickest or not summed(factor, shape)
        return factor.inverted and not factor.is_shift, ready

    maps: list[Map] = []
    for (inverted, ready), group in itertools.groupby(path, way):
        factors = list(group)
        if inverted:
            maps += solvers_of(factors, shape)
        elif ready:
            maps += [f.family.made_ready(f.w, shape) for f in factors]
        else:
            route = Route(factors, shape, pixels=size(shape))
            blas = quickest and quicker_by_blas(factors, shape)
            maps.append(agnostic()(route) if blas else route)
    return in_turn(maps)


def _flushed(run: Map) -> Map:
    """Return a map as it runs in a library that flushes subnormal numbers to zero."""

    def flush(a: Floats) -> Any:
        return np.where(np.abs(a) < np.finfo(a.dtype).smallest_normal, a.dtype.type(0), a)

    return lambda a: flush(run(flush(a)))


def warn_of_loss(
    conv: Operator, shape: Shape, result: Array, state: State | None = None, squares: bool = False
) -> None:
    """Warn if an inverse with this result is wrong; the other arguments are those of `loss`."""
    if readable(result) and (message := loss(conv, shape, _precision_of(result), state, squares)):
        warnings.warn(message, IllConditionedWarning, stacklevel=callers_level())


def require_invertible(name: str, conv: Operator, shape: Shape) -> None:
    """Raise ValueError if an inverse in the operator's precision cannot be right."""
    if message := loss(conv, shape, solved_in(conv)):
        raise ValueError(f"{name}: expected an inverse that can be trusted, but {message}")


def solved_in(conv: Operator) -> str:
    """Return the precision in which an operator is solved, "float32" or "float64"."""
    return _precision_of(conv._reference()[1])


def _precision_of(like: Array) -> str:
    return "float64" if bits(like.dtype, like) == 64 else "float32"


def off_by(name: str, shape: Shape, precision: str, judged: Judgement, lost: Blame | None) -> str:
    """Return the error of an inverse and the step to blame, in words."""
    text = (
        f"the inverse of {name} on a grid of {grid_text(shape)} is off by {judged.error:.1e} of "
        "its largest entry, measured on round trips of random images: "
        f"{judged.digits(precision):.1f} digits are left in {precision}"
    )
    if lost is None:
        return text
    if lost.bad:
        return f"{text}, most of them lost by {lost.name} ({lost.kind})"
    return f"{text}, though no step is bad by itself: they undo each other, or all lose a little"


def loss(
    conv: Operator, shape: Shape, precision: str, state: State | None = None, squares: bool = False
) -> str:
    """Return the lost digits of an inverse, their cause and a remedy; "" if two digits are left.

    A bound decides if it is small enough, else round trips do; the operator remembers both. If its
    values are not readable, the result is "". ``state`` is the factored operator that is judged, if
    it is known. With ``squares`` the solution of least squares is judged.
    """
    if shape in conv._conditions.unchecked:
        return ""
    largest = conv._conditions.get(("bound", shape))
    if largest is None:
        if not all(readable(a) for a in conv._arrays().values()):
            return ""
        largest = conv._conditions.find("bound", shape, lambda: bound(conv))
    half = half_of(conv) if precision == "float32" else ""
    if largest * HALF_EPS.get(half, EPS[precision]) <= TOLERATED:
        return ""
    tolerated = max(TOLERATED, limits.HALF * HALF_EPS.get(half, 0.0))
    solvers = () if state is None else state.solvers
    way = " ".join([precision, "squares" * squares, *(type(one).__name__ for one in solvers)])
    call = partial(judge, conv, shape, precision, state, limit=tolerated, times=1.0)
    judged = conv._conditions.find(way, shape, partial(call, squares=squares, half=half))
    if judged.error <= tolerated:
        return ""
    kind = f"{type(conv).__name__} by least squares" if squares else type(conv).__name__
    if trouble := broken(conv):
        where = f"the inverse of {kind} on a grid of {grid_text(shape)}"
        return f"{where} has condition number inf: {trouble}"
    known, grid, _ = condition_about(conv, shape)
    number, carried = known.condition, grid != shape and math.isfinite(known.condition)
    worst = min(judged.digits(precision), digits_left(number, EPS[precision]))
    several = any(name for name, _ in conv._labels)  # else the class has advice of its own
    advice = "bring the parameters closer to their initialisation"
    advice = advice if several else conv._on_host(np.float64).advice(known.channel)
    if conv._has_least_squares:
        advice = f"use least_squares(y, damp), or {advice}"
    if precision == "float32" and number * EPS["float64"] <= TOLERATED:
        advice += ", or use float64"
    with np.errstate(all="ignore"):
        path = conv._in_working_precision()._path()
        log_det = paths.log_det(path, shape)[0] if state is None else state.log_det
        fine = np.isfinite(to_numpy(log_det))
    lost = blame(conv, shape, precision, by_factor=state is None)
    though = ", though K x - y and the log-determinant look fine" if fine else ""
    return (
        f"{off_by(kind, shape, precision, judged, lost)}, {worst:.1f} at "
        f"worst (it has condition number {'about ' * carried}{number:.3g}){though}; {advice} "
        f"(invconv.diagnose says where it comes from; prepare(..., check=False) does not look)"
    )
