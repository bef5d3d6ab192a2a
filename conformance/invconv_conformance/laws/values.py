"""The laws of values and derivatives: what an operator, its inverse, its log-determinant and their
gradients must equal.
"""

import functools
import math
from collections.abc import Iterator
from typing import Any

import numpy as np

import invconv as ic
from invconv.arrays.namespaces import Array, dtype_name, to_numpy
from invconv_conformance.laws.law import Floats, Measure, largest, law, truth, values
from invconv_conformance.laws.setting import DIRECTIONS, PULLBACKS, Setting
from invconv_conformance.libraries import Column, target_of
from invconv_conformance.truth.bounds import C_FACTOR, EPS
from invconv_conformance.truth.oracle import EXTENDED

# the methods that an author writes
_APPLY, _FACTOR, _TURN = "factors or apply", "factor and its Solver", "transpose and adjoint"
_LOG_DET, _LOG_DET_VJP = "pivots or log_det", "add_log_det_vjp"
_GRAM = "gram or factors_vjp"
_HIGHAM = "Higham, Accuracy and Stability of Numerical Algorithms, ch. 7 and 8"
_GAIN, _FAR = 3.0, 100.0  # the gain of bounded inverses; how far from the identity they start


@law("forward.value", "the definition", rules=_APPLY, singular=True)
def forward_value(s: Setting) -> Iterator[Measure]:
    """|forward(x) - (K x + b)| <= c m eps (|K| |x| + |b|)."""
    x = s.images[0]
    y = s.forward(x)
    bound = s.unit * s.reach(x) + s.cast(s.norm(y))
    yield s.off("y", s.conv.forward(s.array(x)), y, bound)
    yield s.off("y with log_det", s.conv.forward_and_log_det(s.array(x))[0], y, bound)


@law("inverse.value", _HIGHAM, rules=_FACTOR)
def inverse_value(s: Setting) -> Iterator[Measure]:
    """|inverse(y) - K^-1 (y - b)| <= c m eps |K| |K^-1| |x|, on random y and on y = K x + b."""
    for what, y in s.outputs.items():
        x = s.inverse(y)
        yield s.off(what, s.conv.inverse(s.array(y)), x, s.solve_bound(x))
    found, _ = s.conv.inverse_and_log_det(s.array(y))
    yield s.off("x with log_det", found, x, s.solve_bound(x))


@law("inverse.residual", "backward stability of substitution, ibid. ch. 8", rules=_FACTOR)
def inverse_residual(s: Setting) -> Iterator[Measure]:
    """|K x + b - y| <= c m eps (|K| |x| + |b| + |y|) for x = inverse(y)."""
    for what, y in s.outputs.items():
        x = values(s.conv.inverse(s.array(y)))
        bound = s.unit * (s.reach(x) + s.norm(y)) + s.scales.gain * s.cast(s.norm(x))
        yield s.off(what, s.forward(x), y, bound)


@law("round_trip", "invertibility", rules=_FACTOR)
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


@law("log_det.value", "the change of variables formula", rules=_LOG_DET)
def log_det_value(s: Setting) -> Iterator[Measure]:
    """|log_det - log|det K|| <= c eps (C sum |log terms| + m sum of conditions)."""
    x = s.array(s.images[0])
    yield from _log_dets(s, "log_det", s.more("log_det", x), ())
    _, log_det = s.conv.forward_and_log_det(x)
    yield from _log_dets(s, "forward_and_log_det", log_det, s.case.batch_shape)


@law("log_det.inverse", "the change of variables formula", rules=_LOG_DET)
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


@law("transpose", "the definition of the adjoint", rules=_TURN, singular=True)
def transpose(s: Setting) -> Iterator[Measure]:
    """<y, K x> = <K^T y, x>."""
    y = s.images[1]
    wanted = s.transposed(y)
    bound = s.unit * s.scales.gain * s.norm(y) + s.cast(s.norm(wanted))
    yield s.off("K^T y", s.more("transpose", s.array(y)), wanted, bound)


@law("transpose.inverse", "the definition of the adjoint", rules=_TURN, eager=True)
def transpose_inverse(s: Setting) -> Iterator[Measure]:
    """log|det K^T| = log|det K|, and |inverse(y) - K^-T y| <= c m eps |K| |K^-1| |x|."""
    y = s.images[1]
    turned = s.plain.transpose()
    if s.dtype == s.log_det_dtype:  # a half type rounds the product of two factors too coarsely
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


@law("bounded", "Neumann's series", rules="within", eager=True)
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


_DIFFERENCES_HOLD = 1e-10  # largest condition x eps at which dense differences are a truth


@law("vjp.input", "linear algebra", rules=_TURN, singular=True)
def vjp_input(s: Setting) -> Iterator[Measure]:
    """x_bar = K^T y_bar, and y_bar = K^-T x_bar through the inverse."""
    bar = s.images[2]
    wanted = s.transposed(bar)
    cases = [("x_bar", wanted, s.unit * s.scales.gain * s.norm(bar))]
    if not s.case.singular:
        solved = s.transposed(bar, inverse=True)
        cases.append(("y_bar", solved, s.lever * s.norm(solved)))
    # K does not depend on x: the log-determinant adds nothing
    more = (None,) if s.case.singular else (None, s.ones)
    for (what, right, bound), method, image in zip(cases, PULLBACKS, s.images, strict=False):
        for log_det_bar in more:
            _, found = getattr(s.conv, method)(s.array(image), s.array(bar), log_det_bar)
            yield s.off(what, found, right, bound + s.cast(s.norm(right)))


@law("vjp.parameters", "central differences of fourth order of the dense matrix")
def vjp_parameters(s: Setting) -> Iterator[Measure]:
    """The gradients of <y_bar, K x + b> + s log|det K|, and of the inverse's, by each parameter."""
    if s.scales.condition * EPS["float64"] > _DIFFERENCES_HOLD:
        return
    batch = s.case.batch_shape
    s_bar = np.linspace(-1.0, 2.0, max(1, math.prod(batch))).reshape(batch)
    gradients = []
    for method, image in zip(PULLBACKS, s.images, strict=False):
        for log_det_bar in (None, s.cotangent(s_bar)):
            what = f"{method}{' of both' * (log_det_bar is not None)}"
            arrays = s.array(image), s.array(s.images[2]), log_det_bar
            gradients.append((what, getattr(s.conv, method)(*arrays)[0]))
    rng = s.case.rng().spawn(2)[1]  # neither the operator's numbers nor the images'
    for name, array in s.host.parameters().items():
        direction = rng.standard_normal(array.shape)
        direction /= max(1.0, float(np.linalg.norm(direction)))
        if name.rpartition(".")[2] == "reflectors":  # their length has no effect
            direction *= np.linalg.norm(array, axis=1, keepdims=True)
        truth = _differences(s, name, direction, s_bar)
        for (what, found), (slope, size) in zip(gradients, truth, strict=True):
            terms = values(found[name]) * direction
            reach = float(np.abs(terms).sum())
            bound = (s.lever + 1e-9) * (size + reach) + float(s.cast(np.asarray(reach)))
            rules = _LOG_DET_VJP if what.endswith("of both") else _GRAM
            error = abs(float(terms.sum()) - slope)
            yield Measure(f"{what}, {name}_bar", error, bound, rules)


@law("autodiff", "the chain rule", eager=True)
def autodiff(s: Setting) -> Iterator[Measure]:
    """The library's own automatic differentiation gives the same gradients."""
    pullback = s.target.library.pullback
    if pullback is None:
        return
    bar = s.array(s.images[2])
    for what, image in zip(("forward", "inverse"), s.images, strict=False):
        x = s.array(image)

        def run(parameters: dict[str, Array], x: Array, what: str = what) -> Any:
            return getattr(s.plain.replace(**parameters), f"{what}_and_log_det")(x)

        found, x_bar = pullback(run, s.plain.parameters(), x, (bar, s.ones))
        wanted, wanted_x_bar = getattr(s.plain, f"{what}_vjp")(x, bar, s.ones)
        pairs = {f"{name}_bar": (found[name], wanted[name]) for name in wanted}
        for name, (one, other) in (pairs | {"x_bar": (x_bar, wanted_x_bar)}).items():
            size = float(np.linalg.norm(values(x)) * np.linalg.norm(values(bar)))
            yield s.two_ways(f"{what}, {name}", values(one), values(other), size)


def _differences(
    s: Setting, name: str, direction: Floats, s_bar: Floats
) -> list[tuple[float, float]]:
    x, y, bar = (image.reshape(-1, s.size) for image in s.images)
    array = s.host.parameters()[name]
    linear = name.rpartition(".")[2] in ("kernel", "weight")
    step = (max(1.0, float(np.abs(array).max())) if linear else 1.0) * 1e-3 / (1 + s.scales.loss)
    slopes, size = np.zeros(4), np.zeros(4)
    for steps, weight in ((1, 8 / 12), (-1, -8 / 12), (2, -1 / 12), (-2, 1 / 12)):
        moved = array + steps * step * direction
        matrix, shift = s.dense(s.host.replace(**{name: moved}))
        log_det = float(np.linalg.slogdet(matrix)[1])
        rows, solved = x @ matrix.T + shift, np.linalg.solve(matrix, (y - shift).T).T
        numbers = np.repeat([(bar * rows).sum(), (bar * solved).sum()], 2)
        numbers += s_bar.sum() * log_det * np.asarray([0, 1, 0, -1])
        slopes += weight * numbers / step
        size = np.maximum(size, np.abs(numbers) + np.abs(bar * solved).sum())
    return [(float(slopes[i]), float(1 + size[i]) * 1e-3 / step) for i in range(4)]


_LOUD = 2.0**20, 16.0  # times as large as other samples; less in the half types
_LOST = 1e4  # eps: a recurrence of 8 pixels loses its inverse by it, but not beside 1e6


@law("isolation", "linearity", rules=_APPLY)
def isolation(s: Setting) -> Iterator[Measure]:
    """A NaN or inf in one sample leaves the others as they were."""
    if math.prod(s.case.batch_shape) < 2:
        return
    for bad, place in ((math.nan, 0), (math.inf, -1)):
        x = s.images[0].copy()
        x.reshape(-1, s.size)[place, 0] = bad
        for what in DIRECTIONS:
            with np.errstate(invalid="ignore"):
                got, log_det = map(values, getattr(s.conv, what)(s.array(x)))
            good, wanted = map(values, getattr(s.conv, what)(s.array(s.images[0])))
            got, good = s.rows(got), s.rows(good)
            beside, as_before = (np.delete(found, place, axis=0) for found in (got, good))
            yield truth(np.array_equal(beside, as_before), f"{what}, {bad}")
            yield truth(np.array_equal(log_det, wanted), f"log-determinant of {what}, {bad}")
            yield truth(not np.isfinite(got[place]).all(), f"{what}, {bad} is passed on")


@law("isolation.gradients", "linearity")
def isolated_gradients(s: Setting) -> Iterator[Measure]:
    """A sample's gradients do not depend on the other samples, and those by parameters are sums
    over the samples; recomputed activations are right for each sample, or there is no gradient.
    """
    if math.prod(s.case.batch_shape) < 2:
        return
    batch, half = s.case.batch_shape, s.dtype != s.log_det_dtype
    bar = s.images[2]
    first = np.arange(math.prod(batch)).reshape(*batch, *(1 for _ in bar.shape[len(batch) :])) == 0
    loud = np.where(first, 1.0, _LOUD[half])
    for what, image in zip(PULLBACKS, s.images, strict=False):
        every, x_bar = _pulled_back(s, what, image, bar)
        mine, _ = _pulled_back(s, what, image, np.where(first, bar, 0.0))
        others, _ = _pulled_back(s, what, image, np.where(first, 0.0, bar))
        beside, _ = _pulled_back(s, what, loud * image, np.where(first, bar, 0.0))
        _, alone = _pulled_back(s, what, *(np.where(first, a, math.nan) for a in (image, bar)))
        mine_alone, beside_others = (s.rows(found)[0] for found in (alone, x_bar))
        yield truth(np.array_equal(mine_alone, beside_others), f"{what}, the image beside NaN")
        reach = s.norm(image) * s.norm(bar)
        for name, gradient in mine.items():
            pairs = (
                ("as a sum", every[name] - others[name], every[name], reach),
                ("beside large", beside[name], gradient, reach[:1]),
            )
            for how, found, scale, norms in pairs:
                size = largest(scale) + float(norms.sum())
                bound = s.gradient_bound(size) + 2 * float(s.cast(np.asarray(size)))
                yield Measure(f"{what}, {name} {how}", largest(found - gradient), bound)
    if s.target.mode == "eager" and s.target.library.recomputing and not half:
        yield from _recomputed(s.target.library.name, s.target.device, s.dtype)


def _pulled_back(
    s: Setting, what: str, image: Floats, bar: Floats
) -> tuple[dict[str, Floats], Floats]:
    with np.errstate(invalid="ignore"):
        gradients, x_bar = getattr(s.conv, what)(s.array(image), s.array(bar))
    return {name: values(g) for name, g in gradients.items()}, values(x_bar)


@functools.cache
def _recomputed(library: str, device: str, dtype: str) -> list[Measure]:
    """Return the measures of the library's chain that keeps no activations."""
    target, eps = target_of(Column(library, device, "eager", dtype)), EPS[dtype]
    own: Any = target.library
    array = functools.partial(target.asarray, dtype=dtype)
    kernel = np.asarray([[[1.0, 0.5]]])
    chain = ic.Chain([ic.ActNorm(np.zeros(1), np.ones(1), ndim=1), ic.AutoregressiveConv(kernel)])

    def gradients_of(trained: ic.Chain, x: Floats) -> tuple[dict[str, Floats], Floats]:
        run = own.recomputing(chain.asarrays(array(x)), array(x))
        weights = {name: array(a) for name, a in trained.parameters().items()}
        try:
            bars = array(bar[: len(x)]), array(np.zeros(len(x)))
            gradients, x_bar = own.pullback(run, weights, array(x), bars)
        except RuntimeError:
            return {name: np.full(a.shape, math.nan) for name, a in weights.items()}, x * math.nan
        return {name: values(g) for name, g in gradients.items()}, values(x_bar)

    x = np.random.default_rng(0).standard_normal((3, 1, 8))
    bar = np.where([[[1]], [[0]], [[0]]], np.cos(x), 0.0)
    wanted, x_bar = chain.forward_vjp(x[:1], bar[:1])
    x[1] = 1e6 * np.eye(8)[-1]  # this large sample itself is not lost
    found, found_x_bar = gradients_of(chain, x)
    pairs = [(found[name], gradient) for name, gradient in wanted.items()]
    x[2] = math.nan
    pairs += [(a[:1], x_bar) for a in (found_x_bar, gradients_of(chain, x)[1])]
    measures = [Measure("recomputed", largest(a - b), 1e3 * eps) for a, b in pairs]
    tap = (_LOST / eps) ** (1 / 8)
    grown = chain.replace(**{"1.kernel": np.asarray([[[1.0, -tap]]])})
    small = x[:2] * [[[eps / 16]], [[1.0]]]  # these small samples are lost beside the bias
    for what, trained, images in (("a tap", grown, x[:2]), ("a bias", chain, small)):
        gradients, _ = gradients_of(trained, images)
        text = f"no gradient of an image that {what} loses beside a large one"
        measures.append(truth(all(np.isnan(g).all() for g in gradients.values()), text))
    return measures
