"""The laws: what an operator must do on every library, device and dtype, each with its bound.

A law takes a `Setting` (a case on a library, device and dtype) and yields `Measure`s: an error,
and the bound that it must keep, in the same units. A law about behaviour measures 0 or 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

import invconv as ic
from invconv.arrays import dtype_name, library_name, to_numpy
from invconv_conformance import oracle
from invconv_conformance.bounds import C_FACTOR, EPS
from invconv_conformance.extended import EXTENDED
from invconv_conformance.setting import Array, Floats, Measure, Setting


@dataclass(frozen=True)
class Law:
    """What must hold.

    Attributes
    ----------
    id : str
    definition : str
        In symbols.
    source : str
        Where it comes from.
    check : callable
        Setting to measures.
    """

    id: str
    definition: str
    source: str
    check: Callable[[Setting], Iterator[Measure]]


LAWS: dict[str, Law] = {}


def law(id: str, definition: str, source: str) -> Callable[[Any], Any]:  # noqa: A002
    """Register a law."""

    def register(check: Callable[[Setting], Iterator[Measure]]) -> Any:
        LAWS[id] = Law(id, definition, source, check)
        return check

    return register


def _values(array: Array) -> Floats:
    return to_numpy(array).astype(EXTENDED)


def _truth(holds: bool, what: str) -> Measure:
    return Measure(what, 0.0 if holds else math.inf, 1.0)


@law("forward.value", "|forward(x) - (K x + b)| <= c m eps (|K| |x| + |b|)", "the definition")
def forward_value(s: Setting) -> Iterator[Measure]:
    """Against the dense matrix."""
    x = s.images[0]
    error = s.norm(_values(s.conv.forward(s.array(x))) - s.forward(x))
    yield s.worst("y", error, s.unit * (s.scales.gain * s.norm(x) + s.shift_norm))


def _inverse_bound(s: Setting, x: Floats) -> Floats:
    return s.unit * s.scales.gain * s.scales.loss * (s.norm(x) + s.scales.loss * s.shift_norm)


@law(
    "inverse.value",
    "|inverse(y) - K^-1 (y - b)| <= c m eps |K| |K^-1| |x|, on random y and on y = K x + b",
    "Higham, Accuracy and Stability of Numerical Algorithms, ch. 7 and 8",
)
def inverse_value(s: Setting) -> Iterator[Measure]:
    """Against the dense solve."""
    for what, y in s.outputs.items():
        x = s.inverse(y)
        error = s.norm(_values(s.conv.inverse(s.array(y))) - x)
        yield s.worst(what, error, _inverse_bound(s, x))


@law(
    "inverse.residual",
    "|K x + b - y| <= c m eps (|K| |x| + |b| + |y|) for x = inverse(y)",
    "backward stability of substitution, ibid. ch. 8",
)
def inverse_residual(s: Setting) -> Iterator[Measure]:
    """Small whatever the condition."""
    for what, y in s.outputs.items():
        x = _values(s.conv.inverse(s.array(y)))
        error = s.norm(s.forward(x) - y)
        yield s.worst(what, error, s.unit * (s.scales.gain * s.norm(x) + s.shift_norm + s.norm(y)))


@law("round_trip", "inverse(forward(x)) = x and forward(inverse(y)) = y", "invertibility")
def round_trip(s: Setting) -> Iterator[Measure]:
    """Both ways, the errors of both directions added up."""
    x, y = s.images[:2]
    there = s.conv.forward(s.array(x))
    error = s.norm(_values(s.conv.inverse(there)) - x)
    yield s.worst("inverse(forward(x))", error, 2 * _inverse_bound(s, x))
    back = s.conv.inverse(s.array(y))
    error = s.norm(_values(s.conv.forward(back)) - y)
    reach = s.scales.gain * s.norm(_values(back)) + s.shift_norm + s.norm(y)
    yield s.worst("forward(inverse(y))", error, 2 * s.unit * reach)


@law(
    "log_det.value",
    "|log_det - log|det K|| <= c eps (C sum |log terms| + m sum of conditions), both directions",
    "the change of variables formula",
)
def log_det_value(s: Setting) -> Iterator[Measure]:
    """Of the operator, and as both directions return it."""
    truth = s.lu.log_det()
    eps = EPS[s.log_det_dtype]
    bound = C_FACTOR * eps * (s.scales.logs + abs(float(truth)) + 1)
    x = s.array(s.images[0])
    for what, value, sign in (
        ("log_det", s.conv.log_det(s.case.spatial_shape), 1),
        ("forward_and_log_det", s.conv.forward_and_log_det(x)[1], 1),
        ("inverse_and_log_det", s.conv.inverse_and_log_det(x)[1], -1),
    ):
        shape = () if what == "log_det" else s.case.batch_shape
        yield _truth(tuple(value.shape) == shape, f"shape of {what}")
        if math.prod(shape):
            error = float(np.abs(_values(value) - sign * truth).max())
            yield Measure(what, error, bound)


@law("transpose", "<y, K x> = <K^T y, x>", "the definition of the adjoint")
def transpose(s: Setting) -> Iterator[Measure]:
    """Against the dense matrix's transpose."""
    y = s.images[1]
    rows = y.reshape(-1, len(s.affine[0])).astype(EXTENDED) @ s.affine[0]
    got = _values(s.conv.transpose().forward(s.array(y)))
    yield s.worst("K^T y", s.norm(got - rows.reshape(y.shape)), s.unit * s.scales.gain * s.norm(y))


@law("composition", "Chain([K, Inverse(K)]) is the identity with log-determinant 0", "group laws")
def composition(s: Setting) -> Iterator[Measure]:
    """Of a chain with an operator's own inverse."""
    chain = ic.Chain([s.conv, ic.Inverse(s.conv)])
    x = s.images[0]
    y, log_det = chain.forward_and_log_det(s.array(x))
    yield s.worst("x", s.norm(_values(y) - x), 2 * _inverse_bound(s, x))
    yield _truth(bool((_values(log_det) == 0).all()), "log-determinant")


@law(
    "vjp.input",
    "x_bar = K^T y_bar, and y_bar = K^-T x_bar through the inverse",
    "linear algebra",
)
def vjp_input(s: Setting) -> Iterator[Measure]:
    """Against the dense matrix."""
    x, y, bar = s.images
    rows = bar.reshape(-1, len(s.affine[0])).astype(EXTENDED)
    _, x_bar = s.conv.forward_vjp(s.array(x), s.array(bar))
    error = s.norm(_values(x_bar) - (rows @ s.affine[0]).reshape(x.shape))
    yield s.worst("x_bar", error, s.unit * s.scales.gain * s.norm(bar))
    _, y_bar = s.conv.inverse_vjp(s.array(y), s.array(bar))
    truth = s.lu.solve(rows.T, transposed=True).T.reshape(x.shape)
    bound = s.unit * s.scales.gain * s.scales.loss * s.norm(truth)
    yield s.worst("y_bar", s.norm(_values(y_bar) - truth), bound)


@law("kind", "results have the library, dtype, device and shape of the argument", "design")
def kind(s: Setting) -> Iterator[Measure]:
    """Of values, log-determinants and gradients."""
    x = s.array(s.images[0])
    y, log_det = s.conv.forward_and_log_det(x)
    back, inverse_log_det = s.conv.inverse_and_log_det(x)
    gradients, x_bar = s.conv.forward_vjp(x, x)
    for what, array in {"y": y, "x": back, "x_bar": x_bar, **gradients}.items():
        yield _truth(library_name(array) == s.target.library.name, f"library of {what}")
        yield _truth(dtype_name(array.dtype) == s.dtype, f"dtype of {what}")
        yield _truth(array.device == x.device, f"device of {what}")
    for array in (log_det, inverse_log_det):
        yield _truth(dtype_name(array.dtype) == s.log_det_dtype, "log-det dtype")
        yield _truth(array.device == x.device, "log-det device")
    for what, array in (("y", y), ("x", back), ("x_bar", x_bar)):
        yield _truth(tuple(array.shape) == tuple(x.shape), f"shape of {what}")
    for name, array in s.conv.parameters().items():
        yield _truth(tuple(gradients[name].shape) == tuple(array.shape), f"shape of {name}_bar")


@law("no_mutation", "arguments and parameters keep their values", "design")
def no_mutation(s: Setting) -> Iterator[Measure]:
    """Through every method that computes."""
    x = s.array(s.images[0])
    held = {"x": x, **s.conv.parameters()}
    before = {name: to_numpy(array) for name, array in held.items()}
    s.conv.forward_and_log_det(x)
    s.conv.inverse_and_log_det(x)
    s.conv.forward_vjp(x, x)
    s.conv.inverse_vjp(x, x)
    for name, array in held.items():
        yield _truth(np.array_equal(to_numpy(array), before[name]), name)


@law("determinism", "two runs are equal bit by bit", "reproducibility")
def determinism(s: Setting) -> Iterator[Measure]:
    """Of both directions."""
    x = s.array(s.images[0])
    for what in ("forward_and_log_det", "inverse_and_log_det"):
        first, second = (getattr(s.conv, what)(x) for _ in range(2))
        for a, b in zip(first, second, strict=True):
            yield _truth(np.array_equal(to_numpy(a), to_numpy(b)), what)


@law("isolation", "a NaN or inf in one sample leaves the others as they were", "linearity")
def isolation(s: Setting) -> Iterator[Measure]:
    """Bit for bit, and the log-determinant too."""
    if not s.case.batch_shape or s.images[0].shape[0] < 2:
        return
    for bad in (math.nan, math.inf):
        x = s.images[0].copy()
        x.reshape(x.shape[0], -1)[0, 0] = bad
        for what in ("forward", "inverse"):
            with np.errstate(invalid="ignore"):
                got = _values(getattr(s.conv, what)(s.array(x)))
            good = _values(getattr(s.conv, what)(s.array(s.images[0])))
            yield _truth(np.array_equal(got[1:], good[1:]), f"{what}, {bad}")
            yield _truth(not np.isfinite(got[0]).all(), f"{what}, {bad} is passed on")


@law("empty", "an empty batch gives an empty result, and gradients of zero", "linearity")
def empty(s: Setting) -> Iterator[Measure]:
    """Where there is a batch axis."""
    if not s.case.batch_shape:
        return
    shape = (0, *s.images[0].shape[1:])
    x = s.array(np.empty(shape))
    for what in ("forward_and_log_det", "inverse_and_log_det"):
        value, log_det = getattr(s.conv, what)(x)
        yield _truth(tuple(value.shape) == shape, what)
        yield _truth(tuple(log_det.shape) == (0, *s.case.batch_shape[1:]), what)
    gradients, _ = s.conv.forward_vjp(x, x)
    yield _truth(all(not to_numpy(g).any() for g in gradients.values()), "gradients")


@law("no_promotion", "an argument of another dtype or library is a TypeError", "design")
def no_promotion(s: Setting) -> Iterator[Measure]:
    """Whatever the library itself would have done with it."""
    x = s.images[0]
    other = "float32" if s.dtype != "float32" else "float64"
    wrong: dict[str, Any] = {"list": x.tolist(), "integers": np.ones(x.shape, np.int64)}
    wrong["dtype"] = s.target.asarray(x, other)
    if s.target.library.name != "numpy":
        wrong["library"] = x.astype("float32")
    for what, argument in wrong.items():
        for method in (s.conv.forward, s.conv.inverse):
            try:
                method(argument)
            except TypeError:
                yield _truth(True, what)
            else:
                yield _truth(False, what)


@law(
    "vjp.parameters",
    "the gradients of <y_bar, K x + b> + s log|det K|, and of the inverse's, by every parameter",
    "central differences of fourth order of the dense matrix",
)
def vjp_parameters(s: Setting) -> Iterator[Measure]:
    """Along a random direction of each parameter."""
    x, y, bar = s.images
    batch = s.case.batch_shape
    s_bar = np.linspace(-1.0, 2.0, max(1, math.prod(batch))).reshape(batch)
    gradients = (
        s.conv.forward_vjp(s.array(x), s.array(bar), _cotangent(s, s_bar))[0],
        s.conv.inverse_vjp(s.array(y), s.array(bar), _cotangent(s, s_bar))[0],
    )
    rng = s.case.rng()
    for name, array in s.host.parameters().items():
        direction = rng.standard_normal(array.shape)
        direction /= max(1.0, float(np.linalg.norm(direction)))
        truth = _differences(s, name, direction, (x, y, bar, s_bar))
        for what, found, (slope, size) in zip(
            ("forward", "inverse"), gradients, truth, strict=True
        ):
            terms = _values(found[name]) * direction
            lever = s.scales.gain * s.scales.loss
            bound = (s.unit * lever + 1e-9) * (size + float(np.abs(terms).sum()))
            yield Measure(f"{what}, {name}_bar", abs(float(terms.sum()) - slope), bound)


def _cotangent(s: Setting, values: Floats) -> Array:
    return s.target.asarray(values, s.log_det_dtype)


def _differences(
    s: Setting, name: str, direction: Floats, arrays: tuple[Floats, ...]
) -> list[tuple[float, float]]:
    """Return, for both directions, the derivative and the size of what it is a difference of."""
    x, y, bar, s_bar = arrays
    step = 1e-3 / (1 + s.scales.loss)
    slopes, size = np.zeros(2), np.zeros(2)
    for steps, weight in ((1, 8 / 12), (-1, -8 / 12), (2, -1 / 12), (-2, 1 / 12)):
        moved = s.host.parameters()[name] + steps * step * direction
        matrix, shift = oracle.affine(s.host.replace(**{name: moved}), s.case.spatial_shape)
        log_det = float(np.linalg.slogdet(matrix)[1])
        rows = x.reshape(-1, len(matrix)) @ matrix.T + shift
        solved = np.linalg.solve(matrix, (y.reshape(-1, len(matrix)) - shift).T).T
        flat = bar.reshape(-1, len(matrix))
        values = np.asarray([(flat * rows).sum(), (flat * solved).sum()])
        values += s_bar.sum() * log_det * np.asarray([1, -1])
        slopes += weight * values / step
        size = np.maximum(size, np.abs(values) + np.abs(flat * solved).sum())
    return [(float(slopes[i]), 1 + float(size[i])) for i in range(2)]
