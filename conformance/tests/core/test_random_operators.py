"""Hypothesis: random kernels, masks, directions, dilations, grids and dtypes against the oracle."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import invconv as ic
from invconv.arrays.registry import agnostic
from invconv_conformance.truth import oracle

# the same examples each time; tests.fuzz looks for new ones
often = settings(
    max_examples=200,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)
EPS_BOUND = {"float64": 1e-12, "float32": 2e-6}


@st.composite
def grids(draw: st.DrawFn) -> tuple[int, ...]:
    ndim = draw(st.integers(1, 4))
    largest = {1: 12, 2: 7, 3: 4, 4: 3}[ndim]
    return tuple(draw(st.lists(st.integers(1, largest), min_size=ndim, max_size=ndim)))


@st.composite
def autoregressive(draw: st.DrawFn, ndim: int, channels: int) -> ic.AutoregressiveConv:
    mask = draw(st.sampled_from(["corner", "raster"]))
    size = draw(st.lists(st.integers(1, 3 if ndim < 4 else 2), min_size=ndim, max_size=ndim))
    signs = st.sampled_from([1, -1])
    direction: Any = draw(
        signs if mask == "raster" else st.lists(signs, min_size=ndim, max_size=ndim)
    )
    dilation = draw(st.lists(st.integers(1, 3), min_size=ndim, max_size=ndim))
    return ic.AutoregressiveConv.init(
        channels,
        tuple(size),
        ndim,
        mask=mask,
        direction=direction if isinstance(direction, int) else tuple(direction),
        channel_order=draw(st.sampled_from(["lower", "upper"])),
        dilation=tuple(dilation),
        rng=np.random.default_rng(0),
    )


_FAMILIES = ("autoregressive", "emerging", "exponential", "periodic", "1x1", "chain")


@st.composite
def operators(draw: st.DrawFn) -> tuple[ic.InvertibleConv, tuple[int, ...], np.random.Generator]:
    grid = draw(grids())
    ndim, channels = len(grid), draw(st.integers(1, 3))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    family = draw(st.sampled_from(_FAMILIES))
    sizes = st.lists(st.integers(1, 4 if ndim < 3 else 3), min_size=ndim, max_size=ndim)
    dilation = tuple(draw(st.lists(st.integers(1, 3), min_size=ndim, max_size=ndim)))
    conv: ic.InvertibleConv
    if family == "autoregressive":
        conv = draw(autoregressive(ndim, channels))
    elif family == "emerging":
        odd = tuple(2 * (k // 2) + 1 for k in draw(sizes))
        conv = ic.EmergingConv.init(channels, odd, ndim, dilation, rng=rng)
    elif family == "exponential":
        odd = tuple(2 * (k // 2) + 1 for k in draw(sizes))
        padding = draw(st.sampled_from(["zeros", "circular"]))
        settings: Any = {"padding": padding, "dilation": dilation}
        conv = ic.ExponentialConv.init(channels, odd, ndim, rng=rng, **settings)
    elif family == "periodic":
        conv = ic.PeriodicConv.init(channels, tuple(draw(sizes)), ndim, dilation=dilation, rng=rng)
    elif family == "1x1":
        cls: Any = draw(st.sampled_from([ic.Conv1x1, ic.PLUConv1x1, ic.QRConv1x1]))
        conv = cls.init(channels, rng=rng, ndim=ndim)
    else:
        steps: list[ic.InvertibleConv] = [
            ic.QRConv1x1.init(channels, rng=rng),
            draw(autoregressive(ndim, channels)),
        ]
        conv = ic.Chain(steps)
    scale = draw(st.sampled_from([0.0, 0.05, 0.3]))
    return (
        conv.replace(
            **{n: p + scale * rng.standard_normal(p.shape) for n, p in conv.parameters().items()}
        ),
        grid,
        rng,
    )


@often
@given(
    operators(),
    st.lists(st.integers(0, 2), max_size=2),
    st.sampled_from(["float64", "float32"]),
    st.booleans(),
)
def test_random_operator(
    drawn: tuple[ic.InvertibleConv, tuple[int, ...], np.random.Generator],
    batch: list[int],
    dtype: str,
    force_agnostic: bool,
) -> None:
    host, grid, rng = drawn
    if host.ndim is None:
        batch = [2]
    conv = host.asarrays(np.empty(0, dtype))
    matrix, shift = oracle.affine(conv.asarrays(np.empty(0)), grid)
    condition = float(np.linalg.cond(matrix))
    if not condition * EPS_BOUND[dtype] < 1e-3:
        return
    bound = EPS_BOUND[dtype] * max(1.0, condition)
    x = rng.standard_normal((*batch, host.channels, *grid)).astype(dtype)
    count = math.prod(batch)
    expected = (x.reshape(count, matrix.shape[0]).astype(float) @ matrix.T + shift).reshape(x.shape)

    def run() -> tuple[Any, Any, Any]:
        y, log_det = conv.forward_and_log_det(x)
        # how far a lost inverse is judged has tests of its own; of a series it takes all the time
        check = not isinstance(host, ic.ExponentialConv)
        return y, log_det, conv.prepare(grid, check=check).inverse(expected.astype(dtype))

    if force_agnostic:
        with agnostic():
            y, log_det, back = run()
    else:
        y, log_det, back = run()
    norm = float(np.linalg.norm(expected))
    assert float(np.linalg.norm(y - expected)) <= bound * norm
    assert float(np.linalg.norm(back - x)) <= 3 * bound * float(np.linalg.norm(x))
    singular_values = np.linalg.svd(matrix, compute_uv=False)
    terms = float(np.abs(np.log(singular_values)).sum())
    rounding = bound * max(1.0, terms)
    if isinstance(host, ic.PeriodicConv):
        # taps that fall onto one pixel may cancel; the rounding of each stays, in every logarithm
        reach = float(np.abs(host.kernel).sum() / singular_values[-1])
        rounding += float(np.finfo(dtype).eps) * len(matrix) * reach
    assert np.all(np.abs(log_det - np.linalg.slogdet(matrix)[1]) <= rounding)
    assert log_det.shape == tuple(batch)
    assert y.dtype == back.dtype == log_det.dtype == np.dtype(dtype)
