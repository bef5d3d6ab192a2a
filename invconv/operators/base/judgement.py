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
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple, Self, TypeVar

import numpy as np

from invconv.arrays.errors import IllConditionedWarning, SingularConvError
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
from invconv.families.pointwise import Matrix
from invconv.kernels.primitives import Map, in_turn
from invconv.operators.base.factors import Operator, require_regular
from invconv.trust import limits
from invconv.trust.bound import Bounds, Floats, error_bound
from invconv.trust.condition import (
    EPS,
    FAILURES,
    HALF_EPS,
    OVERFLOW,
    Condition,
    digits_left,
    norms,
    of_inverse,
)
from invconv.trust.limits import NEAR, TOLERATED
from invconv.trust.round_trip import Judgement, RoundTrip, at_once

T = TypeVar("T")


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
    """Measure the error of the inverse in a precision.

    ``half`` is the half type in which y is given, if it is one.

    ``state`` is the factored operator, if it is known; else matrices are undone factor by factor,
    as where a library records. With a limit no more images are taken than tell on which side of it
    the error is. ``times`` is the number of operators that share the work of a call. ``squares`` if
    least squares without damp are judged instead, by what a singular K does not lose.
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
    other: Path  # the same with other numbers
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
        """Return the error of a solve; ``reachable`` is the part of an image it can give back."""
        if all(factor.family.pixelwise for factor in self.path):  # few pixels tell all
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
        series = any(f.family.solves_by_applying and not f.family.pixelwise for f in linear)
        matrices = sum(f.family.pixelwise for f in linear) > 1
        signs = np.ones((2, *sample), dtype)
        with contextlib.suppress(NotImplementedError):  # of a family without a transpose
            signs = tried(lambda: self._signs(shape), signs)
        trip = RoundTrip(
            *(own, other, solve, sample, dtype, signs, spectral, series, matrices),
            reachable=reachable,
            rounded=self.rounded,
        )
        affordable = int(limits.WORK / (times * work))
        error = trip.error(affordable, limit)
        few = spectral and reachable is None and trip.is_few(affordable)
        part = self._part(shape) if few and not (limit and error > limit) else None
        # what repeats a part is an image of the whole, and any number of those are quick
        return error if part is None else max(error, self.error(part, limit, times))

    def _part(self, shape: Shape) -> Shape | None:
        """Return a small grid whose waves are waves of this large one, None if there is none."""
        bases = {getattr(f.family, "basis", None) for f in self.path if not f.family.pixelwise}
        basis = bases.pop() if len(bases) == 1 else None
        part = basis and basis.part(shape, limits.PIXELS)
        return part if part != shape else None

    def _signs(self, shape: Shape) -> Floats:
        """Return signs (2, C, *shape) of images for which K x is large, and small.

        They are where the ascent x -> sign(K^T sign(K x)) of W. Hager's estimate of a norm leads,
        and the one of K^-1: for a K of positive numbers all become alike, for D K D, D = diag(+-1),
        they are those of D. On a large grid they are those of a part with an even number of pixels
        along each axis, so that signs that alternate go on behind it.
        """
        path, part = paths.linear(self.path), shape
        work = _products(path, shape) / size(shape) / 16 + 8 * self.channels
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
        """Return a map of arrays in the precision, given that with the other numbers."""
        if self.precision == "float32":
            return lambda x: run(x.astype(np.float64)).astype(np.float32)
        rng = np.random.default_rng()
        return lambda x: run(x) * (1 + EPS["float64"] * rng.uniform(-0.5, 0.5, x.shape))


def half_of(conv: Operator) -> str:
    """Return the name of an operator's half type, "" if it has another type."""
    like = conv._reference()[1]
    return dtype_name(like.dtype) if is_half(like.dtype, like) else ""


def _rounded(y: Floats, half: str) -> Any:
    """Return numbers of float32 as a half type holds them."""
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
    """Return x -> K x + b; if ``quickest``, small sums over taps run by BLAS, not compiled."""

    def way(factor: Factor) -> tuple[bool, bool]:
        ready = factor.family.solves_by_applying or (factor.family.spectral and not by_taps)
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


def tried(measure: Callable[[], T], failed: T) -> T:
    """Return the result of a function, or another if it raises one of `FAILURES`."""
    try:
        with np.errstate(all="ignore"):
            return measure()
    except FAILURES:
        return failed


def work_of(path: Path, channels: int, shape: Shape) -> tuple[bool, bool, float]:
    """Return whether K x is a sum over taps and whether waves solve it, and the work of an image.

    It is the work of a round trip without biases, in additions of arrays of one number: an image is
    drawn, in part by a solve, K x runs, and the solve.
    """
    numbers = channels * size(shape)
    summed, applied = 0.0, 0.0  # products; those of maps whose inverses are of their own kind
    for family, w, _ in path:
        products = channels * numbers if family.pixelwise else family.products(w, shape)
        if family.solves_by_applying:
            applied += products
        else:
            summed += products
    waves: list[Any] = [f.family for f in path if f.family.spectral]
    wide = [getattr(family, "wide", False) for family in waves]  # has many taps
    by_taps = not wide or summed <= max(limits.TAPS, 32 * numbers)
    slow = any(family.basis.is_slow(shape) for family in waves)
    transforms, work = len(wide) * (48 if slow else 6) * numbers, 8 * numbers + applied / 4
    if channels > 1:  # matrices of frequencies, factored anew for those solved at once
        work += transforms * (5 + channels) / at_once(numbers, transforms > 0)
    if by_taps and not any(wide):
        work += transforms + summed * (1 / channels + 1 / 16)
    else:  # K x has float64's transforms
        work += 20 * transforms
    return by_taps, bool(wide), work


def quicker_by_blas(path: Path, shape: Shape) -> bool:
    """Tell whether a sum over taps takes less time by BLAS than to compile its kernel."""
    few = 1 / 8 + any(f.w.shape[0] == 1 for f in path if not isinstance(f.w, tuple))
    matrices = all(factor.family.pixelwise for factor in path)
    return not matrices and few * _products(path, shape) < limits.COMPILED


def of_estimate(path: Path, channels: int, shape: Shape, alike: bool) -> float:
    """Return the work for a pixel of a norm's estimate; ``alike`` if one column a channel tells."""
    applied = min(12, 2 * channels) if alike else 12  # products K x
    return applied * _compiled(path, channels, shape) / size(shape)


def _compiled(path: Path, channels: int, shape: Shape) -> float:
    """Return the work of a compiled K x, or of a solve, of one image."""
    return _products(path, shape) / 16 + 8 * channels * size(shape)


def _products(path: Path, shape: Shape) -> float:
    return sum(factor.family.products(factor.w, shape) for factor in path)


def warn_of_loss(
    conv: Operator, shape: Shape, result: Array, state: State | None = None, squares: bool = False
) -> None:
    """Warn if an inverse with this result is wrong; the arguments are as of `loss`."""
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

    A bound tells, if that is enough, or else round trips. The operator remembers both. "" if its
    values are not readable. ``state`` is the factored operator that is judged, if it is known;
    ``squares`` if the solution of least squares is judged.
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
    several = any(name for name, _ in conv._labels)  # else the class knows what helps
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


def broken(conv: Operator) -> str:
    """Return which parameters hold NaN or inf, in words, or ""."""
    names = [n for n, a in conv.parameters().items() if not np.isfinite(to_numpy(a)).all()]
    return f"{', '.join(names)} holds NaN or inf" if names else ""


def condition(conv: Operator, shape: Shape, norm: float | None = None) -> Condition:
    """Return the condition of any operator, from its values in host memory; it is remembered.

    Unless a norm is given, 1 or inf, it is the 2-norm if the families know it, else the 1-norm.
    """

    def compute() -> Condition:
        trouble = ""
        try:
            with np.errstate(all="ignore"):
                host = conv.asarrays(np.empty(0))
                require_regular(host, shape)
                require_regular(host, shape, back=True)
                found = _condition(paths.linear(host._path()), host.channels, shape, norm)
            if math.isfinite(found.condition):
                return found
        except SingularConvError as error:
            trouble = str(error)
        except FAILURES:
            pass
        return Condition(math.inf, "any norm", trouble=trouble or broken(conv) or OVERFLOW)

    return conv._conditions.find(f"condition, {norm}", shape, compute)


def _condition(path: Path, channels: int, shape: Shape, norm: float | None) -> Condition:
    if norm is None and len(path) == 1:
        known = path[0].family.condition(path[0].w, shape)
        if known is not None:
            return known
    if norm is None and all(factor.family.pixelwise for factor in path):
        given = not isinstance(path[0].family, Matrix) or len(path) > 1
        product, inverse = matrices(path, channels)[-1][1]
        return of_inverse(product, inverse, given)
    gain, back, (channel, *pixel), exact = _norms(path, channels, shape, norm or 1)
    text = f"{norm or 1:g}-norm"
    return Condition(gain * back, text, exact, channel=channel, pixel=tuple(pixel))


def matrices(path: Path, channels: int) -> list[tuple[Any, Any]]:
    """Return A and A^-1 of each factor, one matrix a pixel, and those of the path up to it."""
    unit = np.eye(channels)[None]  # (1, C, N) with N = C pixels: one unit vector a pixel
    product, found = (unit[0], unit[0]), []
    for factor in path:
        own = tuple(run(unit)[0] for run in linear_maps([factor], unit.shape[2:]))
        product = own[0] @ product[0], product[1] @ own[1]
        found.append((own, product))
    return found


def norms_of_path(path: Path, channels: int, shape: Shape, norm: float) -> tuple[float, float]:
    """Return or estimate |K| and |K^-1| of float64 factors; (inf, inf) if a norm overflows."""
    return tried(lambda: _norms(path, channels, shape, norm)[:2], (math.inf, math.inf))


def _norms(
    path: Path, channels: int, shape: Shape, norm: float
) -> tuple[float, float, Shape, bool]:
    """Return `invconv.trust.condition.norms` of K, or of K^T if the norm is inf."""
    if all(factor.family.pixelwise for factor in path):
        shape = tuple(1 for _ in shape)
    turned = paths.transposed(path)
    here, there = (path, turned) if norm == 1 else (turned, path)
    later, first = partial(linear_maps, there, shape), _longest_columns(here, shape)
    sample, products = (channels, *shape), _products(path, shape)
    return norms(linear_maps(here, shape), later, sample, first, products)


def _longest_columns(path: Path, shape: Shape) -> tuple[int | None, ...]:
    """Return a pixel index per axis: every column of K is a shift of the column at that pixel."""
    if len(path) == 1:
        return path[0].family.longest_columns(shape)
    return tuple(0 if all(f.family.pixelwise for f in path) else None for _ in shape)


def linear_maps(path: Path, shape: Shape) -> tuple[Map, Map]:
    """Return x -> K x and y -> K^-1 y of factors without biases, each prepared for a grid."""
    pairs = []
    for family, w, inverted in path:
        pair = family.made_ready(w, shape), family.solver(w, shape)
        pairs.append(pair[::-1] if inverted else pair)
    return in_turn([apply for apply, _ in pairs]), in_turn([solve for _, solve in pairs[::-1]])


def condition_about(
    conv: Operator, shape: Shape, times: float = 1
) -> tuple[Condition, Shape, float]:
    """Return the condition on a grid, the part of it that is looked at, and the growth from there.

    The grid is halved until compiled kernels estimate ``times`` norms quickly. A step of W. Hager's
    ascent on the whole grid bounds the condition from below. Symmetric and periodic families know
    the condition of any grid from their spectra.
    """

    def compute() -> tuple[Condition, Shape, float]:
        path = paths.linear(conv._on_host(np.float64)._path())
        alike = None not in _longest_columns(path, shape)
        quick = limits.ESTIMATE / (times * of_estimate(path, conv.channels, shape, alike))
        grid = shape if conv._pixelwise else _part(shape, quick, conv)
        if grid == shape:
            return condition(conv, shape), grid, 1.0
        if conv._spectral:
            waves: Any = path[0].family
            known = (
                condition(conv, shape) if waves.orthogonal else _of_waves(waves, path[0].w, shape)
            )
            return known, grid, 1.0
        known = condition(conv, grid)
        number = tried(lambda: _condition_below(path, conv.channels, shape), math.inf)
        number = max(known.condition, number) if math.isfinite(number) else math.inf
        more, pixel = number / known.condition if math.isfinite(number) else math.inf, known.pixel
        trouble = known.trouble or ("" if math.isfinite(number) else OVERFLOW)
        if pixel is not None:  # at the same distance from the nearest border, per axis
            places = zip(pixel, grid, shape, strict=True)
            pixel = tuple(p if 2 * p < m else p + n - m for p, m, n in places)
        carried = replace(known, condition=number, exact=False, trouble=trouble, pixel=pixel)
        return carried, grid, more

    return conv._conditions.find(f"about, {times}", shape, compute)


def _condition_below(path: Path, channels: int, shape: Shape) -> float:
    """Return a bound of |K|_1 |K^-1|_1 from below.

    |A|_1 is at least the largest entry of A^T sign(A z), for any z.
    """
    pairs = linear_maps(path, shape), linear_maps(paths.transposed(path), shape)
    z = np.random.default_rng(0).choice([-1.0, 1.0], (1, channels, *shape))
    found = [
        np.abs(back(np.where(there(z) < 0, -1.0, 1.0))).max()
        for there, back in zip(*pairs, strict=True)
    ]
    return float(np.prod(found))


def _of_waves(family: Any, w: Any, shape: Shape) -> Condition:
    """Return the condition by waves that are not orthogonal, up to sqrt(2) for each axis."""
    failed = Condition(math.inf, "any norm", trouble=OVERFLOW)
    return replace(tried(lambda: family.of_waves(w, shape), failed), exact=False)


def _part(shape: Shape, quick: float, conv: Operator) -> Shape:
    """Return a grid, halved until so many pixels are left, or just enough for the channels.

    A closed one is divided by a divisor: its frequencies are then among those of the whole.
    """
    most = max(1.0, limits.PIXELS / conv.channels, quick)
    while size(shape) > most:
        axis = int(np.argmax(shape))
        n = shape[axis]
        divisors = (d for d in range(2, math.isqrt(n) + 1) if n % d == 0)
        part = n // next(divisors, n) if conv._closed else (n + 1) // 2
        shape = (*shape[:axis], part, *shape[axis + 1 :])
    return shape
