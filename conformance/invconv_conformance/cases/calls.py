"""Calls of every public function; `truth.calls` has what they return.

A new function is a row of `CALLS` for each value of its options that is not the default, in pairs.
"""

import functools
import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

import invconv as ic
from invconv_conformance.cases.case import Case, Shape, perturbed, with_bias

Floats = np.ndarray[Any, Any]


@dataclass(frozen=True, kw_only=True)
class Called(Case):
    """A call of a function with arrays, by their names; a row's name begins with the function's."""

    build: Any = None  # it is about no operator
    spatial_shape: Shape = ()
    arrays: Mapping[str, Floats]
    function: Callable[..., Any]
    given: tuple[Any, ...] = ()  # what comes before the arrays
    options: Mapping[str, Any] = field(default_factory=dict)
    looks: bool = False  # at values, and returns a float: it is not traced or differentiated
    exact: bool = False  # moves numbers alone

    def given_to(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return the row's function, or its truth, as one of the arrays alone."""
        return functools.partial(function, *self.given, **self.options)


_rng = np.random.default_rng(50)
_draw = _rng.standard_normal

# numbers that all dtypes have; the numerator is longer, the denominator is, there is none
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
        yield _filter(f"lfilter-{design}-{axis}-{state}", ic.lfilter, (b, a), axis, zi)


def _filter(name: str, run: Any, numbers: Any, axis: int, zi: dict[str, Floats]) -> Called:
    arrays = {"x": _draw((3, 5, 4)), **zi}
    return Called(name, arrays=arrays, function=run, given=numbers, options={"axis": axis})


def _sosfilt() -> Iterator[Called]:
    for axis, state in itertools.product((-1, 0, 1), (False, True)):
        shape = [2, 3, 5, 4]
        shape[axis % 3 + 1] = 2
        zi = {"zi": _draw(shape)} if state else {}
        yield _filter(f"sosfilt-{axis}{'-zi' * state}", ic.sosfilt, (_SOS,), axis, zi)


def _both_ways() -> Iterator[Called]:
    pads = "odd", "even", "constant", None
    every = itertools.product(_FILTERS.items(), (-1, 1), pads, (None, 2))
    for (design, numbers), axis, padtype, padlen in every:
        options: Any = {"axis": axis, "padtype": padtype, "padlen": padlen}
        arrays, name = {"x": _draw((2, 17, 16))}, f"filtfilt-{design}-{axis}-{padtype}-{padlen}"
        run: Any = ic.filtfilt
        if design == "numbers":
            run, numbers, name = ic.sosfiltfilt, (_SOS,), f"sos{name}"
        yield Called(name, arrays=arrays, function=run, given=numbers, options=options)


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
        yield Called(f"{run.__name__}-each", arrays=arrays, function=run, options=options)


def _steady() -> Iterator[Called]:
    for design, (b, a) in list(_FILTERS.items())[:2]:
        arrays = {"b": np.asarray(b), "a": np.asarray(a)}
        yield Called(f"lfilter_zi-{design}", arrays=arrays, function=ic.lfilter_zi)
    yield Called("sosfilt_zi", arrays={"sos": _SOS}, function=ic.sosfilt_zi)


def _varying() -> Iterator[Called]:
    for n, (kb, ka), axis, state in itertools.product((2, 70), ((3, 2), (1, 3)), (-1, 0), (0, 1)):
        a = 0.3 * _draw((3, n, ka)) + 1.5 * (np.arange(ka) == 0)
        arrays = {"b": _draw((2, 1, n, kb)), "a": a, "x": np.moveaxis(_draw((2, 3, n)), -1, axis)}
        if state:
            arrays["zi"] = np.moveaxis(_draw((2, 3, 2 * (max(kb, ka) - 1))), -1, axis)
        name = f"varying_lfilter-{n}-{kb}-{ka}-{axis}{'-zi' * state}"
        yield Called(name, arrays=arrays, function=ic.varying_lfilter, options={"axis": axis})


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
        yield Called(name, arrays=arrays, function=_blurred, given=(boundary,))


def _blurred(boundary: Any, psf: Any, x: Any) -> Any:
    return ic.from_psf(psf, boundary=boundary).forward(x)


def _splines() -> Iterator[Called]:
    modes = "mirror", "reflect", "grid-wrap"
    for order, mode, axes in itertools.product((2, 3, 4, 5), modes, (None, 1, (-1, 0))):
        options: dict[str, Any] = {"order": order, "mode": mode, "axes": axes}
        name, x = "-".join(map(str, ("spline_filter", *options.values()))), _draw((3, 5, 2))
        yield Called(name, arrays={"x": x}, function=ic.spline_filter, options=options)


def _least_squares() -> Iterator[Called]:
    for conv, grid in _SOLVED:
        name = type(conv).__name__.lower()
        arrays = {"y": _draw((2, conv.channels, *grid))} | conv.parameters()
        row = functools.partial(Called, given=(functools.partial(_operators, conv),))
        solved, title = functools.partial(row, function=_solved), f"least_squares-{name}"
        yield solved(f"{title}-none", arrays=arrays)
        given = {**arrays, "damp": np.asarray(0.75)}
        yield solved(f"{title}-array", arrays=given)
        for count in (1, 2):
            more = {f"P{k}.{n}": _draw(a.shape) for k in range(count) for n, a in arrays.items()}
            more = given | {n: a for n, a in more.items() if not n.endswith(".y")}
            yield solved(f"{title}-by-{count}", arrays=more)
        yield solved(f"{title}-number", arrays=arrays, options={"damp": 0.5})
        noise = functools.partial(row, function=_suggested, options={"sigma": 0.5})
        yield noise(f"damp_for_noise-{name}", arrays=arrays, looks=True)


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


def _suggested(operators: Any, y: Any, sigma: float, **arrays: Any) -> float:
    return ic.damp_for_noise(operators(arrays)[0], y, sigma)


def _squeeze() -> Iterator[Called]:
    for factor, ndim, basis in itertools.product((2, 3, 4), (1, 2, 3), ("pixels", "haar", "dct")):
        if (basis, factor) == ("haar", 3):  # powers of 2 alone
            continue
        options: dict[str, Any] = {"factor": factor, "ndim": ndim, "basis": basis}
        few = (2, 1, 2)[:ndim]
        shapes = (2, 2, *(factor * n for n in few)), (2, 2 * factor**ndim, *few)
        for function, shape in zip((ic.squeeze, ic.unsqueeze), shapes, strict=True):
            name = f"{function.__name__}-{'-'.join(map(str, options.values()))}"
            row = functools.partial(Called, function=function, options=options)
            yield row(name, arrays={"x": _draw(shape)}, exact=basis == "pixels")


def _blocks() -> Iterator[Called]:
    for direction, dilation in itertools.product((1, -1), (1, 2)):
        options: dict[str, Any] = {"direction": (direction, 1), "dilation": (dilation, 1)}
        conv = _small(ic.AutoregressiveConv, (3, 2), **options)
        arrays = {"x": _draw((2, 2, 7, 3)), **conv.parameters()}
        name = f"before-{direction:+}-dilation-{dilation}"
        # two rows, the last or, where taps are ahead, the first; and those that they see
        rows = slice(5, 7), slice(5 - 2 * dilation, 5)
        if direction == -1:
            rows = slice(2), slice(2, 2 + 2 * dilation)
        yield Called(name, arrays=arrays, function=_in_two, given=(conv, *rows))


def _in_two(conv: Any, block: slice, known: slice, x: Any, **arrays: Any) -> Any:
    """Run a block of rows after those that are known."""
    conv, before = conv.asarrays(x).replace(**arrays), x[:, :, known, :]
    y = conv.forward(x[:, :, block, :], before=before)
    return y, conv.inverse(y, before=before)


def _without_poles() -> Iterator[Called]:
    """Yield calls whose denominator is an array of one number, the first one along one axis."""
    draw = np.random.default_rng(51).standard_normal
    a, b = 1.5 + draw((3, 4, 1)) ** 2, draw((2, 1, 4, 2))
    arrays = {"x": draw((3, 4, 6)), "b": b[0, 0, 1], "a": a[0], "zi": draw((3, 4, 1))}
    yield Called("lfilter-each-no-poles", arrays=arrays, function=ic.lfilter)
    arrays = {"b": b, "a": a, "x": draw((2, 3, 4)), "zi": draw((2, 3, 2))}
    run, options = ic.varying_lfilter, {"axis": -1}
    yield Called("varying_lfilter-no-poles", arrays=arrays, function=run, options=options)


_FILTERING = (_lfilter, _sosfilt, _both_ways, _filters_of_their_own, _steady, _varying)
_TABLE = (_without_poles, *_FILTERING, _from_psf, _splines, _least_squares, _squeeze, _blocks)
CALLS: tuple[Called, ...] = tuple(call for rows in _TABLE for call in rows())
