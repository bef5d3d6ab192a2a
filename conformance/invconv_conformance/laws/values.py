"""The laws of values: what an operator, its inverse and its log-determinant must equal."""

from collections.abc import Iterator

import numpy as np

import invconv as ic
from invconv.arrays.namespaces import Array, dtype_name, to_numpy
from invconv_conformance.laws.law import Measure, largest, law, truth, values
from invconv_conformance.laws.setting import Setting
from invconv_conformance.truth.bounds import C_FACTOR, EPS
from invconv_conformance.truth.oracle import EXTENDED

_GAIN, _FAR = 3.0, 100.0  # of bounded inverses, and how far from the identity they start


@law("forward.value", "the definition", singular=True)
def forward_value(s: Setting) -> Iterator[Measure]:
    """|forward(x) - (K x + b)| <= c m eps (|K| |x| + |b|)."""
    x = s.images[0]
    y = s.forward(x)
    bound = s.unit * s.reach(x) + s.cast(s.norm(y))
    yield s.off("y", s.conv.forward(s.array(x)), y, bound)
    yield s.off("y with log_det", s.conv.forward_and_log_det(s.array(x))[0], y, bound)


@law("inverse.value", "Higham, Accuracy and Stability of Numerical Algorithms, ch. 7 and 8")
def inverse_value(s: Setting) -> Iterator[Measure]:
    """|inverse(y) - K^-1 (y - b)| <= c m eps |K| |K^-1| |x|, on random y and on y = K x + b."""
    for what, y in s.outputs.items():
        x = s.inverse(y)
        yield s.off(what, s.conv.inverse(s.array(y)), x, s.solve_bound(x))
    found, _ = s.conv.inverse_and_log_det(s.array(y))
    yield s.off("x with log_det", found, x, s.solve_bound(x))


@law("inverse.residual", "backward stability of substitution, ibid. ch. 8")
def inverse_residual(s: Setting) -> Iterator[Measure]:
    """|K x + b - y| <= c m eps (|K| |x| + |b| + |y|) for x = inverse(y)."""
    for what, y in s.outputs.items():
        x = values(s.conv.inverse(s.array(y)))
        bound = s.unit * (s.reach(x) + s.norm(y)) + s.scales.gain * s.cast(s.norm(x))
        yield s.off(what, s.forward(x), y, bound)


@law("round_trip", "invertibility")
def round_trip(s: Setting) -> Iterator[Measure]:
    """inverse(forward(x)) = x and forward(inverse(y)) = y."""
    x, y = s.images[:2]
    lost = s.scales.loss * s.cast(s.norm(s.forward(x)))
    again = s.conv.inverse(s.conv.forward(s.array(x)))
    yield s.off("inverse(forward(x))", again, x, 2 * s.solve_bound(x) + lost)
    back = s.conv.inverse(s.array(y))
    lost = s.scales.gain * s.cast(s.norm(values(back))) + s.cast(s.norm(y))
    bound = 2 * s.unit * (s.reach(values(back)) + s.norm(y)) + lost
    yield s.off("forward(inverse(y))", s.conv.forward(back), y, bound)


@law("log_det.value", "the change of variables formula")
def log_det_value(s: Setting) -> Iterator[Measure]:
    """|log_det - log|det K|| <= c eps (C sum |log terms| + m sum of conditions)."""
    x = s.array(s.images[0])
    yield from _log_dets(s, "log_det", s.more("log_det", x), ())
    _, log_det = s.conv.forward_and_log_det(x)
    yield from _log_dets(s, "forward_and_log_det", log_det, s.case.batch_shape)


@law("log_det.inverse", "the change of variables formula")
def log_det_inverse(s: Setting) -> Iterator[Measure]:
    """log|det K^-1| = -log|det K|, with the same bound."""
    x = s.array(s.images[0])
    _, log_det = s.conv.inverse_and_log_det(x)
    yield from _log_dets(s, "inverse_and_log_det", log_det, s.case.batch_shape, -1)
    yield from _log_dets(s, "Inverse(K).log_det", s.more("log_det of the inverse", x), (), -1)


def _log_dets(
    s: Setting, what: str, found: Array, shape: tuple[int, ...], sign: int = 1
) -> Iterator[Measure]:
    yield truth(tuple(found.shape) == shape, f"shape of {what}")
    yield Measure(what, largest(values(found) - sign * s.lu.log_det()), _log_det_bound(s))


def _log_det_bound(s: Setting) -> float:
    exact = abs(float(s.lu.log_det()))
    oracle = s.size * s.scales.condition * float(np.finfo(EXTENDED).eps)
    return C_FACTOR * EPS[s.log_det_dtype] * (s.scales.logs + exact + 1) + oracle


@law("transpose", "the definition of the adjoint", singular=True)
def transpose(s: Setting) -> Iterator[Measure]:
    """<y, K x> = <K^T y, x>."""
    y = s.images[1]
    wanted = s.transposed(y)
    bound = s.unit * s.scales.gain * s.norm(y) + s.cast(s.norm(wanted))
    yield s.off("K^T y", s.more("transpose", s.array(y)), wanted, bound)


@law("transpose.inverse", "the definition of the adjoint", eager=True)
def transpose_inverse(s: Setting) -> Iterator[Measure]:
    """log|det K^T| = log|det K|, and |inverse(y) - K^-T y| <= c m eps |K| |K^-1| |x|."""
    y = s.images[1]
    turned = s.plain.transpose()
    if s.dtype == s.log_det_dtype:  # the matrix of two factors is rounded, too much in a half type
        gap = largest(values(turned.log_det(s.case.spatial_shape)) - s.lu.log_det())
        yield Measure("log_det of K^T", gap, _log_det_bound(s) + s.lever * s.size)
    x = s.transposed(y, inverse=True)
    bound = s.lever * s.norm(x) + s.cast(s.norm(x))
    yield s.off("K^-T y", turned.inverse(s.array(y)), x, bound)


@law("composition", "group laws", eager=True)
def composition(s: Setting) -> Iterator[Measure]:
    """Chain([K, Inverse(K)]) is the identity with log-determinant 0."""
    chain = ic.Chain([s.plain, ic.Inverse(s.plain)])
    x = s.images[0]
    y, log_det = chain.forward_and_log_det(s.array(x))
    yield s.off("x", y, x, 2 * s.solve_bound(x))
    yield truth(bool((values(log_det) == 0).all()), "log-determinant")


@law("precision", "the error of a solve is that of the precision it runs in", eager=True)
def precision(s: Setting) -> Iterator[Measure]:
    """Prepared in float64, |inverse(y) - K^-1 (y - b)| <= (2 eps + c m eps64 |K| |K^-1|) |x|."""
    if s.dtype == "float64" or "float64" not in s.target.library.dtypes:
        return
    prepared = s.plain.prepare(s.case.spatial_shape, check=False, precision="float64")
    within = C_FACTOR * s.scales.terms * EPS["float64"] * s.scales.condition
    for what, y in s.outputs.items():
        x, found = s.inverse(y), prepared.inverse(s.array(y))
        yield truth(dtype_name(found.dtype) == s.dtype, f"dtype of {what}")
        size = s.norm(x)
        bound = 2 * EPS[s.log_det_dtype] * size + s.cast(size)
        bound += within * (size + s.scales.loss * s.shift_norm)
        yield s.off(what, found, x, bound)


@law("bounded", "Neumann's series", eager=True)
def bounded(s: Setting) -> Iterator[Measure]:
    """|K^-1|_2 <= g for K = bounded(conv, g), unless conv contains an inverse."""
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
