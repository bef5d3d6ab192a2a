"""The laws of derivatives: exact gradients in both directions, of each sample by itself."""

import functools
import math
from collections.abc import Iterator
from typing import Any

import numpy as np

import invconv as ic
from invconv.arrays.namespaces import Array
from invconv_conformance.laws.law import Floats, Measure, largest, law, truth, values
from invconv_conformance.laws.setting import DIRECTIONS, PULLBACKS, Setting
from invconv_conformance.libraries.table import Column, Target, target_of
from invconv_conformance.truth.bounds import EPS

_DIFFERENCES_HOLD = 1e-10  # condition x eps beyond which the dense differences are no truth


@law("vjp.input", "linear algebra", singular=True)
def vjp_input(s: Setting) -> Iterator[Measure]:
    """x_bar = K^T y_bar, and y_bar = K^-T x_bar through the inverse."""
    bar = s.images[2]
    wanted = s.transposed(bar)
    cases = [("x_bar", wanted, s.unit * s.scales.gain * s.norm(bar))]
    if not s.case.singular:
        solved = s.transposed(bar, inverse=True)
        cases.append(("y_bar", solved, s.lever * s.norm(solved)))
    # K does not depend on x, so that the log-determinant adds nothing
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
        if name.rpartition(".")[2] == "reflectors":  # whose length says nothing
            direction *= np.linalg.norm(array, axis=1, keepdims=True)
        truth = _differences(s, name, direction, s_bar)
        for (what, found), (slope, size) in zip(gradients, truth, strict=True):
            terms = values(found[name]) * direction
            reach = float(np.abs(terms).sum())
            bound = (s.lever + 1e-9) * (size + reach) + float(s.cast(np.asarray(reach)))
            yield Measure(f"{what}, {name}_bar", abs(float(terms.sum()) - slope), bound)


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
            size = largest(values(other))
            size += float(np.linalg.norm(values(x)) * np.linalg.norm(values(bar)))
            error = largest(values(one) - values(other))
            yield Measure(f"{what}, {name}", error, s.gradient_bound(size))


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


_LOUD = 2.0**20, 16.0  # times other samples; less in the half types
_LOST = 1e4  # eps by which a recurrence of 8 pixels loses its inverse, though not beside 1e6


@law("isolation", "linearity")
def isolation(s: Setting) -> Iterator[Measure]:
    """A NaN or inf in one sample leaves the others as they were."""
    if s.alone:
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
    if s.alone:
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
    """Return the measures of a chain of the library's that keeps no activations."""
    target, eps = target_of(Column(library, device, "eager", dtype)), EPS[dtype]
    gradients_of = functools.partial(_gradients, target, dtype)
    kernel = np.asarray([[[1.0, 0.5]]])
    chain = ic.Chain([ic.ActNorm(np.zeros(1), np.ones(1), ndim=1), ic.AutoregressiveConv(kernel)])
    x = np.random.default_rng(0).standard_normal((3, 1, 8))
    bar = np.where([[[1]], [[0]], [[0]]], np.cos(x), 0.0)
    wanted, x_bar = chain.forward_vjp(x[:1], bar[:1])
    x[1] = 1e6 * np.eye(8)[-1]  # which is not lost itself
    found, found_x_bar = gradients_of(chain, chain, x, bar)
    pairs = [(found[name], gradient) for name, gradient in wanted.items()]
    x[2] = math.nan
    pairs += [(a[:1], x_bar) for a in (found_x_bar, gradients_of(chain, chain, x, bar)[1])]
    measures = [Measure("recomputed", largest(a - b), 1e3 * eps) for a, b in pairs]
    tap = (_LOST / eps) ** (1 / 8)
    grown = chain.replace(**{"1.kernel": np.asarray([[[1.0, -tap]]])})
    small = x[:2] * [[[eps / 16]], [[1.0]]]  # which is lost beside the bias

    def refused(what: str, trained: ic.Chain, image: Floats) -> Measure:
        gradients, _ = gradients_of(chain, trained, image, bar[:2])
        text = f"no gradient of an image that {what} loses beside a large one"
        return truth(all(np.isnan(g).all() for g in gradients.values()), text)

    return [*measures, refused("a tap", grown, x[:2]), refused("a bias", chain, small)]


def _gradients(
    target: Target, dtype: str, judged: ic.Chain, trained: ic.Chain, x: Floats, bar: Floats
) -> tuple[dict[str, Floats], Floats]:
    library: Any = target.library
    array = functools.partial(target.asarray, dtype=dtype)
    run = library.recomputing(judged.asarrays(array(x)), array(x))
    weights = {name: array(a) for name, a in trained.parameters().items()}
    try:
        bars = array(bar), array(np.zeros(len(x)))
        gradients, x_bar = library.pullback(run, weights, array(x), bars)
    except RuntimeError:
        return {name: np.full(a.shape, math.nan) for name, a in weights.items()}, x * math.nan
    return {name: values(g) for name, g in gradients.items()}, values(x_bar)
