"""The cases of exponentials of convolutions: borders, sizes, grids, and norms up to 20."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import numpy as np

import invconv as ic
from invconv_conformance.cases.autoregressive import GRIDS
from invconv_conformance.cases.case import Build, Case, biased, built

_build = functools.partial(built, ic.ExponentialConv, scale=0.1)


def exponential_cases() -> Iterator[Case]:
    """Yield them."""
    for padding in ("zeros", "circular"):
        name = f"exponential-{padding}"
        for ndim, grid in GRIDS.items():
            yield Case(f"{name}-{ndim}d", _build(ndim=ndim, padding=padding), grid)
        for k, grid in ((5, (4, 5)), (7, (2, 3)), (3, (1, 1)), ((1, 3), (4, 5)), (1, (2, 3))):
            size = k if isinstance(k, int) else "x".join(map(str, k))
            build = _build(scale=0.05, kernel_size=k, padding=padding)
            yield Case(f"{name}-k{size}-on-{grid[0]}x{grid[1]}", build, grid)
        yield Case(f"{name}-dilated", _build(dilation=(1, 3), padding=padding), (3, 4), ())
        yield Case(f"{name}-skew", _of_norm(9.0, functools.partial(_skew, padding)), (3, 4))
        norm_20 = _of_norm(20.0, functools.partial(_random, padding))
        yield Case(f"{name}-norm-20", norm_20, (2, 3), wide=True)
    yield Case("exponential-one-row", _build(), (1, 6))
    yield Case("exponential-one-column", _build(padding="circular"), (6, 1))
    yield Case("exponential-bias", biased(_build()), (4, 5), (2, 2))
    yield Case("exponential-defective", _defective, (2, 4))
    yield Case("exponential-decaying", _decaying, (2, 3), wide=True)
    for norm in (1e-9, 1e-4, 1e-2):  # of which the series has a few terms, each of which shows
        wide = norm < 1e-6  # float16 has no such taps
        yield Case(f"exponential-norm-{norm:g}", _of_norm(norm, _build()), (3, 4), wide=wide)


def _of_norm(norm: float, build: Any) -> Build:
    """Return what makes the operator with M of a norm."""

    def scaled(rng: np.random.Generator) -> ic.InvertibleConv:
        conv = build(rng)
        rows = np.abs(conv.kernel).sum(axis=(1, 2, 3)).max()
        return ic.ExponentialConv(norm * conv.kernel / rows, padding=conv.padding)

    return scaled


def _random(padding: str, rng: np.random.Generator) -> ic.ExponentialConv:
    return ic.ExponentialConv(rng.standard_normal((2, 2, 3, 3)), padding=padding)


def _skew(padding: str, rng: np.random.Generator) -> ic.ExponentialConv:
    """Return one that is orthogonal."""
    kernel = _random(padding, rng).kernel
    turned = kernel.transpose(1, 0, 2, 3)[:, :, ::-1, ::-1]
    return ic.ExponentialConv(kernel - turned, padding=padding)


def _defective(rng: np.random.Generator) -> ic.ExponentialConv:
    """Return one with M^3 = 0, whose only eigenvector has no basis beside it."""
    kernel = np.zeros((3, 3, 1, 3))
    kernel[0, 1, 0], kernel[1, 2, 0] = rng.standard_normal((2, 3))
    return ic.ExponentialConv(kernel, padding="circular")


def _decaying(rng: np.random.Generator) -> ic.ExponentialConv:
    """Return e^(M - 12): a series of M - 12 would cancel all digits."""
    kernel = 0.1 * rng.standard_normal((2, 2, 1, 3))
    kernel[:, :, 0, 1] -= 12 * np.eye(2)
    return ic.ExponentialConv(kernel)
