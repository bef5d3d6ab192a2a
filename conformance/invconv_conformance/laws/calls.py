"""Calls of every public function, each with the truth by SciPy or a dense matrix.

A new function is a row of `CALLS` for each value of its options that is not the default, in pairs.
"""

import functools
import itertools
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.optimize
import scipy.signal

import invconv as ic
from invconv_conformance.cases.case import Case, Shape, perturbed, with_bias
from invconv_conformance.truth import oracle

Floats = np.ndarray[Any, Any]


@dataclass(frozen=True, kw_only=True)
class Called(Case):
    """A call of a function with arrays, by their names."""

    build: Any = None  # it is about no operator
    spatial_shape: Shape = ()
    arrays: Mapping[str, Floats]
    run: Callable[..., Any]
    truth: Callable[..., Any]  # of the same arrays in NumPy's float64
    looks: bool = False  # at values, and returns a float: it is not traced or differentiated
    exact: bool = False  # moves numbers alone


_rng = np.random.default_rng(50)
_draw = _rng.standard_normal

# numbers that all dtypes have; the numerator is longer, the denominator is, there is none
_FILTERS: dict[str, tuple[Any, Any]] = {
    "long-b": ([0.0, 0.25, 1.0, -0.5], [2.0, -0.5]),
    "long-a": ([0.75], [1.0, -0.5, 0.25]),
    "numbers": ([0.5, 0.25], 1),
}
_SOS = np.asarray([[0.5, 0.25, 0, 1, -0.5, 0], [1, 0, -1, 1, 0.5, 0.25]])


def _lfilter() -> Iterator[Called]:
    for (design, (b, a)), axis, state in itertools.product(
        _FILTERS.items(), (-1, 0, 1), ("none", "whole", "shared")
    ):
        order, shape = max(np.size(b), np.size(a)) - 1, [3, 5, 4]
        shape[axis] = order
        zi = {} if state == "none" else {"zi": _draw(shape)}
        if state == "shared":
            zi["zi"] = zi["zi"][tuple(slice(None if n == axis % 3 else 1) for n in range(3))]
        yield _filter(f"lfilter-{design}-{axis}-{state}", ic.lfilter, (b, a), axis, zi)


def _filter(name: str, run: Any, numbers: Any, axis: int, zi: dict[str, Floats]) -> Called:
    theirs: Any = getattr(scipy.signal, run.__name__)

    def truth(x: Floats, zi: Any = None) -> Any:
        if zi is None:
            return theirs(*numbers, x, axis)
        shape = [*x.shape] if run is ic.lfilter else [len(numbers[0]), *x.shape]
        place = axis % x.ndim + len(shape) - x.ndim
        shape[place] = zi.shape[place]
        return theirs(*numbers, x, axis, zi=np.broadcast_to(zi, shape))

    arrays = {"x": _draw((3, 5, 4)), **zi}
    return Called(name, arrays=arrays, run=functools.partial(run, *numbers, axis=axis), truth=truth)


def _sosfilt() -> Iterator[Called]:
    for axis, state in itertools.product((-1, 0, 1), (False, True)):
        shape = [2, 3, 5, 4]
        shape[axis % 3 + 1] = 2
        zi = {"zi": _draw(shape)} if state else {}
        yield _filter(f"sosfilt-{axis}{'-zi' * state}", ic.sosfilt, (_SOS,), axis, zi)


def _both_ways() -> Iterator[Called]:
    for (design, numbers), axis, padtype, padlen in itertools.product(
        _FILTERS.items(), (-1, 1), ("odd", "even", "constant", None), (None, 2)
    ):
        options: Any = {"axis": axis, "padtype": padtype, "padlen": padlen}
        arrays, name = {"x": _draw((2, 14, 16))}, f"filtfilt-{design}-{axis}-{padtype}-{padlen}"
        pair: Any = ic.filtfilt, scipy.signal.filtfilt
        if design == "numbers":
            pair, numbers = (ic.sosfiltfilt, scipy.signal.sosfiltfilt), (_SOS,)
            name = f"sos{name}"
        run, truth = (functools.partial(f, *numbers, **options) for f in pair)
        yield Called(name, arrays=arrays, run=run, truth=truth)


def _filters_of_their_own() -> Iterator[Called]:
    """Yield calls whose coefficients have axes before the last that broadcast to those of x."""
    pair: dict[str, Any] = {"b": _draw((3, 1, 2)), "a": 0.3 * _draw((4, 3)) + [1.5, 0, 0]}
    sections = {"sos": 0.3 * _draw((3, 1, 2, 6)) + [0, 0, 0, 1.5, 0, 0]}
    padded: dict[str, Any] = {"padlen": 4}
    for name, given, options in (
        ("lfilter", pair | {"zi": _draw((3, 4, 2))}, {}),
        ("filtfilt", pair, padded),
        ("sosfilt", sections | {"zi": _draw((2, 3, 4, 2))}, {}),
        ("sosfiltfilt", sections, padded),
    ):
        ours, theirs = (functools.partial(getattr(m, name), **options) for m in (ic, scipy.signal))
        arrays, truth = {"x": _draw((3, 4, 6)), **given}, functools.partial(_each, theirs)
        yield Called(f"{name}-each", arrays=arrays, run=ours, truth=truth)


def _each(run: Any, x: Floats, zi: Any = None, **coefficients: Floats) -> Any:
    """Filter one signal after the other."""
    found, names = [], [n for n in ("b", "a", "sos") if n in coefficients]
    for p in np.ndindex(3, 4):
        given = [np.ascontiguousarray(coefficients[n]) for n in names]
        given = [np.broadcast_to(v, (3, 4, *v.shape[len(names) - 3 :]))[p] for v in given]
        if len(given) == 1:
            given[0] = given[0] / given[0][:, 3:4]  # SciPy's sections have a[0] = 1
        found.append(run(*given, x[p]) if zi is None else run(*given, x[p], zi=zi[..., *p, :]))
    if zi is None:
        return np.reshape(found, x.shape)
    y, last = (np.stack(parts, -2) for parts in zip(*found, strict=True))
    return y.reshape(x.shape), last.reshape(zi.shape)


def _steady() -> Iterator[Called]:
    for design, (b, a) in list(_FILTERS.items())[:2]:
        arrays = {"b": np.asarray(b), "a": np.asarray(a)}
        pair: Any = ic.lfilter_zi, scipy.signal.lfilter_zi
        yield Called(f"lfilter_zi-{design}", arrays=arrays, run=pair[0], truth=pair[1])
    pair = ic.sosfilt_zi, scipy.signal.sosfilt_zi
    yield Called("sosfilt_zi", arrays={"sos": _SOS}, run=pair[0], truth=pair[1])


def _varying() -> Iterator[Called]:
    for n, (kb, ka), axis, state in itertools.product((2, 70), ((3, 2), (1, 3)), (-1, 0), (0, 1)):
        a = 0.3 * _draw((3, n, ka)) + 1.5 * (np.arange(ka) == 0)
        arrays = {"b": _draw((2, 1, n, kb)), "a": a, "x": np.moveaxis(_draw((2, 3, n)), -1, axis)}
        if state:
            arrays["zi"] = np.moveaxis(_draw((2, 3, 2 * (max(kb, ka) - 1))), -1, axis)
        name = f"varying_lfilter-{n}-{kb}-{ka}-{axis}{'-zi' * state}"
        run, truth = (
            functools.partial(f, axis=axis) for f in (ic.varying_lfilter, _sample_by_sample)
        )
        yield Called(name, arrays=arrays, run=run, truth=truth)


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
        blur = functools.partial(_blurred, boundary)
        x = _draw((2, 1 + several, *(4, 6, 3)[: len(both)]))
        arrays = {"psf": psf if several else psf[0], "x": x}
        name = f"from_psf-{'-'.join(both if boundary is both else [boundary])}{'-each' * several}"
        yield Called(name, arrays=arrays, run=blur, truth=functools.partial(_convolved, both))


def _blurred(boundary: Any, psf: Any, x: Any) -> Any:
    return ic.from_psf(psf, boundary=boundary).forward(x)


def _convolved(words: tuple[str, ...], psf: Floats, x: Floats) -> Floats:
    sizes = psf.shape[-len(words) :]
    for axis, (word, n) in enumerate(zip(words, sizes, strict=True), 2):
        x = oracle.continued(x, axis, n // 2, word)
    functions = psf.reshape(1, -1, *sizes)
    parts = [scipy.signal.convolve(x[:, c], functions[:, c], "valid") for c in range(x.shape[1])]
    return np.stack(parts, 1)


_KNOTS = {2: (1, 6, 1), 3: (1, 4, 1), 4: (1, 76, 230, 76, 1), 5: (1, 26, 66, 26, 1)}
_MODES = {"mirror": "mirror", "reflect": "symmetric", "grid-wrap": "periodic"}


def _splines() -> Iterator[Called]:
    for order, mode, axes in itertools.product(_KNOTS, _MODES, (None, 1, (-1, 0))):
        options: dict[str, Any] = {"order": order, "mode": mode, "axes": axes}
        run, truth = (functools.partial(f, **options) for f in (ic.spline_filter, _interpolated))
        name = "-".join(map(str, ("spline_filter", *options.values())))
        yield Called(name, arrays={"x": _draw((3, 5, 2))}, run=run, truth=truth)


def _interpolated(x: Floats, order: int, mode: str, axes: Any) -> Floats:
    """Solve for the coefficients with the matrix of a spline's values, which SciPy's tests use."""
    knots = np.asarray(_KNOTS[order]) / sum(_KNOTS[order])
    taps = [((j - len(knots) // 2,), knot * np.eye(1)) for j, knot in enumerate(knots)]
    for axis in range(3) if axes is None else np.atleast_1d(axes):
        matrix = oracle.correlate(taps, (x.shape[axis],), _MODES[mode]).astype(float)
        x = np.moveaxis(np.tensordot(np.linalg.inv(matrix), x, (1, axis)), 0, axis)
    return x


def _least_squares() -> Iterator[Called]:
    for conv, grid in _SOLVED:
        name, arrays = (
            type(conv).__name__.lower(),
            {"y": _draw((2, conv.channels, *grid))} | conv.parameters(),
        )
        of, truth = functools.partial(_solved, conv), functools.partial(_least, grid, conv)
        yield Called(f"least_squares-{name}-none", arrays=arrays, run=of, truth=truth)
        given = {**arrays, "damp": np.asarray(0.75)}
        yield Called(f"least_squares-{name}-array", arrays=given, run=of, truth=truth)
        for count in (1, 2):
            more = {f"P{k}.{n}": _draw(a.shape) for k in range(count) for n, a in arrays.items()}
            more = given | {n: a for n, a in more.items() if not n.endswith(".y")}
            yield Called(f"least_squares-{name}-by-{count}", arrays=more, run=of, truth=truth)
        of, truth = (functools.partial(f, damp=0.5) for f in (of, truth))
        yield Called(f"least_squares-{name}-number", arrays=arrays, run=of, truth=truth)
        of = functools.partial(_suggested, conv)
        truth = functools.partial(_discrepancy, grid, conv)
        yield Called(f"damp_for_noise-{name}", arrays=arrays, run=of, truth=truth, looks=True)


def _small(cls: Any, *sizes: Any, channels: int = 2, **options: Any) -> Any:
    return with_bias(perturbed(cls.init(channels, *sizes, rng=_rng, **options), _rng), _rng)


_SOLVED: list[tuple[Any, Shape]] = [
    (_small(ic.PeriodicConv, 3, 2, dilation=(1, 2)), (3, 4)),
    (_small(ic.SymmetricConv, 3, 2, boundary=("odd", "periodic"), channels=1), (3, 4)),
    (_small(ic.Conv1x1, ndim=1), (5,)),
    (_small(ic.CirculantConv1x1, ndim=1), (5,)),
    (_small(ic.ActNorm, ndim=1), (5,)),
]
_SIGMA = 0.5


def _solved(conv: Any, y: Any, damp: Any = 0.0, **arrays: Any) -> Any:
    conv, penalties = _operators(conv.asarrays(y), arrays)
    return conv.least_squares(y, damp, penalties or None)


def _operators(conv: Any, arrays: Mapping[str, Any]) -> tuple[Any, list[Any]]:
    """Return K, and the penalties P0 and P1 of which there are arrays, all of a class."""
    sets: dict[str, dict[str, Any]] = {}
    for name, array in arrays.items():
        *whose, own = name.split(".")
        sets.setdefault("".join(whose), {})[own] = array
    of_k = sets.pop("")  # JAX sorts the names
    return conv.replace(**of_k), [conv.replace(**other) for other in sets.values()]


def _suggested(conv: Any, y: Any, **arrays: Any) -> float:
    return ic.damp_for_noise(conv.asarrays(y).replace(**arrays), y, _SIGMA)


def _least(grid: Shape, conv: Any, y: Floats, damp: Any = 0.0, **arrays: Floats) -> Any:
    conv, penalties = _operators(conv, arrays)
    matrix, shift = oracle.affine(conv, grid)
    rows = (y.reshape(len(y), -1) - shift).astype(float)
    below = [oracle.affine(one, grid)[0] for one in penalties] or [np.eye(len(matrix))]
    stacked = np.concatenate([matrix, *(float(damp) * one for one in below)]).astype(float)
    aims = np.concatenate([rows, *(0 * rows for _ in below)], axis=1)
    return np.linalg.lstsq(stacked, aims.T)[0].T.reshape(y.shape)


def _discrepancy(grid: Shape, conv: Any, y: Floats, **arrays: Floats) -> Floats:
    """Return the damp that leaves as much as noise is in y, by the dense singular values."""
    matrix, shift = oracle.affine(conv.replace(**arrays), grid)
    u, s, _ = np.linalg.svd(matrix.astype(float))
    parts = ((y.reshape(len(y), -1) - shift).astype(float) @ u) ** 2

    def excess(log_damp: float) -> float:
        damp = math.exp(2 * log_damp)
        return float((parts * (damp / (damp + s**2)) ** 2).sum() - y.size * _SIGMA**2)

    return np.asarray(math.exp(scipy.optimize.brentq(excess, -20, 20, xtol=1e-12)))


def _squeeze() -> Iterator[Called]:
    for factor, ndim, basis in itertools.product((2, 3, 4), (1, 2, 3), ("pixels", "haar", "dct")):
        if (basis, factor) == ("haar", 3):  # powers of 2 alone
            continue
        options: dict[str, Any] = {"factor": factor, "ndim": ndim, "basis": basis}
        few = (2, 1, 2)[:ndim]
        matrix = _bands(few, **options)
        shapes = (2, 2, *(factor * n for n in few)), (2, 2 * factor**ndim, *few)
        for function, one, other in ((ic.squeeze, 0, 1), (ic.unsqueeze, 1, 0)):
            yield Called(
                f"{function.__name__}-{'-'.join(map(str, options.values()))}",
                arrays={"x": _draw(shapes[one])},
                run=functools.partial(function, **options),
                truth=functools.partial(_turned, (matrix, matrix.T)[one], shapes[other]),
                exact=basis == "pixels",
            )


def _bands(few: Shape, factor: int, ndim: int, basis: str) -> Floats:
    """Return the matrix of a squeeze of two channels, block by block."""
    one = np.eye(factor) if basis == "pixels" else oracle.block_transform(basis, factor)
    block = functools.reduce(np.kron, [one.astype(float)] * ndim)
    matrix = np.zeros((2, len(block), *few, 2, *(factor * n for n in few)))
    for c, band, *p in np.ndindex(2, len(block), *few):
        pixels = (slice(factor * i, factor * (i + 1)) for i in p)
        matrix[(c, band, *p, c, *pixels)] = block[band].reshape([factor] * ndim)
    return matrix.reshape(2 * len(block) * math.prod(few), -1)


def _turned(matrix: Floats, shape: Shape, x: Floats) -> Floats:
    return (x.reshape(len(x), -1) @ matrix.T).reshape(shape)


def _blocks() -> Iterator[Called]:
    for direction, dilation in itertools.product((1, -1), (1, 2)):
        options: dict[str, Any] = {"direction": (direction, 1), "dilation": (dilation, 1)}
        conv = _small(ic.AutoregressiveConv, (3, 2), **options)
        arrays = {"x": _draw((2, 2, 7, 3)), **conv.parameters()}
        name = f"before-{direction:+}-dilation-{dilation}"
        truth = functools.partial(_whole, conv)
        cut = functools.partial(_in_two, conv, 2 * dilation)
        yield Called(name, arrays=arrays, run=cut, truth=truth)


def _in_two(conv: Any, reach: int, x: Any, **arrays: Any) -> Any:
    """Run a block of two rows, the last or, where taps are ahead, the first."""
    conv = conv.asarrays(x).replace(**arrays)
    known = slice(5 - reach, 5) if conv.direction[0] == 1 else slice(2, 2 + reach)
    before = x[:, :, known, :]
    y = conv.forward(x[:, :, _block(conv), :], before=before)
    return y, conv.inverse(y, before=before)


def _block(conv: Any) -> slice:
    return slice(5, 7) if conv.direction[0] == 1 else slice(2)


def _whole(conv: Any, x: Floats, **arrays: Floats) -> Any:
    matrix, shift = oracle.affine(conv.replace(**arrays), x.shape[2:])
    y = (x.reshape(len(x), -1) @ matrix.T + shift).reshape(x.shape).astype(float)
    return y[:, :, _block(conv)], x[:, :, _block(conv)]


_FILTERING = (_lfilter, _sosfilt, _both_ways, _filters_of_their_own, _steady, _varying)
_TABLE = (*_FILTERING, _from_psf, _splines, _least_squares, _squeeze, _blocks)
CALLS: tuple[Called, ...] = tuple(call for rows in _TABLE for call in rows())
