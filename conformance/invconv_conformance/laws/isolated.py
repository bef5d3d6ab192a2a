"""The laws of what samples of a batch do to each other's gradients: nothing."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from typing import Any

import numpy as np

import invconv as ic
from invconv_conformance.laws.law import law, truth, values
from invconv_conformance.laws.setting import Array, Floats, Measure, Setting
from invconv_conformance.libraries.library import Column
from invconv_conformance.libraries.table import Target, target_of
from invconv_conformance.truth.bounds import EPS

_LOUD = {"float64": 2.0**20, "float32": 2.0**20}  # times other samples; less in the half types
_LOST = 1e4  # eps by which a recurrence of 8 pixels loses its inverse, though not beside 1e6


@law(
    "isolation.gradients",
    "a sample's gradients do not depend on the other samples, and those by parameters are sums "
    "over the samples; recomputed activations are right for each sample, or there is no gradient",
    "linearity",
)
def isolated_gradients(s: Setting) -> Iterator[Measure]:
    """Beside samples that are large or NaN; a cotangent of zero leaves a sample out of a sum."""
    batch = s.case.batch_shape
    if not batch or batch[0] < 2:
        return
    x, y, bar = s.images
    first = np.arange(batch[0]).reshape(-1, *(1 for _ in x.shape[1:])) == 0
    loud = np.where(first, 1.0, _LOUD.get(s.dtype, 16.0))
    for what, image in (("forward_vjp", x), ("inverse_vjp", y)):
        every, x_bar = _pulled_back(s, what, image, bar)
        mine, others, beside = (
            _pulled_back(s, what, *arrays)[0]
            for arrays in (
                (image, np.where(first, bar, 0.0)),
                (image, np.where(first, 0.0, bar)),
                (loud * image, np.where(first, bar, 0.0)),
            )
        )
        _, alone = _pulled_back(s, what, *(np.where(first, a, math.nan) for a in (image, bar)))
        yield truth(np.array_equal(alone[0], x_bar[0]), f"{what}, the image beside NaN")
        reach = s.norm(image) * s.norm(bar)
        share = len(reach) // batch[0]
        for name, gradient in mine.items():
            error = np.abs(every[name] - gradient - others[name]).max(initial=0)
            yield _measure(s, f"{what}, {name} as a sum", error, every[name], reach)
            error = np.abs(beside[name] - gradient).max(initial=0)
            yield _measure(s, f"{what}, {name} beside large", error, gradient, reach[:share])
    if s.target.mode == "eager" and s.target.library.recomputing and s.dtype in _LOUD:
        yield from _recomputed(s.target.library.name, s.target.device, s.dtype)


def _pulled_back(
    s: Setting, what: str, image: Floats, bar: Floats
) -> tuple[dict[str, Floats], Floats]:
    with np.errstate(invalid="ignore"):
        gradients, x_bar = getattr(s.conv, what)(s.array(image), s.array(bar))
    return {name: values(g) for name, g in gradients.items()}, values(x_bar)


def _measure(s: Setting, what: str, error: Any, gradient: Floats, reach: Floats) -> Measure:
    size = float(np.abs(gradient).max(initial=0)) + float(reach.sum())
    lever = s.unit * (s.scales.gain * s.scales.loss) ** 2
    return Measure(what, float(error), lever * size + 3 * float(s.cast(np.asarray(size))))


@functools.cache
def _recomputed(library: str, device: str, dtype: str) -> list[Measure]:
    """Return the measures of a chain of the library's that keeps no activations."""
    target = target_of(Column(library, device, "eager", dtype))
    kernel = np.asarray([[[1.0, 0.5]]])
    chain = ic.Chain([ic.ActNorm(np.zeros(1), np.ones(1), ndim=1), ic.AutoregressiveConv(kernel)])
    x = np.random.default_rng(0).standard_normal((3, 1, 8))
    bar = np.where([[[1]], [[0]], [[0]]], np.cos(x), 0.0)
    wanted, x_bar = chain.forward_vjp(x[:1], bar[:1])
    x[1] = 1e6 * np.eye(8)[-1]  # which is not lost itself
    found = _gradients(target, dtype, chain, chain, x, bar)
    pairs = [(found[0][name], gradient) for name, gradient in wanted.items()]
    pairs.append((found[1][:1], x_bar))
    x[2] = math.nan
    pairs.append((_gradients(target, dtype, chain, chain, x, bar)[1][:1], x_bar))
    measures = [
        Measure("recomputed", float(np.abs(a - b).max()), 1e3 * EPS[dtype]) for a, b in pairs
    ]
    tap = (_LOST / EPS[dtype]) ** (1 / 8)
    grown = chain.replace(**{"1.kernel": np.asarray([[[1.0, -tap]]])})
    small = x[:2] * [[[EPS[dtype] / 16]], [[1.0]]]  # which is lost beside the bias
    for what, trained, image in (("a tap", grown, x[:2]), ("a bias", chain, small)):
        gradients, _ = _gradients(target, dtype, chain, trained, image, bar[:2])
        none = all(np.isnan(g).all() for g in gradients.values())
        measures.append(
            truth(none, f"no gradient of an image that {what} loses beside a large one")
        )
    return measures


def _gradients(
    target: Target, dtype: str, judged: ic.Chain, trained: ic.Chain, x: Floats, bar: Floats
) -> tuple[dict[str, Floats], Floats]:
    """Return the gradients after a chain was judged and trained, NaN where there are none."""
    assert target.library.recomputing is not None
    assert target.library.pullback is not None

    def array(numbers: Floats) -> Array:
        return target.asarray(numbers, dtype)

    run = target.library.recomputing(judged.asarrays(array(x)), array(x))
    weights = {name: array(a) for name, a in trained.parameters().items()}
    try:
        gradients, x_bar = target.library.pullback(
            run, weights, array(x), (array(bar), array(np.zeros(len(x))))
        )
    except RuntimeError:
        return {name: np.full(a.shape, math.nan) for name, a in weights.items()}, x * math.nan
    return {name: values(g) for name, g in gradients.items()}, values(x_bar)
