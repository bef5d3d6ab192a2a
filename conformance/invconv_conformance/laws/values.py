"""The laws of values: what an operator, its inverse and its log-determinant must equal."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

import invconv as ic
from invconv.arrays.namespaces import dtype_name, to_numpy
from invconv_conformance.laws.law import law, truth, values
from invconv_conformance.laws.setting import Array, Floats, Measure, Setting
from invconv_conformance.truth.bounds import C_FACTOR, EPS
from invconv_conformance.truth.extended import EXTENDED

_GAIN, _FAR = 3.0, 100.0  # of bounded inverses, and how far from the identity they start


@law(
    "forward.value",
    "|forward(x) - (K x + b)| <= c m eps (|K| |x| + |b|)",
    "the definition",
    singular=True,
)
def forward_value(s: Setting) -> Iterator[Measure]:
    """Against the dense matrix."""
    x = s.images[0]
    y = s.forward(x)
    bound = s.unit * (s.scales.gain * s.norm(x) + s.shift_norm) + s.cast(s.norm(y))
    for what, found in (
        ("y", s.conv.forward(s.array(x))),
        ("y with log_det", s.conv.forward_and_log_det(s.array(x))[0]),
    ):
        yield s.worst(what, s.norm(values(found) - y), bound)


def _inverse_bound(s: Setting, x: Floats) -> Floats:
    size = s.norm(x)
    solve = s.unit * s.scales.gain * s.scales.loss * (size + s.scales.loss * s.shift_norm)
    return solve + s.cast(size)


@law(
    "inverse.value",
    "|inverse(y) - K^-1 (y - b)| <= c m eps |K| |K^-1| |x|, on random y and on y = K x + b",
    "Higham, Accuracy and Stability of Numerical Algorithms, ch. 7 and 8",
)
def inverse_value(s: Setting) -> Iterator[Measure]:
    """Against the dense solve."""
    for what, y in s.outputs.items():
        x = s.inverse(y)
        error = s.norm(values(s.conv.inverse(s.array(y))) - x)
        yield s.worst(what, error, _inverse_bound(s, x))
    found, _ = s.conv.inverse_and_log_det(s.array(y))
    yield s.worst("x with log_det", s.norm(values(found) - x), _inverse_bound(s, x))


@law(
    "inverse.residual",
    "|K x + b - y| <= c m eps (|K| |x| + |b| + |y|) for x = inverse(y)",
    "backward stability of substitution, ibid. ch. 8",
)
def inverse_residual(s: Setting) -> Iterator[Measure]:
    """Small whatever the condition."""
    for what, y in s.outputs.items():
        x = values(s.conv.inverse(s.array(y)))
        error = s.norm(s.forward(x) - y)
        bound = s.unit * (s.scales.gain * s.norm(x) + s.shift_norm + s.norm(y))
        yield s.worst(what, error, bound + s.scales.gain * s.cast(s.norm(x)))


@law("round_trip", "inverse(forward(x)) = x and forward(inverse(y)) = y", "invertibility")
def round_trip(s: Setting) -> Iterator[Measure]:
    """Both ways, the errors of both directions added up."""
    x, y = s.images[:2]
    there = s.conv.forward(s.array(x))
    error = s.norm(values(s.conv.inverse(there)) - x)
    lost = s.scales.loss * s.cast(s.norm(s.forward(x)))
    yield s.worst("inverse(forward(x))", error, 2 * _inverse_bound(s, x) + lost)
    back = s.conv.inverse(s.array(y))
    error = s.norm(values(s.conv.forward(back)) - y)
    reach = s.scales.gain * s.norm(values(back)) + s.shift_norm + s.norm(y)
    lost = s.scales.gain * s.cast(s.norm(values(back))) + s.cast(s.norm(y))
    yield s.worst("forward(inverse(y))", error, 2 * s.unit * reach + lost)


@law(
    "log_det.value",
    "|log_det - log|det K|| <= c eps (C sum |log terms| + m sum of conditions)",
    "the change of variables formula",
)
def log_det_value(s: Setting) -> Iterator[Measure]:
    """Of the operator, and as its forward returns it."""
    x = s.array(s.images[0])
    yield from _log_dets(s, "log_det", s.log_det_and_transpose(x)[0], ())
    _, log_det = s.conv.forward_and_log_det(x)
    yield from _log_dets(s, "forward_and_log_det", log_det, s.case.batch_shape)


@law(
    "log_det.inverse",
    "log|det K^-1| = -log|det K|, with the same bound",
    "the change of variables formula",
)
def log_det_inverse(s: Setting) -> Iterator[Measure]:
    """As the inverse returns it, and of the inverse as an operator."""
    x = s.array(s.images[0])
    _, log_det = s.conv.inverse_and_log_det(x)
    yield from _log_dets(s, "inverse_and_log_det", log_det, s.case.batch_shape, -1)
    yield from _log_dets(s, "Inverse(K).log_det", s.log_det_of_inverse(x), (), -1)


def _log_dets(
    s: Setting, what: str, found: Array, shape: tuple[int, ...], sign: int = 1
) -> Iterator[Measure]:
    exact = s.lu.log_det()
    yield truth(tuple(found.shape) == shape, f"shape of {what}")
    if math.prod(shape):
        gap = float(np.abs(values(found) - sign * exact).max())
        yield Measure(what, gap, _log_det_bound(s))


def _log_det_bound(s: Setting) -> float:
    exact = abs(float(s.lu.log_det()))
    bound = C_FACTOR * EPS[s.log_det_dtype] * (s.scales.logs + exact + 1)
    oracle = len(s.affine[0]) * s.scales.gain * s.scales.loss * float(np.finfo(EXTENDED).eps)
    return bound + oracle


@law("transpose", "<y, K x> = <K^T y, x>", "the definition of the adjoint", singular=True)
def transpose(s: Setting) -> Iterator[Measure]:
    """Against the dense matrix's transpose."""
    y = s.images[1]
    rows = s.rows(y) @ s.affine[0]
    got = values(s.log_det_and_transpose(s.array(y))[1])
    wanted = rows.reshape(y.shape)
    bound = s.unit * s.scales.gain * s.norm(y) + s.cast(s.norm(wanted))
    yield s.worst("K^T y", s.norm(got - wanted), bound)


@law(
    "transpose.inverse",
    "log|det K^T| = log|det K|, and |inverse(y) - K^-T y| <= c m eps |K| |K^-1| |x|",
    "the definition of the adjoint",
    eager=True,
)
def transpose_inverse(s: Setting) -> Iterator[Measure]:
    """Of the transpose as an operator."""
    y = s.images[1]
    turned = s.plain.transpose()
    if s.dtype == s.log_det_dtype:  # the matrix of two factors is rounded, too much in a half type
        gap = abs(float(values(turned.log_det(s.case.spatial_shape)) - s.lu.log_det()))
        rounding = s.unit * s.scales.gain * s.scales.loss * len(s.affine[0])
        yield Measure("log_det of K^T", gap, _log_det_bound(s) + rounding)
    x = s.lu.solve(s.rows(y).T, transposed=True).T.reshape(y.shape)
    bound = s.unit * s.scales.gain * s.scales.loss * s.norm(x) + s.cast(s.norm(x))
    yield s.worst("K^-T y", s.norm(values(turned.inverse(s.array(y))) - x), bound)


@law(
    "composition",
    "Chain([K, Inverse(K)]) is the identity with log-determinant 0",
    "group laws",
    eager=True,
)
def composition(s: Setting) -> Iterator[Measure]:
    """Of a chain with an operator's own inverse."""
    chain = ic.Chain([s.plain, ic.Inverse(s.plain)])
    x = s.images[0]
    y, log_det = chain.forward_and_log_det(s.array(x))
    yield s.worst("x", s.norm(values(y) - x), 2 * _inverse_bound(s, x))
    yield truth(bool((values(log_det) == 0).all()), "log-determinant")


@law(
    "precision",
    "prepared in float64, |inverse(y) - K^-1 (y - b)| <= (2 eps + c m eps64 |K| |K^-1|) |x|",
    "the error of a solve is that of the precision it runs in",
    eager=True,
)
def precision(s: Setting) -> Iterator[Measure]:
    """Of data in a narrower dtype, whose own digits are what is left; they keep their dtype."""
    if s.dtype == "float64" or "float64" not in s.target.library.dtypes:
        return
    made = s.plain.prepare(s.case.spatial_shape, check=False, precision="float64")
    within = C_FACTOR * s.scales.terms * EPS["float64"] * s.scales.gain * s.scales.loss
    for what, y in s.outputs.items():
        x, found = s.inverse(y), made.inverse(s.array(y))
        yield truth(dtype_name(found.dtype) == s.dtype, f"dtype of {what}")
        size = s.norm(x)
        bound = 2 * EPS[s.log_det_dtype] * size + s.cast(size)
        bound += within * (size + s.scales.loss * s.shift_norm)
        yield s.worst(what, s.norm(values(found) - x), bound)


@law(
    "bounded",
    "|K^-1|_2 <= g for K = bounded(conv, g), unless conv contains an inverse",
    "Neumann's series",
    eager=True,
)
def bounded(s: Setting) -> Iterator[Measure]:
    """Far from the identity; not where every step of it would be compiled for seconds."""
    if s.target.library.compiles_eagerly:
        return
    far = {n: s.array(_FAR * to_numpy(a)) for n, a in s.plain.parameters().items()}
    try:
        conv = ic.bounded(s.plain.replace(**far), _GAIN)
    except TypeError:
        unruled = type(s.plain).within is ic.InvertibleConv.within
        yield truth("Inverse(" in repr(s.plain) or unruled, "refused without need")
        return
    matrix = s.dense(conv.asarrays(np.empty(0)))[0]
    rounding = 1 + C_FACTOR * s.scales.terms * EPS[s.dtype]
    yield Measure("|K^-1|", float(1 / np.linalg.norm(matrix, -2)), _GAIN * rounding)
