"""Cases at the edge: singular, badly conditioned, and of huge or tiny numbers."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import numpy as np

import invconv as ic
from invconv_conformance.cases.case import Build, Case, perturbed, with_bias

_FACTOR = 2.0**50  # with it and its square, float32 stays in range


def special_cases() -> Iterator[Case]:
    """Yield them."""
    yield from _singular()
    yield from _ill_conditioned()
    yield from _scaled()


def _fixed(conv: ic.InvertibleConv) -> Build:
    return lambda rng: conv


def _singular() -> Iterator[Case]:
    """Yield operators whose zero pivot no rounding can hide."""
    rows = np.asarray([[1.0, 2.0, 0.0], [2.0, 4.0, 0.0], [0.0, 0.0, 1.0]])
    difference = np.asarray([[[1.0, -1.0]]])

    def pivot(rng: np.random.Generator) -> ic.AutoregressiveConv:
        conv = perturbed(ic.AutoregressiveConv.init(3, rng=rng), rng)
        kernel = conv.kernel.copy()
        kernel[1, 1, 0, 0] = 0.0
        replaced: ic.AutoregressiveConv = conv.replace(kernel=kernel)
        return replaced

    def pair(rng: np.random.Generator) -> ic.EmergingConv:
        conv = perturbed(ic.EmergingConv.init(3, rng=rng), rng, 0.05)
        kernel = conv.second.kernel.copy()
        kernel[0, 0, 0, 0] = 0.0
        replaced: ic.EmergingConv = conv.replace(**{"second.kernel": kernel})
        return replaced

    def factors(cls: Any, name: str, value: float, rng: np.random.Generator) -> Any:
        conv = perturbed(cls.init(3, rng=rng), rng)
        array = conv.parameters()[name].copy()
        array[1] = value
        return conv.replace(**{name: array})

    def quarter_turns(rng: np.random.Generator) -> ic.PeriodicConv:
        # K_hat(f) has a row exp(-2 pi i f/n) + exp(2 pi i f/n) = 2 cos(2 pi f/n), zero at f = n/4
        kernel = 0.1 * np.triu(rng.standard_normal((3, 3)), 1)[:, :, None, None] * np.ones(3)
        kernel[0, 0, 0, 1] = kernel[2, 2, 0, 1] = kernel[1, 1, 0, 0] = kernel[1, 1, 0, 2] = 1.0
        return ic.PeriodicConv(kernel)

    def chain(rng: np.random.Generator) -> ic.Chain:
        return ic.Chain([with_bias(ic.Conv1x1.init(3, rng=rng), rng), pivot(rng)])

    yield Case("singular-corner", pivot, (4, 5), singular=True)
    yield Case("singular-emerging", pair, (4, 5), singular=True)
    yield Case("singular-periodic", _fixed(ic.PeriodicConv(difference)), (6,), singular=True)
    # 1 - 1/2 (x[p - 1] + x[p + 1]) of a constant image
    even = ic.SymmetricConv(np.asarray([[[1.0, -0.5]]]))
    yield Case("singular-symmetric", _fixed(even), (6,), singular=True)
    # cos(pi m / 2) is zero for odd m
    turned = ic.SymmetricConv(np.asarray([[[0.0, 1.0]]]))
    yield Case("singular-symmetric-quarter-turns", _fixed(turned), (2,), singular=True)
    yield Case("singular-quarter-turns", quarter_turns, (2, 8), singular=True)
    yield Case("singular-conv1x1", _fixed(ic.Conv1x1(rows)), (4, 5), singular=True)
    # exp(-20000) is zero in every dtype, extended precision too
    plu = functools.partial(factors, ic.PLUConv1x1, "log_scale", -20000.0)
    yield Case("singular-pluconv1x1", plu, (4, 5), singular=True)
    qr = functools.partial(factors, ic.QRConv1x1, "scale", 0.0)
    yield Case("singular-qrconv1x1", qr, (4, 5), singular=True)
    # the mean of c is c_hat at frequency 0
    ends = np.asarray([1.0, 2.0])
    circulant = ic.CirculantConv1x1(ends, np.asarray([3.0, -3.0]), ends)
    yield Case("singular-circulantconv1x1", _fixed(circulant), (4, 5), singular=True)
    norm = functools.partial(factors, ic.ActNorm, "log_scale", -20000.0)
    yield Case("singular-actnorm", norm, (4, 5), singular=True)
    yield Case("singular-chain", chain, (4, 5), singular=True)


def _one_channel(*taps: float, **options: Any) -> ic.AutoregressiveConv:
    return ic.AutoregressiveConv(np.asarray(taps).reshape(1, 1, 1, -1), **options)


def _rotations(channels: int, smallest: float, rng: np.random.Generator) -> ic.Conv1x1:
    left, right = (ic.Conv1x1.init(channels, rng=rng).weight for _ in range(2))
    return ic.Conv1x1((left * np.geomspace(1.0, smallest, channels)) @ right)


def _pair(rng: np.random.Generator) -> ic.EmergingConv:
    first = _one_channel(1.0, -1.5, direction=-1)
    return ic.EmergingConv(first, _one_channel(1.0, -1.5, channel_order="upper"))


def _triangle(rng: np.random.Generator) -> ic.AutoregressiveConv:
    kernel = 0.1 * rng.standard_normal((5, 5, 2, 2))
    kernel[:, :, 0, 0] = np.eye(5) - 9 * np.tril(np.ones((5, 5)), -1)
    return ic.AutoregressiveConv(kernel)


def _spectrum(rng: np.random.Generator) -> ic.PeriodicConv:
    kernel = np.zeros((3, 3, 1, 2))
    kernel[:, :, 0, 0] = np.eye(3)
    kernel[:, :, 0, 1] = np.eye(3) * (1.0 - 2.0**-7) + 0.1 * np.triu(rng.standard_normal((3, 3)), 1)
    return ic.PeriodicConv(kernel)


def _mirrored(rng: np.random.Generator) -> ic.SymmetricConv:
    kernel = np.zeros((3, 3, 1, 2))
    kernel[:, :, 0, 0] = np.eye(3)
    kernel[:, :, 0, 1] = np.eye(3) * (0.5 - 2.0**-8) + 0.05 * np.triu(
        rng.standard_normal((3, 3)), 1
    )
    return ic.SymmetricConv(kernel)


def _scales(rng: np.random.Generator) -> ic.QRConv1x1:
    conv = ic.QRConv1x1.init(4, rng=rng)
    upper = 0.1 * rng.standard_normal((4, 4))
    replaced: ic.QRConv1x1 = conv.replace(scale=np.geomspace(1.0, 1e-4, 4), upper=upper)
    return replaced


def _circulant(rng: np.random.Generator) -> ic.CirculantConv1x1:
    scales = [rng.permutation(np.geomspace(1.0, 1e-3, 5)) for _ in range(2)]
    c = np.fft.irfft(np.asarray([1.0, 1e-3j, 0.5]), 5)
    return ic.CirculantConv1x1(scales[0], c, scales[1])


def _pixel(rng: np.random.Generator) -> ic.AutoregressiveConv:
    """Return one that is lost where D^-1 is multiplied by instead of solved with."""
    kernel = 1e-9 * rng.standard_normal((8, 8, 2, 2))
    kernel[:, :, 0, 0] = np.eye(8) - 9.1 * np.tril(np.ones((8, 8)), -1)
    return ic.AutoregressiveConv(kernel)


def _frequencies(rng: np.random.Generator) -> ic.PeriodicConv:
    """Return one that is lost where the spectrum's inverse is multiplied by."""
    weight = _rotations(4, 1e-8, rng).weight
    kernel = np.zeros((4, 4, 1, 2))
    kernel[:, :, 0, 0], kernel[:, :, 0, 1] = weight, 0.5 * weight
    return ic.PeriodicConv(kernel)


def _ill_conditioned() -> Iterator[Case]:
    """Yield operators whose inverse float32 cannot carry, and some that float64 cannot."""
    yield Case("ill-symmetric", _mirrored, (2, 8), wide=True)
    yield Case("ill-pixel", _pixel, (2, 3), wide=True)
    yield Case("ill-frequencies", _frequencies, (2, 5), wide=True)
    yield Case("ill-corner", _fixed(_one_channel(1.0, -3.0)), (2, 16), wide=True)
    yield Case("ill-corner-in-float64", _fixed(_one_channel(1.0, -29.6)), (1, 16), wide=True)
    yield Case("ill-emerging", _pair, (2, 12), wide=True)
    yield Case("ill-triangle", _triangle, (2, 3), wide=True)
    yield Case("ill-periodic", _spectrum, (2, 8), wide=True)
    yield Case("ill-conv1x1", functools.partial(_rotations, 4, 1e-6), (2, 3), wide=True)
    yield Case("ill-circulantconv1x1", _circulant, (2, 3), wide=True)
    yield Case("ill-qrconv1x1", _scales, (2, 3), wide=True)


def _scaled() -> Iterator[Case]:
    """Yield operators of huge and of tiny numbers."""
    classes: list[Any] = [ic.AutoregressiveConv, ic.EmergingConv, ic.PeriodicConv, ic.Conv1x1]
    for name, factor in (("huge", _FACTOR), ("tiny", 1 / _FACTOR)):
        for cls in classes:

            def scaled(
                rng: np.random.Generator, cls: Any = cls, factor: float = factor
            ) -> ic.InvertibleConv:
                conv = perturbed(cls.init(3, rng=rng), rng, 0.05)
                # of a pair only one factor, so that its product stays in range
                first = next(iter(conv.parameters()))
                replaced: ic.InvertibleConv = conv.replace(
                    **{first: factor * conv.parameters()[first]}
                )
                return replaced

            yield Case(f"{name}-{cls.__name__.lower()}", scaled, (4, 5), wide=True)

        def log_scaled(rng: np.random.Generator, factor: float = factor) -> ic.ActNorm:
            shift = np.full(3, np.log(factor))
            return ic.ActNorm(shift + 0.1 * rng.standard_normal(3), rng.standard_normal(3))

        yield Case(f"{name}-actnorm", log_scaled, (4, 5), wide=True)
