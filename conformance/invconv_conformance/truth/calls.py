"""What calls of public functions are to return: SciPy's numbers, or those of a dense matrix."""

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.optimize
import scipy.signal

from invconv_conformance.truth import oracle
from invconv_conformance.truth.oracle import Shape

Floats = np.ndarray[Any, Any]


def truth_of(name: str) -> Callable[..., Any]:
    """Return the reference of a call, a function of NumPy float64 arrays."""
    return _TRUTHS.get(name) or _TRUTHS[name.partition("-")[0]]


def _filtered(*numbers: Any, x: Floats, axis: int, zi: Any = None) -> Any:
    pair = len(numbers) == 2
    run: Any = scipy.signal.lfilter if pair else scipy.signal.sosfilt
    if zi is None:
        return run(*numbers, x, axis)
    shape = [*x.shape] if pair else [len(numbers[0]), *x.shape]
    place = axis % x.ndim + len(shape) - x.ndim
    shape[place] = zi.shape[place]
    return run(*numbers, x, axis, zi=np.broadcast_to(zi, shape))


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


def _convolved(boundary: Any, psf: Floats, x: Floats) -> Floats:
    words = boundary if isinstance(boundary, tuple) else (boundary,) * 2
    sizes = psf.shape[-len(words) :]
    for axis, (word, n) in enumerate(zip(words, sizes, strict=True), 2):
        x = oracle.continued(x, axis, n // 2, word)
    functions = psf.reshape(1, -1, *sizes)
    parts = [scipy.signal.convolve(x[:, c], functions[:, c], "valid") for c in range(x.shape[1])]
    return np.stack(parts, 1)


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


def _least(operators: Any, y: Floats, damp: Any = 0.0, **arrays: Floats) -> Any:
    conv, penalties = operators(arrays)
    matrix, shift = oracle.affine(conv, y.shape[2:])
    rows = (y.reshape(len(y), -1) - shift).astype(float)
    below = [oracle.affine(one, y.shape[2:])[0] for one in penalties] or [np.eye(len(matrix))]
    stacked = np.concatenate([matrix, *(float(damp) * one for one in below)]).astype(float)
    aims = np.concatenate([rows, *(0 * rows for _ in below)], axis=1)
    return np.linalg.lstsq(stacked, aims.T)[0].T.reshape(y.shape)


def _discrepancy(operators: Any, y: Floats, sigma: float, **arrays: Floats) -> Floats:
    """Return the damp that leaves as much as noise is in y, by the dense singular values."""
    matrix, shift = oracle.affine(operators(arrays)[0], y.shape[2:])
    u, s, _ = np.linalg.svd(matrix.astype(float))
    parts = ((y.reshape(len(y), -1) - shift).astype(float) @ u) ** 2

    def excess(log_damp: float) -> float:
        damp = math.exp(2 * log_damp)
        return float((parts * (damp / (damp + s**2)) ** 2).sum() - y.size * sigma**2)

    return np.asarray(math.exp(scipy.optimize.brentq(excess, -20, 20)))


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


def _whole(conv: Any, block: slice, known: slice, x: Floats, **arrays: Floats) -> Any:
    matrix, shift = oracle.affine(conv.replace(**arrays), x.shape[2:])
    y = _turned(matrix, x.shape[1:], x) + shift.reshape(x.shape[1:])
    return y.astype(float)[:, :, block], x[:, :, block]


_FILTERS = "lfilter", "filtfilt", "sosfilt", "sosfiltfilt", "lfilter_zi", "sosfilt_zi"
_SCIPY: dict[str, Callable[..., Any]] = {name: getattr(scipy.signal, name) for name in _FILTERS}
_TRUTHS = _SCIPY | {f"{name}-each": functools.partial(_each, run) for name, run in _SCIPY.items()}
_TRUTHS |= {"lfilter": _filtered, "sosfilt": _filtered, "varying_lfilter": _sample_by_sample}
_TRUTHS |= {"from_psf": _convolved, "spline_filter": _interpolated, "before": _whole}
_TRUTHS |= {"least_squares": _least, "damp_for_noise": _discrepancy}
_TRUTHS["lfilter-each-no-poles"] = _TRUTHS["lfilter-each"]
_TRUTHS |= {"squeeze": _squeezed, "unsqueeze": _unsqueezed}
