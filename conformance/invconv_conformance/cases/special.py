"""Cases at the edge: singular, badly conditioned, and of huge or tiny numbers."""

import functools
from collections.abc import Iterator
from typing import Any

import numpy as np

import invconv as ic
from invconv_conformance.cases.case import Build, Case, Shape, built, edited, of_values, with_bias

_FACTOR = 2.0**50  # with it and its square, float32 stays in range


def special_cases() -> Iterator[Case]:
    """Yield them."""
    for name, build, shape in _singular():
        yield Case(f"singular-{name}", build, shape, singular=True)
    for name, build, shape in _ill_conditioned():
        yield Case(f"ill-{name}", build, shape, wide=True)
    yield from _scaled()


def _fixed(conv: ic.InvertibleConv) -> Build:
    return lambda rng: conv


def _zeroed(cls: Any, name: str, place: Any, value: float = 0.0, scale: float = 0.1) -> Build:
    build = built(cls, scale=scale)
    return lambda rng: edited(build(rng), name, place, value)


def _quarter_turns(rng: np.random.Generator) -> ic.PeriodicConv:
    # K_hat(f) has a row exp(-2 pi i f/n) + exp(2 pi i f/n) = 2 cos(2 pi f/n), zero at f = n/4
    kernel = 0.1 * np.triu(rng.standard_normal((3, 3)), 1)[:, :, None, None] * np.ones(3)
    kernel[0, 0, 0, 1] = kernel[2, 2, 0, 1] = kernel[1, 1, 0, 0] = kernel[1, 1, 0, 2] = 1.0
    return ic.PeriodicConv(kernel)


def _singular() -> Iterator[tuple[str, Build, Shape]]:
    """Yield operators whose zero pivot no rounding can hide."""
    rows, ends = np.asarray([[1.0, 2, 0], [2, 4, 0], [0, 0, 1]]), np.asarray([1.0, 2.0])
    pivot = _zeroed(ic.AutoregressiveConv, "kernel", (1, 1, 0, 0))

    def chain(rng: np.random.Generator) -> ic.Chain:
        return ic.Chain([with_bias(ic.Conv1x1.init(3, rng=rng), rng), pivot(rng)])

    yield "corner", pivot, (4, 5)
    yield "emerging", _zeroed(ic.EmergingConv, "second.kernel", (0,) * 4, scale=0.05), (4, 5)
    yield "periodic", _fixed(ic.PeriodicConv(np.asarray([[[1.0, -1.0]]]))), (6,)
    # 1 - 1/2 (x[p - 1] + x[p + 1]) of a constant image
    yield "symmetric", _fixed(ic.SymmetricConv(np.asarray([[[1.0, -0.5]]]))), (6,)
    # cos(pi m / 2) is zero for odd m
    turned = ic.SymmetricConv(np.asarray([[[0.0, 1.0]]]))
    yield "symmetric-quarter-turns", _fixed(turned), (2,)
    yield "quarter-turns", _quarter_turns, (2, 8)
    yield "conv1x1", _fixed(ic.Conv1x1(rows)), (4, 5)
    # exp(-20000) is zero in every dtype, extended precision too
    yield "pluconv1x1", _zeroed(ic.PLUConv1x1, "log_scale", 1, -20000.0), (4, 5)
    yield "qrconv1x1", _zeroed(ic.QRConv1x1, "scale", 1), (4, 5)
    # the mean of c is c_hat at frequency 0
    circulant = ic.CirculantConv1x1(ends, np.asarray([3.0, -3.0]), ends)
    yield "circulantconv1x1", _fixed(circulant), (4, 5)
    yield "actnorm", _zeroed(ic.ActNorm, "log_scale", 1, -20000.0), (4, 5)
    yield "chain", chain, (4, 5)


def _one_channel(*taps: float, **options: Any) -> ic.AutoregressiveConv:
    return ic.AutoregressiveConv(np.asarray(taps).reshape(1, 1, 1, -1), **options)


def _triangle(channels: int, first: float, others: float, rng: np.random.Generator) -> Any:
    """Return one whose matrix at the pixel grows, multiplied by D^-1 or solved with."""
    kernel = others * rng.standard_normal((channels, channels, 2, 2))
    kernel[:, :, 0, 0] = np.eye(channels) - first * np.tril(np.ones((channels,) * 2), -1)
    return ic.AutoregressiveConv(kernel)


def _two_taps(cls: Any, tap: float, beside: float, rng: np.random.Generator) -> Any:
    kernel = np.zeros((3, 3, 1, 2))
    kernel[:, :, 0, 0] = np.eye(3)
    kernel[:, :, 0, 1] = np.eye(3) * tap + beside * np.triu(rng.standard_normal((3, 3)), 1)
    return cls(kernel)


def _frequencies(rng: np.random.Generator) -> ic.PeriodicConv:
    """Return one that is lost where the spectrum's inverse is multiplied by."""
    weight = of_values(np.geomspace(1.0, 1e-8, 4), rng).weight
    return ic.PeriodicConv(np.stack([weight, 0.5 * weight], -1)[:, :, None])


def _circulant(rng: np.random.Generator) -> ic.CirculantConv1x1:
    scales = [rng.permutation(np.geomspace(1.0, 1e-3, 5)) for _ in range(2)]
    c = np.fft.irfft(np.asarray([1.0, 1e-3j, 0.5]), 5)
    return ic.CirculantConv1x1(scales[0], c, scales[1])


def _scales(rng: np.random.Generator) -> ic.InvertibleConv:
    conv, scale = ic.QRConv1x1.init(4, rng=rng), np.geomspace(1.0, 1e-4, 4)
    return conv.replace(scale=scale, upper=0.1 * rng.standard_normal((4, 4)))


def _ill_conditioned() -> Iterator[tuple[str, Build, Shape]]:
    """Yield operators whose inverse float32 cannot carry, and some that float64 cannot."""
    of = functools.partial
    yield "symmetric", of(_two_taps, ic.SymmetricConv, 0.5 - 2.0**-8, 0.05), (2, 8)
    # lost where D^-1 is multiplied by instead of solved with
    yield "pixel", of(_triangle, 8, 9.1, 1e-9), (2, 3)
    yield "frequencies", _frequencies, (2, 5)
    yield "corner", _fixed(_one_channel(1.0, -3.0)), (2, 16)
    yield "corner-in-float64", _fixed(_one_channel(1.0, -29.6)), (1, 16)
    first = _one_channel(1.0, -1.5, direction=-1)
    pair = ic.EmergingConv(first, _one_channel(1.0, -1.5, channel_order="upper"))
    yield "emerging", _fixed(pair), (2, 12)
    yield "triangle", of(_triangle, 5, 9, 0.1), (2, 3)
    yield "periodic", of(_two_taps, ic.PeriodicConv, 1.0 - 2.0**-7, 0.1), (2, 8)
    yield "conv1x1", of(of_values, np.geomspace(1.0, 1e-6, 4)), (2, 3)
    yield "circulantconv1x1", _circulant, (2, 3)
    yield "qrconv1x1", _scales, (2, 3)


def _scaled() -> Iterator[Case]:
    classes: list[Any] = [ic.AutoregressiveConv, ic.EmergingConv, ic.PeriodicConv, ic.Conv1x1]
    for name, factor in (("huge", _FACTOR), ("tiny", 1 / _FACTOR)):
        for cls in classes:
            build = functools.partial(_with_factor, cls, factor)
            yield Case(f"{name}-{cls.__name__.lower()}", build, (4, 5), wide=True)
        log_scaled = functools.partial(_log_scaled, np.log(factor))
        yield Case(f"{name}-actnorm", log_scaled, (4, 5), wide=True)


def _log_scaled(shift: float, rng: np.random.Generator) -> ic.ActNorm:
    return ic.ActNorm(shift + 0.1 * rng.standard_normal(3), rng.standard_normal(3))


def _with_factor(cls: Any, factor: float, rng: np.random.Generator) -> Any:
    conv = built(cls)(rng)
    # of a pair only one factor, so that its product stays in range
    name, array = next(iter(conv.parameters().items()))
    return edited(conv, name, ..., factor * array)
