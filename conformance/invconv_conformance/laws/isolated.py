"""The laws of what samples of a batch do to each other: nothing."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from typing import Any

import numpy as np

import invconv as ic
from invconv.arrays.namespaces import Array
from invconv_conformance.laws.compiled import DIRECTIONS, PULLBACKS
from invconv_conformance.laws.law import Floats, Measure, largest, law, truth, values
from invconv_conformance.laws.setting import Setting
from invconv_conformance.libraries.library import Column
from invconv_conformance.libraries.table import Target, target_of
from invconv_conformance.truth.bounds import EPS

_LOUD = {"float64": 2.0**20, "float32": 2.0**20}  # times other samples; less in the half types
_LOST = 1e4  # eps by which a recurrence of 8 pixels loses its inverse, though not beside 1e6


@law("isolation", "linearity")
def isolation(s: Setting) -> Iterator[Measure]:
    """A NaN or inf in one sample leaves the others as they were."""
    if not s.case.batch_shape or s.images[0].shape[0] < 2:
        return
    for bad, place in ((math.nan, 0), (math.inf, -1)):
        x = s.images[0].copy()
        x.reshape(x.shape[0], -1)[place, 0] = bad
        others = slice(1, None) if place == 0 else slice(-1)
        for what in DIRECTIONS:
            with np.errstate(invalid="ignore"):
                got, log_det = map(values, getattr(s.conv, what)(s.array(x)))
            good, wanted = map(values, getattr(s.conv, what)(s.array(s.images[0])))
            yield truth(np.array_equal(got[others], good[others]), f"{what}, {bad}")
            yield truth(np.array_equal(log_det, wanted), f"log-determinant of {what}, {bad}")
            yield truth(not np.isfinite(got[place]).all(), f"{what}, {bad} is passed on")


@law("isolation.gradients", "linearity")
def isolated_gradients(s: Setting) -> Iterator[Measure]:
    """A sample's gradients do not depend on the other samples, and those by parameters are sums
    over the samples; recomputed activations are right for each sample, or there is no gradient.
    """
    batch = s.case.batch_shape
    if not batch or batch[0] < 2:
        return
    bar = s.images[2]
    first = np.arange(batch[0]).reshape(-1, *(1 for _ in bar.shape[1:])) == 0
    loud = np.where(first, 1.0, _LOUD.get(s.dtype, 16.0))
    for what, image in zip(PULLBACKS, s.images, strict=False):
        every, x_bar = _pulled_back(s, what, image, bar)
        mine, _ = _pulled_back(s, what, image, np.where(first, bar, 0.0))
        others, _ = _pulled_back(s, what, image, np.where(first, 0.0, bar))
        beside, _ = _pulled_back(s, what, loud * image, np.where(first, bar, 0.0))
        _, alone = _pulled_back(s, what, *(np.where(first, a, math.nan) for a in (image, bar)))
        yield truth(np.array_equal(alone[0], x_bar[0]), f"{what}, the image beside NaN")
        reach = s.norm(image) * s.norm(bar)
        share = len(reach) // batch[0]
        for name, gradient in mine.items():
            pairs = (
                ("as a sum", every[name] - others[name], every[name], reach),
                ("beside large", beside[name], gradient, reach[:share]),
            )
            for how, found, scale, norms in pairs:
                size = largest(scale) + float(norms.sum())
                bound = s.gradient_bound(size) + 2 * float(s.cast(np.asarray(size)))
                yield Measure(f"{what}, {name} {how}", largest(found - gradient), bound)
    if s.target.mode == "eager" and s.target.library.recomputing and s.dtype in _LOUD:
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
    for what, trained, image in (("a tap", grown, x[:2]), ("a bias", chain, small)):
        gradients, _ = gradients_of(chain, trained, image, bar[:2])
        none = all(np.isnan(g).all() for g in gradients.values())
        text = f"no gradient of an image that {what} loses beside a large one"
        measures.append(truth(none, text))
    return measures


def _gradients(
    target: Target, dtype: str, judged: ic.Chain, trained: ic.Chain, x: Floats, bar: Floats
) -> tuple[dict[str, Floats], Floats]:
    """Return the gradients after a chain was judged and trained, NaN where there are none."""
    library: Any = target.library

    def array(numbers: Floats) -> Array:
        return target.asarray(numbers, dtype)

    run = library.recomputing(judged.asarrays(array(x)), array(x))
    weights = {name: array(a) for name, a in trained.parameters().items()}
    try:
        bars = array(bar), array(np.zeros(len(x)))
        gradients, x_bar = library.pullback(run, weights, array(x), bars)
    except RuntimeError:
        return {name: np.full(a.shape, math.nan) for name, a in weights.items()}, x * math.nan
    return {name: values(g) for name, g in gradients.items()}, values(x_bar)
