"""Settings in any pairs, sizes one off any width: dense matrices, or taps one by one."""

import contextlib
import inspect
import itertools
from typing import Any

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

import invconv as ic
from invconv.arrays.registry import agnostic
from invconv.extend import Transposed
from invconv_conformance.cases.table import perturbed, with_bias
from invconv_conformance.truth.oracle import affine, autoregressive_taps

EDGES = [1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33]  # one off the lanes of any vector
_MASKS: Any = {"mask": st.sampled_from(["corner", "raster"])}
_ORDER: Any = {"channel_order": st.sampled_from(["lower", "upper"])}
_DILATION: Any = {"dilation": st.integers(1, 3)}
_BORDERS = st.sampled_from(["symmetric", "mirror", "odd", "zero", "periodic"])
_DIRECTION: Any = {"direction": st.sampled_from([-1, 1])}
_PADDING: Any = {"padding": st.sampled_from(["zeros", "circular"])}
_FREE, _ODD = st.integers(1, 4), st.sampled_from([1, 3, 5])
# by class: the size of a kernel along an axis, its settings, and those with one value per axis
SPACE: dict[Any, tuple[Any, dict[str, Any], dict[str, Any]]] = {
    ic.AutoregressiveConv: (_FREE, _MASKS | _ORDER, _DILATION | _DIRECTION),
    ic.EmergingConv: (_ODD, _MASKS, _DILATION),
    ic.PeriodicConv: (_FREE, {}, _DILATION),
    ic.SymmetricConv: (_ODD, {}, {"boundary": _BORDERS}),
    ic.ExponentialConv: (st.sampled_from([1, 3]), _PADDING, _DILATION),
}


@st.composite
def operators(draw: Any) -> tuple[Any, tuple[int, ...]]:
    """Draw an operator with all settings, and a grid of at most about a hundred numbers."""
    cls = draw(st.sampled_from(list(SPACE)))
    taps, settings, each = SPACE[cls]
    ndim, channels = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    given = {name: draw(values) for name, values in settings.items()}
    sizes = [draw(taps) for _ in range(ndim)]
    given |= {name: tuple(draw(values) for _ in range(ndim)) for name, values in each.items()}
    if given.get("mask") == "raster":  # one direction; odd sizes but along the first axis
        sizes[1:] = [n | 1 for n in sizes[1:]]
        if "direction" in given:
            given["direction"] = given["direction"][0]
    if cls is ic.SymmetricConv:
        sizes = [3 if b == "zero" else n for n, b in zip(sizes, given["boundary"], strict=True)]
    grid = [draw(st.sampled_from([n for n in EDGES if n * channels <= (40, 17, 5)[ndim - 1]]))]
    grid = [*grid, *(draw(st.integers(1, 5)) for _ in range(ndim - 1))]
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    conv = perturbed(cls.init(channels, tuple(sizes), ndim, rng=rng, **given), rng, 0.03)
    return with_bias(conv, rng), tuple(draw(st.permutations(grid)))


@hypothesis.settings(max_examples=150)
@hypothesis.given(
    operators(),
    st.sampled_from(EDGES),
    st.sampled_from(["float64", "float32"]),
    st.sampled_from([agnostic, contextlib.nullcontext]),
)
def test_any_settings_are_the_dense_matrix(drawn: Any, batch: int, dtype: str, how: Any) -> None:
    conv, grid = drawn
    matrix, shift = (part.astype(float) for part in affine(conv, grid))
    condition = float(np.linalg.cond(matrix))
    hypothesis.assume(condition < 1e4)
    eps = float(np.finfo(dtype).eps)
    rows = np.random.default_rng(0).standard_normal((batch, len(matrix)))
    conv = conv.asarrays(np.zeros(0, dtype))

    def near(found: Any, wanted: Any, loss: float = 1.0) -> None:
        size = 1 + float(np.abs(wanted).max())
        assert np.abs(found.reshape(np.shape(wanted)) - wanted).max() < 300 * eps * loss * size

    x = rows.reshape(batch, conv.channels, *grid).astype(dtype)
    with how():
        near(conv.forward(x), rows @ matrix.T + shift)
        near(conv.inverse(x), np.linalg.solve(matrix, (rows - shift).T).T, condition)
        near(conv.log_det(grid), np.linalg.slogdet(matrix)[1], len(matrix))
        for turned in (conv.transpose(), Transposed(conv)):
            near(turned.forward(x), rows @ matrix)
            near(turned.inverse(x), np.linalg.solve(matrix.T, rows.T).T, condition)


def applied(conv: Any, x: Any) -> Any:
    y: Any = np.zeros(x.shape)
    for step, tap in autoregressive_taps(conv):
        pairs = [
            (slice(max(s, 0), n + min(s, 0)), slice(max(-s, 0), n - max(s, 0)))
            for s, n in zip(step, x.shape[2:], strict=True)
        ]
        if all(abs(s) < n for s, n in zip(step, x.shape[2:], strict=True)):
            to, of = ((..., *(pair[end] for pair in pairs)) for end in (0, 1))
            y[to] += np.einsum("ij,bj...->bi...", tap.astype(float), x[of].astype(float))
    return y


# more than a buffer holds: wide, tall, of several planes, with uneven last bands and strips
LARGE = [(2501,), (7, 1001), (333, 33), (49, 35), (5, 19, 34)]


@pytest.mark.parametrize("grid", LARGE, ids=str)
@pytest.mark.parametrize(("batch", "dtype"), [(32, "float32"), (35, "float64"), (1, "float32")])
def test_large_images_are_solved_in_any_direction(grid: Any, batch: int, dtype: str) -> None:
    rng, ndim = np.random.default_rng(0), len(grid)
    ways = [*itertools.product((1, -1), repeat=min(ndim, 2))]
    for number, way in enumerate(ways):
        dilation = tuple(1 + (number + axis) % 3 for axis in range(ndim))
        order, direction = ("lower", "upper")[number % 2], (*way, *[1] * (ndim - len(way)))
        settings: Any = {"direction": direction, "dilation": dilation, "channel_order": order}
        sizes = 1 + number % 2, 2 + number % 2, ndim
        conv: Any = ic.AutoregressiveConv.init(*sizes, rng=rng, **settings)
        conv = perturbed(conv, rng, 0.05).asarrays(np.zeros(0, dtype))
        y = rng.standard_normal((batch, conv.channels, *grid)).astype(dtype)
        x = conv.inverse(y)
        bound = 100 * float(np.finfo(dtype).eps) * (1 + float(np.abs(x).max()))
        assert np.abs(applied(conv, x) - y).max() < bound
        assert np.abs(conv.forward(x) - applied(conv, x)).max() < bound


# as README and the docstrings have them
DEFAULTS = {
    **dict.fromkeys(("lfilter", "sosfilt"), "axis=-1, zi=None"),
    **dict.fromkeys(("propagate", "unpropagate"), "gain=None"),
    "from_psf": "boundary='symmetric', like=None",
    **dict.fromkeys(("squeeze", "unsqueeze"), "factor=2, ndim=2, basis='pixels'"),
    "diagnose": "dtype=None",
    "load": "like=None",
    "InvertibleConv.prepare": "check=True, precision=None",
    "InvertibleConv.condition": "norm=None",
    "InvertibleConv.forward_vjp": "log_det_bar=None",
    "InvertibleConv.inverse_vjp": "log_det_bar=None, check=True",
    "spline_filter": "order=3, mode='mirror', axes=None",
    "map_coordinates": "order=3, mode='mirror', cval=0.0, prefilter=True",
    "PeriodicConv.least_squares": "damp=0.0, penalty=None",
    "damp_for_noise": "penalty=None, mask=None, each=False",
    "richardson_lucy": "mask=None, background=0.0, iterations=100, sigma=None",
    "Conv1x1": "bias=None, ndim=None",
    "PeriodicConv": "bias=None, dilation=1",
    "SymmetricConv": "bias=None, boundary='symmetric'",
    "ExponentialConv": "bias=None, padding='zeros', dilation=1",
    "AutoregressiveConv": "bias=None, mask='corner', direction=1, channel_order='lower', "
    "dilation=1",
    "AutoregressiveConv.init": "kernel_size=2, ndim=2, mask='corner', direction=1, "
    "channel_order='lower', dilation=1, rng=None, like=None",
    "EmergingConv.init": "kernel_size=3, ndim=2, dilation=1, mask='corner', rng=None, like=None",
    "PeriodicConv.init": "kernel_size=3, ndim=2, dilation=1, rng=None, like=None",
    "SymmetricConv.init": "kernel_size=3, ndim=2, boundary='symmetric', rng=None, like=None",
    "ExponentialConv.init": "kernel_size=3, ndim=2, padding='zeros', dilation=1, rng=None, "
    "like=None",
}


@pytest.mark.parametrize("name", DEFAULTS)
def test_a_default_is_the_documented_one(name: str) -> None:
    of: Any = ic
    for word in name.split("."):
        of = getattr(of, word)
    given = inspect.signature(of).parameters.values()
    found = (f"{p.name}={p.default!r}" for p in given if p.default is not p.empty)
    assert ", ".join(found) == DEFAULTS[name]
