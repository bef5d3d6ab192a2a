"""The laws of the public functions: SciPy's numbers, from any memory, with their derivatives."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from invconv.arrays.namespaces import Array, dtype_name, ops_of, to_numpy
from invconv_conformance.laws.law import Floats, Measure, law, same, truth, values
from invconv_conformance.laws.setting import REPEATED, Setting
from invconv_conformance.truth.bounds import C_FACTOR, EPS

_STEP, _DRAWS = 1e-5, 4  # the step of differences of the float64 truth; the number of directions
_TINY = float(np.finfo(float).tiny)
_CLOSE = 2e-4  # relative error of the damp that `damp_for_noise` finds


def _results(found: Any) -> tuple[Any, ...]:
    found = np.asarray(found) if isinstance(found, float) else found
    return found if isinstance(found, tuple) else (found,)


def _wanted(s: Setting, arrays: dict[str, Array]) -> list[tuple[Floats, float]]:
    """Return the true results of some arrays, each with its bound.

    A result may move as far as it does where each number is rounded anew, times c m; half types are
    computed in float32, and cast.
    """
    call: Any = s.case
    numbers = {name: values(a).astype(float) for name, a in arrays.items()}
    right = [np.asarray(a, float) for a in _results(call.truth(**numbers))]
    reach, rng = np.zeros(len(right)), s.case.rng()
    for _ in range(_DRAWS):
        near = {n: a * (1 + _STEP * rng.choice((-1, 1), a.shape)) for n, a in numbers.items()}
        moved = _results(call.truth(**near))
        gaps = [np.linalg.norm(a - b) for a, b in zip(moved, right, strict=True)]
        reach = np.maximum(reach, np.asarray(gaps) / _STEP)
    terms = max(max(a.shape, default=1) for a in numbers.values())
    wanted, unit = [], C_FACTOR * terms * EPS[s.log_det_dtype]
    for a, r in zip(right, reach, strict=True):
        size = np.asarray(np.linalg.norm(a))
        rounding = 0.0 if call.exact else unit * r + s.cast(size, a.size)
        wanted.append((a, float(rounding + _CLOSE * size * call.looks + _TINY)))
    return wanted


def _off(what: str, found: tuple[Any, ...], wanted: list[tuple[Floats, float]]) -> list[Measure]:
    measures = []
    for n, (array, (right, bound)) in enumerate(zip(found, wanted, strict=True)):
        fits = np.shape(array) == right.shape
        gap = float(np.linalg.norm(np.asarray(values(array) - right, float))) if fits else np.inf
        measures.append(Measure(f"{what}, result {n}", gap, bound))
    return measures


@law("function.value", "SciPy, or the dense matrix", functions=True)
def value(s: Setting) -> Iterator[Measure]:
    """|f(x) - SciPy's| is at most c m times what rounding the arguments may move, and the result
    has their library, dtype and device.
    """
    call: Any = s.case
    if call.looks and not s.target.looks:
        return
    arrays = {name: s.array(a) for name, a in call.arrays.items()}
    found = _results(s.target.compile(call.function)(**arrays))
    yield from _off("in compact memory", found, _wanted(s, arrays))
    x = next(iter(arrays.values()))
    for n, array in enumerate(() if call.looks else found):
        alike = ops_of(array).name == ops_of(x).name and dtype_name(array.dtype) == s.dtype
        yield truth(alike, f"library and dtype of result {n}")
        one, other = (getattr(a, "device", None) for a in (array, x))
        yield truth(one == other, f"device of result {n}")


@law("function.memory", eager=True, functions=True)
def memory(s: Setting) -> Iterator[Measure]:
    """Views of any strides, read-only memory and foreign byte orders give the same values;
    arguments keep theirs, and an edit of a result changes none.
    """
    call: Any = s.case
    wanted: dict[bool, list[tuple[Floats, float]]] = {}
    for how, held in s.memories().items():
        other, first = how == REPEATED, next(iter(call.arrays))
        if call.looks and other:  # two copies of an image may leave nothing but noise
            continue
        ways = {n: held if n == first or not other else s.array for n in call.arrays}
        arrays = {name: ways[name](a) for name, a in call.arrays.items()}
        wanted[other] = wanted.get(other) or _wanted(s, arrays)
        before = {name: to_numpy(a).copy() for name, a in arrays.items()}
        found = _results(call.function(**arrays))
        yield from _off(how, found, wanted[other])
        for result in () if call.looks else found:
            result[...] = 7.0
        for name, array in arrays.items():
            yield same(array, before[name], f"{how}, {name} is as it was")


@law("function.gradient", "central differences of SciPy's", functions=True)
def gradient(s: Setting) -> Iterator[Measure]:
    """The library's own differentiation gives the slopes of the truth, by each argument."""
    call: Any = s.case
    pullback = s.target.library.pullback
    if pullback is None or call.looks or s.dtype not in ("float64", "float32"):
        return
    rng = s.case.rng()
    numbers = dict(call.arrays)
    bars = [rng.standard_normal(np.shape(a)) for a in _results(call.truth(**numbers))]

    def run(parameters: dict[str, Array], unused: Array) -> tuple[Any, ...]:
        return _results(call.function(**parameters))

    arrays = {name: s.array(a) for name, a in numbers.items()}
    found, _ = pullback(run, arrays, s.array(np.zeros(())), tuple(map(s.array, bars)))
    unit = max(1e-7, 1e2 * EPS[s.dtype])
    for name, array in numbers.items():
        way = rng.standard_normal(np.shape(array))
        if name == "psf":  # it has to be even
            way = array
        moved = (numbers | {name: array + h * way} for h in (_STEP, -_STEP))
        ends = [_results(call.truth(**near)) for near in moved]
        slope = sum(float((b * (x - y)).sum()) for b, x, y in zip(bars, *ends, strict=True))
        size = sum(float(np.abs(b * x).sum()) for b, x in zip(bars, ends[0], strict=True))
        slope, terms = slope / (2 * _STEP), values(found[name]) * way
        size += float(np.abs(terms).sum())
        yield Measure(f"by {name}", abs(float(terms.sum()) - slope), unit * size)
