"""The cases of exponentials of convolutions: borders, sizes, grids, and norms up to 20."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

import invconv as ic
from invconv_conformance.cases.autoregressive import GRIDS
from invconv_conformance.cases.case import Build, Case, perturbed, with_bias


def exponential_cases() -> Iterator[Case]:
    """Yield them."""
    for padding in ("zeros", "circular"):
        for ndim, grid in GRIDS.items():
            yield Case(f"exponential-{padding}-{ndim}d", _build(ndim, padding=padding), grid)
        for k, grid in ((5, (4, 5)), (7, (2, 3)), (3, (1, 1)), ((1, 3), (4, 5)), (1, (2, 3))):
            size = k if isinstance(k, int) else "x".join(map(str, k))
            name = f"exponential-{padding}-k{size}-on-{grid[0]}x{grid[1]}"
            yield Case(name, _build(2, 0.05, padding=padding, kernel_size=k), grid)
        dilated = _build(2, padding=padding, dilation=(1, 3))
        yield Case(f"exponential-{padding}-dilated", dilated, (3, 4), ())
        yield Case(f"exponential-{padding}-skew", _skew(padding), (3, 4))
        yield Case(f"exponential-{padding}-norm-20", _norm_20(padding), (2, 3), wide=True)
    yield Case("exponential-one-row", _build(2), (1, 6))
    yield Case("exponential-one-column", _build(2, padding="circular"), (6, 1))
    yield Case("exponential-bias", lambda rng: with_bias(_build(2)(rng), rng), (4, 5), (2, 2))
    yield Case("exponential-defective", _defective, (2, 4))
    yield Case("exponential-decaying", _decaying, (2, 3), wide=True)
    for norm in (1e-9, 1e-4, 1e-2):  # of which the series has a few terms, each of which shows
        wide = norm < 1e-6  # float16 has no such taps
        yield Case(f"exponential-norm-{norm:g}", _of_norm(norm), (3, 4), wide=wide)


def _build(ndim: int, scale: float = 0.1, **options: Any) -> Build:
    return lambda rng: perturbed(
        ic.ExponentialConv.init(3, ndim=ndim, rng=rng, **options), rng, scale
    )


def _with_norm(conv: ic.ExponentialConv, norm: float, **options: Any) -> ic.ExponentialConv:
    rows = np.abs(conv.kernel).sum(axis=(1, 2, 3)).max()
    return ic.ExponentialConv(norm * conv.kernel / rows, padding=conv.padding, **options)


def _of_norm(norm: float) -> Build:
    return lambda rng: _with_norm(_build(2)(rng), norm)  # type: ignore[arg-type]


def _norm_20(padding: str) -> Build:
    return lambda rng: _with_norm(
        ic.ExponentialConv(rng.standard_normal((2, 2, 3, 3)), padding=padding), 20.0
    )


def _skew(padding: str) -> Build:
    """Return one that is orthogonal, of a norm of several steps."""

    def build(rng: np.random.Generator) -> ic.ExponentialConv:
        kernel = rng.standard_normal((2, 2, 3, 3))
        kernel = kernel - kernel.transpose(1, 0, 2, 3)[:, :, ::-1, ::-1]
        return _with_norm(ic.ExponentialConv(kernel, padding=padding), 9.0)

    return build


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
