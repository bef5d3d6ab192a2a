"""Calls of every public function, and their true results: SciPy's, or a dense matrix's.

A new function is a row of `CALLS` for each value of its options that is not the default, in pairs.
"""

import functools
import itertools
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.linalg
import scipy.ndimage
import scipy.optimize
import scipy.signal

import invconv as ic
from invconv.arrays.namespaces import cast, constant, namespace
from invconv_conformance.cases.table import Case, Shape, perturbed, with_bias
from invconv_conformance.truth import oracle

Floats = np.ndarray[Any, Any]


@dataclass(frozen=True, kw_only=True)
class Called(Case):
    """A call of a function with named arrays; a row's name begins with the function's name."""

    build: Any = None  # unlike a case's: it has no operator
    spatial_shape: Shape = ()
    arrays: Mapping[str, Floats]
    function: Callable[..., Any]  # a function of the arrays alone
    truth: Callable[..., Any]  # the truth, from NumPy float64 arrays
    looks: bool = False  # at values, and returns a float: it is not traced or differentiated
    exact: bool = False  # only moves numbers


def _row(
    name: str,
    function: Callable[..., Any],
    truth: Callable[..., Any],
    arrays: Mapping[str, Floats],
    *given: Any,
    looks: bool = False,
    exact: bool = False,
    **options: Any,
) -> Called:
    """Return a call of a function, and of its truth: the given arguments, then the arrays."""
    ours, right = (functools.partial(one, *given, **options) for one in (function, truth))
    return Called(name, arrays=arrays, function=ours, truth=right, looks=looks, exact=exact)


_rng = np.random.default_rng(50)
_draw = _rng.standard_normal

# exact in all dtypes; a longer numerator, a longer denominator, none
_FILTERS: dict[str, tuple[Any, Any]] = {
    "long-b": ([0.0, 0.25, 1.0, -0.5], [2.0, -0.5]),
    "long-a": ([0.75], [1.0, -0.5, 0.25]),
    "numbers": ([0.5, 0.25], 1),
}
_SOS = np.asarray([[0.5, 0.25, 0, 1, -0.5, 0.125], [1, 0, -1, 1, 0.5, 0.25]])


def _lfilter() -> Iterator[Called]:
    every = itertools.product(_FILTERS.items(), (-1, 0, 1), ("none", "whole", "shared"))
    for (design, (b, a)), axis, state in every:
        order, shape = max(np.size(b), np.size(a)) - 1, [3, 5, 4]
        shape[axis] = order
        zi = {} if state == "none" else {"zi": _draw(shape)}
        if state == "shared":
            zi["zi"] = zi["zi"][tuple(slice(None if n == axis % 3 else 1) for n in range(3))]
        arrays, name = {"x": _draw((3, 5, 4)), **zi}, f"lfilter-{design}-{axis}-{state}"
        yield _row(name, ic.lfilter, _filtered, arrays, b, a, axis=axis)


def _filtered(*numbers: Any, x: Floats, axis: int, zi: Any = None) -> Any:
    pair = len(numbers) == 2
    run: Any = scipy.signal.lfilter if pair else scipy.signal.sosfilt
    if zi is None:
        return run(*numbers, x, axis)
    shape = [*x.shape] if pair else [len(numbers[0]), *x.shape]
    place = axis % x.ndim + len(shape) - x.ndim
    shape[place] = zi.shape[place]
    return run(*numbers, x, axis, zi=np.broadcast_to(zi, shape))


def _sosfilt() -> Iterator[Called]:
    for axis, state in itertools.product((-1, 0, 1), (False, True)):
        shape = [2, 3, 5, 4]
        shape[axis % 3 + 1] = 2
        zi = {"zi": _draw(shape)} if state else {}
        arrays, name = {"x": _draw((3, 5, 4)), **zi}, f"sosfilt-{axis}{'-zi' * state}"
        yield _row(name, ic.sosfilt, _filtered, arrays, _SOS, axis=axis)


def _both_ways() -> Iterator[Called]:
    pads = "odd", "even", "constant", None
    every = itertools.product(_FILTERS.items(), (-1, 1), pads, (None, 2))
    for (design, numbers), axis, padtype, padlen in every:
        options: Any = {"axis": axis, "padtype": padtype, "padlen": padlen}
        arrays, name = {"x": _draw((2, 17, 16))}, f"filtfilt-{design}-{axis}-{padtype}-{padlen}"
        run: Any = ic.filtfilt
        if design == "numbers":
            run, numbers, name = ic.sosfiltfilt, (_SOS,), f"sos{name}"
        truth = getattr(scipy.signal, run.__name__)
        yield _row(name, run, truth, arrays, *numbers, **options)


def _filters_of_their_own() -> Iterator[Called]:
    """Yield calls whose coefficients have axes before the last that broadcast to those of x."""
    pair: dict[str, Any] = {"b": _draw((3, 1, 2)), "a": 0.3 * _draw((4, 3)) + [1.5, 0, 0]}
    sections = {"sos": 0.3 * _draw((3, 1, 2, 6)) + [0, 0, 0, 1.5, 0, 0]}
    padded: dict[str, Any] = {"padlen": 4}
    for run, given, options in (
        (ic.lfilter, pair | {"zi": _draw((3, 4, 2))}, {}),
        (ic.filtfilt, pair, padded),
        (ic.sosfilt, sections | {"zi": _draw((2, 3, 4, 2))}, {}),
        (ic.sosfiltfilt, sections, padded),
    ):
        arrays = {"x": _draw((3, 4, 6)), **given}
        truth = functools.partial(_each, getattr(scipy.signal, run.__name__))
        yield _row(f"{run.__name__}-each", run, truth, arrays, **options)


def _each(run: Any, x: Floats, zi: Any = None, padlen: Any = None, **coefficients: Floats) -> Any:
    """Filter one signal after the other."""
    found, names = [], [n for n in ("b", "a", "sos") if n in coefficients]
    for p in np.ndindex(3, 4):
        given = [np.ascontiguousarray(coefficients[n]) for n in names]
        given = [np.broadcast_to(v, (3, 4, *v.shape[len(names) - 3 :]))[p] for v in given]
        if len(given) == 1:
            given[0] = given[0] / given[0][:, 3:4]  # SciPy's sections have a[0] = 1
        options = {"padlen": padlen} if zi is None else {"zi": zi[..., *p, :]}
        found.append(run(*given, x[p], **options))
    if zi is None:
        return np.reshape(found, x.shape)
    y, last = (np.stack(parts, -2) for parts in zip(*found, strict=True))
    return y.reshape(x.shape), last.reshape(zi.shape)


def _steady() -> Iterator[Called]:
    for design, (b, a) in list(_FILTERS.items())[:2]:
        arrays = {"b": np.asarray(b), "a": np.asarray(a)}
        yield _row(f"lfilter_zi-{design}", ic.lfilter_zi, scipy.signal.lfilter_zi, arrays)
    yield _row("sosfilt_zi", ic.sosfilt_zi, scipy.signal.sosfilt_zi, {"sos": _SOS})


def _varying() -> Iterator[Called]:
    for n, (kb, ka), axis, state in itertools.product((2, 70), ((3, 2), (1, 3)), (-1, 0), (0, 1)):
        a = 0.3 * _draw((3, n, ka)) + 1.5 * (np.arange(ka) == 0)
        arrays = {"b": _draw((2, 1, n, kb)), "a": a, "x": np.moveaxis(_draw((2, 3, n)), -1, axis)}
        if state:
            arrays["zi"] = np.moveaxis(_draw((2, 3, 2 * (max(kb, ka) - 1))), -1, axis)
        name = f"varying_lfilter-{n}-{kb}-{ka}-{axis}{'-zi' * state}"
        yield _row(name, ic.varying_lfilter, _sample_by_sample, arrays, axis=axis)


def _sample_by_sample(b: Floats, a: Floats, x: Floats, axis: int, zi: Any = None) -> Any:
    x, order = np.moveaxis(x, axis, -1), max(b.shape[-1], a.shape[-1]) - 1
    past = np.zeros((*x.shape[:-1], 2 * order)) if zi is None else np.moveaxis(zi, axis, -1)
    x, y = np.concatenate([past[..., :order], x], -1), [past[..., order + k] for k in range(order)]
    for n in range(x.shape[-1] - order):
        terms = [b[..., n, j] * x[..., order + n - j] for j in range(b.shape[-1])]
        terms += [-a[..., n, k] * y[-k] for k in range(1, a.shape[-1])]
        y.append(sum(terms) / a[..., n, 0])
    whole = np.stack(y, -1)
    ends = np.concatenate([v[..., v.shape[-1] - order :] for v in (x, whole)], -1)
    found = np.moveaxis(whole[..., order:], -1, axis)
    return found if zi is None else (found, np.moveaxis(ends, -1, axis))


def _from_psf() -> Iterator[Called]:
    words = "symmetric", "mirror", "odd", "zero", "periodic"
    sides: list[Any] = [*words, *itertools.product(words, repeat=2), ("odd",), words[1:4]]
    for boundary, several in [(s, False) for s in sides] + [(s, True) for s in sides[len(words) :]]:
        both = boundary if isinstance(boundary, tuple) else (boundary,) * 2
        psf = _draw((2, *(3 if word == "zero" else 5 for word in both))) / 4 ** len(both)
        for axis in (n for n, word in enumerate(both, 1) if word != "periodic"):
            psf = psf + np.flip(psf, axis)
        psf[(slice(None), *(n // 2 for n in psf.shape[1:]))] += 2
        x = _draw((2, 1 + several, *(4, 6, 3)[: len(both)]))
        arrays = {"psf": psf if several else psf[0], "x": x}
        whole = both if boundary is both else ("all", boundary)
        name = f"from_psf-{'-'.join(whole)}{'-each' * several}"
        yield _row(name, _blurred, _convolved, arrays, boundary)


def _blurred(boundary: Any, psf: Any, x: Any) -> Any:
    return ic.from_psf(psf, boundary=boundary).forward(x)


def _convolved(boundary: Any, psf: Floats, x: Floats) -> Floats:
    words = boundary if isinstance(boundary, tuple) else (boundary,) * 2
    sizes = psf.shape[-len(words) :]
    for axis, (word, n) in enumerate(zip(words, sizes, strict=True), 2):
        x = oracle.continued(x, axis, n // 2, word)
    functions = psf.reshape(1, -1, *sizes)
    parts = [scipy.signal.convolve(x[:, c], functions[:, c], "valid") for c in range(x.shape[1])]
    return np.stack(parts, 1)


def _splines() -> Iterator[Called]:
    modes = "mirror", "reflect", "grid-wrap"
    for order, mode, axes in itertools.product((2, 3, 4, 5), modes, (None, 1, (-1, 0))):
        options: dict[str, Any] = {"order": order, "mode": mode, "axes": axes}
        name, x = "-".join(map(str, ("spline_filter", *options.values()))), _draw((3, 5, 2))
        yield _row(name, ic.spline_filter, _interpolated, {"x": x}, **options)


_KNOTS = {2: (1, 6, 1), 3: (1, 4, 1), 4: (1, 76, 230, 76, 1), 5: (1, 26, 66, 26, 1)}
_MODES = {"mirror": "mirror", "reflect": "symmetric", "grid-wrap": "periodic"}


def _interpolated(x: Floats, order: int, mode: str, axes: Any) -> Floats:
    """Solve for the coefficients with the matrix of a spline's values, which SciPy's tests use."""
    knots = np.asarray(_KNOTS[order]) / sum(_KNOTS[order])
    taps = [((j - len(knots) // 2,), knot * np.eye(1)) for j, knot in enumerate(knots)]
    for axis in range(3) if axes is None else np.atleast_1d(axes):
        matrix = oracle.correlate(taps, (x.shape[axis],), _MODES[mode]).astype(float)
        x = np.moveaxis(np.tensordot(np.linalg.inv(matrix), x, (1, axis)), 0, axis)
    return x


def _points() -> Iterator[Called]:
    for order, mode in itertools.product(range(6), (*_MODES, "nearest", "constant")):
        first, side = (-0.5, 4) if mode == "constant" else (-7, 16)
        arrays = {"x": _draw((5, 4)), "coordinates": first + side * _rng.random((2, 3, 2))}
        options: dict[str, Any] = {"order": order, "mode": mode}
        yield _row(
            f"map_coordinates-{order}-{mode}", ic.map_coordinates, _at_points, arrays, **options
        )


def _at_points(x: Floats, coordinates: Floats, order: int, mode: str) -> Floats:
    if order > 1 and mode != "nearest":  # there SciPy's own filter is not exact on few pixels
        x = _interpolated(x, order, "mirror" if mode == "constant" else mode, (0, 1))
    options: Any = {"order": order, "mode": mode, "prefilter": mode == "nearest"}
    return np.asarray(scipy.ndimage.map_coordinates(x, coordinates, **options))


def _least_squares() -> Iterator[Called]:
    for conv, grid in _SOLVED:
        name = type(conv).__name__.lower()
        arrays = {"y": _draw((2, conv.channels, *grid))} | conv.parameters()
        of, given = functools.partial(_operators, conv), {**arrays, "damp": np.asarray(0.75)}
        rows = {"none": arrays, "array": given, "each": arrays | {"damp": np.asarray([0.75, 2.0])}}
        for count in (1, 2):
            more = {f"P{k}.{n}": _draw(a.shape) for k in range(count) for n, a in arrays.items()}
            own = {n: a for n, a in more.items() if not n.endswith(".y")}
            rows[f"by-{count}"] = given | own
        for kind, numbers in rows.items():
            yield _row(f"least_squares-{name}-{kind}", _solved, _least, numbers, of)
        yield _row(f"least_squares-{name}-number", _solved, _least, arrays, of, damp=0.5)
        noise: Any = {"sigma": 0.5, "looks": True}
        for each in (False, True):
            kind = f"damp_for_noise-{name}{'-each' * each}"
            yield _row(kind, _suggested, _discrepancy, arrays, of, each=each, **noise)


def _functions_of_operators() -> Iterator[Called]:
    for conv in (_small(ic.PeriodicConv, 3, 2), _small(ic.SymmetricConv, 3, boundary="odd")):
        name = type(conv).__name__.lower()
        for c, function, right in ((1, _exponential, _expm), (2, _traces, _traced)):
            few = {"kernel": conv.kernel[:c, :c]} | ({"x": _draw((2, 1, 3, 4))} if c == 1 else {})
            yield _row(f"{function.__name__[1:]}-{name}", function, right, few, conv)


def _stars() -> Iterator[Called]:
    conv, few = ic.SymmetricConv(np.abs(_draw((1, 1, 2, 2)))), {"iterations": 3}
    options: dict[str, Any]
    for options in (few, few | {"sigma": 0.25}):
        arrays = {"y": 1 + _rng.random((2, 1, 3, 4)), "background": np.full((3, 1), 0.125)}
        arrays["kernel"] = conv.kernel
        name = f"richardson_lucy{'-sigma' * (len(options) > 1)}"
        yield _row(name, _deconvolved, _step_by_step, arrays, conv, **options)


_GOOD = np.arange(4) > 0


def _deconvolved(conv: Any, y: Any, kernel: Any, **options: Any) -> Any:
    conv = conv.asarrays(y).replace(kernel=kernel)
    return ic.richardson_lucy(conv, y, mask=constant(_GOOD, y), **options)


def _step_by_step(
    conv: Any, y: Floats, kernel: Floats, background: Floats, **options: Any
) -> Floats:
    matrix, found = oracle.affine(conv.replace(kernel=kernel), (3, 4))[0].astype(float), []
    good, sky = (np.broadcast_to(v, (3, 4)).ravel() for v in (_GOOD, background))
    weight = matrix.T @ good
    for image in y.reshape(len(y), -1):
        x = np.full(12, (good * (image - sky)).sum() / weight.sum())
        for _ in range(options["iterations"]):
            gap = (matrix @ x + sky - image) / options.get("sigma", 1e-9)
            if (good * gap**2).sum() > good.sum():
                x = x * (matrix.T @ (good * image / (matrix @ x + sky))) / weight
        found.append(x)
    return np.reshape(found, y.shape)


def _even(conv: Any, kernel: Any) -> Any:
    xp = namespace(kernel)
    if isinstance(conv, ic.PeriodicConv):
        kernel = (kernel + xp.flip(kernel, axis=(2, 3))) / 2
    bias = xp.zeros_like(kernel[:, 0, 0, 0])
    return conv.asarrays(kernel).replace(kernel=kernel, bias=bias)


def _exponential(conv: Any, kernel: Any, x: Any) -> Any:
    return _even(conv, kernel).funm(namespace(x).exp, x)


def _expm(conv: Any, kernel: Floats, x: Floats) -> Floats:
    matrix, _ = oracle.affine(_even(conv, kernel), (3, 4))
    return _turned(scipy.linalg.expm(matrix.astype(float)), (1, 3, 4), x)


def _traces(conv: Any, kernel: Any) -> Any:
    """Return the trace of K^2, as a vector."""
    found = _even(conv, kernel).spectrum((3, 4))
    xp = namespace(found)
    squares = xp.reshape(found * xp.matrix_transpose(found), (1, -1))
    return cast(abs(xp.sum(squares, axis=1)), kernel.dtype)  # of half types in float32


def _traced(conv: Any, kernel: Floats) -> Any:
    matrix = oracle.affine(_even(conv, kernel), (3, 4))[0].astype(float)
    return np.abs([np.trace(matrix @ matrix)])


def _small(cls: Any, *sizes: Any, channels: int = 2, **options: Any) -> Any:
    return with_bias(perturbed(cls.init(channels, *sizes, rng=_rng, **options), _rng), _rng)


_SOLVED: list[tuple[Any, Shape]] = [
    (_small(ic.PeriodicConv, 3, 2, dilation=(1, 2)), (3, 4)),
    (_small(ic.SymmetricConv, 3, 2, boundary=("odd", "periodic"), channels=1), (3, 4)),
    (_small(ic.Conv1x1, ndim=1), (5,)),
    (_small(ic.CirculantConv1x1, ndim=1), (5,)),
    (_small(ic.ActNorm, ndim=1), (5,)),
]


def _operators(conv: Any, arrays: Mapping[str, Any]) -> tuple[Any, list[Any]]:
    """Return K, and the penalties P0 and P1 of which there are arrays, all of a class."""
    sets: dict[str, dict[str, Any]] = {}
    for name, array in arrays.items():
        *whose, own = name.split(".")
        sets.setdefault("".join(whose), {})[own] = array
    conv, of_k = conv.asarrays(array), sets.pop("")  # JAX sorts the names
    return conv.replace(**of_k), [conv.replace(**other) for other in sets.values()]


def _solved(operators: Any, y: Any, damp: Any = 0.0, **arrays: Any) -> Any:
    conv, penalties = operators(arrays)
    return conv.least_squares(y, damp, penalties or None)


def _suggested(operators: Any, y: Any, sigma: float, each: bool, **arrays: Any) -> Any:
    return ic.damp_for_noise(operators(arrays)[0], y, sigma, each=each)


def _least(operators: Any, y: Floats, damp: Any = 0.0, **arrays: Floats) -> Any:
    conv, penalties = operators(arrays)
    matrix, shift = oracle.affine(conv, y.shape[2:])
    rows = (y.reshape(len(y), -1) - shift).astype(float)
    below = [oracle.affine(one, y.shape[2:])[0] for one in penalties] or [np.eye(len(matrix))]
    aims = np.concatenate([rows, *(0 * rows for _ in below)], axis=1)
    found = []
    for aim, number in zip(aims, np.broadcast_to(damp, len(y)), strict=True):
        stacked = np.concatenate([matrix, *(float(number) * one for one in below)]).astype(float)
        found.append(np.linalg.lstsq(stacked, aim)[0])
    return np.stack(found).reshape(y.shape)


def _discrepancy(operators: Any, y: Floats, sigma: float, each: bool, **arrays: Floats) -> Floats:
    """Return the damp that leaves a misfit as large as the noise, by the dense singular values."""
    if each:
        return np.stack([_discrepancy(operators, one[None], sigma, False, **arrays) for one in y])
    matrix, shift = oracle.affine(operators(arrays)[0], y.shape[2:])
    u, s, _ = np.linalg.svd(matrix.astype(float))
    parts = ((y.reshape(len(y), -1) - shift).astype(float) @ u) ** 2

    def excess(log_damp: float) -> float:
        damp = math.exp(2 * log_damp)
        return float((parts * (damp / (damp + s**2)) ** 2).sum() - y.size * sigma**2)

    return np.asarray(math.exp(scipy.optimize.brentq(excess, -20, 20)))


def _squeeze() -> Iterator[Called]:
    for factor, ndim, basis in itertools.product((2, 3, 4), (1, 2, 3), ("pixels", "haar", "dct")):
        if (basis, factor) == ("haar", 3):  # Haar takes powers of 2 alone
            continue
        options: dict[str, Any] = {"factor": factor, "ndim": ndim, "basis": basis}
        few = (2, 1, 2)[:ndim]
        wide = tuple(factor * n for n in few)
        for function, truth, shape in (
            (ic.squeeze, _squeezed, (2, 2, *wide)),
            (ic.unsqueeze, _unsqueezed, (2, 2 * factor**ndim, *few)),
        ):
            name = f"{function.__name__}-{'-'.join(map(str, options.values()))}"
            exact, arrays = basis == "pixels", {"x": _draw(shape)}
            yield _row(name, function, truth, arrays, exact=exact, **options)


def _squeezed(x: Floats, factor: int, ndim: int, basis: str) -> Floats:
    few = tuple(n // factor for n in x.shape[2:])
    return _turned(_bands(few, factor, basis), (2 * factor**ndim, *few), x)


def _unsqueezed(x: Floats, factor: int, ndim: int, basis: str) -> Floats:
    few = x.shape[2:]
    return _turned(_bands(few, factor, basis).T, (2, *(factor * n for n in few)), x)


@functools.cache
def _bands(few: Shape, factor: int, basis: str) -> Floats:
    """Return the matrix of a squeeze of two channels, block by block."""
    one = np.eye(factor) if basis == "pixels" else oracle.block_transform(basis, factor)
    block = functools.reduce(np.kron, [one.astype(float)] * len(few))
    matrix = np.zeros((2, len(block), *few, 2, *(factor * n for n in few)))
    for c, band, *p in np.ndindex(2, len(block), *few):
        pixels = (slice(factor * i, factor * (i + 1)) for i in p)
        matrix[(c, band, *p, c, *pixels)] = block[band].reshape([factor] * len(few))
    return matrix.reshape(2 * len(block) * math.prod(few), -1)


def _turned(matrix: Floats, shape: Shape, x: Floats) -> Floats:
    return (x.reshape(len(x), -1) @ matrix.T).reshape(len(x), *shape)


def _blocks() -> Iterator[Called]:
    kinds: tuple[tuple[str, Shape, dict[str, Any]], ...] = (
        ("", (3, 2), {}),
        ("raster-", (2, 3), {"mask": "raster"}),
        ("signal-", (3,), {}),
    )
    for (kind, taps, mask), direction, dilation in itertools.product(kinds, (1, -1), (1, 2)):
        ways = direction if mask else (direction, 1)[: len(taps)]
        options = {"direction": ways, "dilation": (dilation, 1)[: len(taps)]} | mask
        conv = _small(ic.AutoregressiveConv, taps, len(taps), **options)
        arrays = {"x": _draw((2, 2, 7, 3)[: 2 + len(taps)]), **conv.parameters()}
        name, depth = f"before-{kind}{direction:+}-dilation-{dilation}", dilation * (taps[0] - 1)
        # two rows: the last or, with taps ahead, the first; and the rows that they see
        rows = slice(5, 7), slice(5 - depth, 5)
        if direction == -1:
            rows = slice(2), slice(2, 2 + depth)
        yield _row(name, _in_two, _whole, arrays, conv, *rows)


def _in_two(conv: Any, block: slice, known: slice, x: Any, **arrays: Any) -> Any:
    """Run a block of rows after those that are known."""
    conv, before = conv.asarrays(x).replace(**arrays), x[:, :, known, ...]
    y = conv.forward(x[:, :, block, ...], before=before)
    return y, conv.inverse(y, before=before)


def _whole(conv: Any, block: slice, known: slice, x: Floats, **arrays: Floats) -> Any:
    matrix, shift = oracle.affine(conv.replace(**arrays), x.shape[2:])
    y = _turned(matrix, x.shape[1:], x) + shift.reshape(x.shape[1:])
    return y.astype(float)[:, :, block], x[:, :, block]


def _without_poles() -> Iterator[Called]:
    """Yield calls whose denominator is an array of one number, the first one along one axis."""
    draw = np.random.default_rng(51).standard_normal
    a, b = 1.5 + draw((3, 4, 1)) ** 2, draw((2, 1, 4, 2))
    arrays = {"x": draw((3, 4, 6)), "b": b[0, 0, 1], "a": a[0], "zi": draw((3, 4, 1))}
    truth = functools.partial(_each, scipy.signal.lfilter)
    yield _row("lfilter-each-no-poles", ic.lfilter, truth, arrays)
    arrays = {"b": b, "a": a, "x": draw((2, 3, 4)), "zi": draw((2, 3, 2))}
    name, run = "varying_lfilter-no-poles", ic.varying_lfilter
    yield _row(name, run, _sample_by_sample, arrays, axis=-1)


# offsets, whether samples and channels have taps of their own, and whether there is a gain
_REACH: dict[str, tuple[tuple[tuple[int, ...], ...], tuple[bool, bool], bool]] = {
    "rows": (((-1, -1), (-1, 0), (-1, 1)), (True, True), False),
    "columns-back": (((-1, 1), (0, 1), (1, 1)), (True, False), True),
    "corner": (((-1, 0), (0, -1)), (False, True), True),
    "raster-back": (((1, -1), (1, 1), (0, 2)), (False, False), False),
    "line": (((-2,), (-1,), (-9,)), (True, True), True),
    "volume": (((0, 0, -1), (0, 1, -1), (1, 0, -1)), (True, True), False),
}


def _over_pixels() -> Iterator[Called]:
    draw = np.random.default_rng(52).standard_normal
    for name, (offsets, own, gained) in _REACH.items():
        grid = {1: (7,), 2: (4, 5), 3: (2, 3, 3)}[len(offsets[0])]
        lead = tuple(n if each else 1 for n, each in zip((2, 3), own, strict=True))
        arrays = {"x": draw((2, 3, *grid)), "taps": draw((*lead, len(offsets), *grid)) / 3}
        if gained:
            arrays["gain"] = 1.5 + draw((*lead, *grid)) ** 2
        yield _row(f"propagate-{name}", ic.propagate, _pixel_by_pixel, arrays, offsets=offsets)
        back = {"h": arrays["x"], **{n: a for n, a in arrays.items() if n != "x"}}
        yield _row(f"unpropagate-{name}", ic.unpropagate, _stencil, back, offsets=offsets)


def _pixel_by_pixel(x: Floats, taps: Floats, offsets: Any, gain: Any = 1.0) -> Any:
    """Compute every pixel once the pixels that it reads are known, in any possible order."""
    h, taps, left = gain * x, taps + 0 * x[:, :, None], list(np.ndindex(x.shape[2:]))
    while left:
        p = left.pop(0)
        near = [tuple(np.add(p, o)) for o in offsets]
        if any(q in left for q in near):
            left.append(p)
            continue
        for k, q in enumerate(near):
            if all(0 <= i < n for i, n in zip(q, x.shape[2:], strict=True)):
                h[:, :, *p] += taps[:, :, k, *p] * h[:, :, *q]
    return h


def _stencil(h: Floats, taps: Floats, offsets: Any, gain: Any = 1.0) -> Any:
    ends = [(max(map(abs, along)),) * 2 for along in zip(*offsets, strict=True)]
    wide, x = np.pad(h, [(0, 0), (0, 0), *ends]), h
    for k, offset in enumerate(offsets):
        starts = (e + o for (e, _), o in zip(ends, offset, strict=True))
        there = (slice(s, s + n) for s, n in zip(starts, h.shape[2:], strict=True))
        x = x - taps[:, :, k] * wide[:, :, *there]
    return x / gain


_FILTERING = (_lfilter, _sosfilt, _both_ways, _filters_of_their_own, _steady, _varying)
_SOLVING = (_from_psf, _splines, _points, _least_squares, _functions_of_operators, _stars)
_TABLE = (_over_pixels, _without_poles, *_FILTERING, *_SOLVING, _squeeze, _blocks)
CALLS: tuple[Called, ...] = tuple(call for rows in _TABLE for call in rows())
