"""Signals and images in blocks: gradients, precision, warnings; values are the law "function"."""

import math
import warnings
from typing import Any

import jax
import numpy as np
import pytest
import torch
from jax.test_util import check_grads

import invconv as ic
from invconv_jax import channels_last
from tests.selected import slow

# kernel size and settings
MAPS: dict[str, tuple[tuple[int, ...], dict[str, Any]]] = {
    "signal": ((3,), {}),
    "signal, backwards, dilated": ((3,), {"direction": -1, "dilation": 4}),
    "no reach": ((1, 3), {}),
    "image": ((2, 3), {"direction": (1, -1), "channel_order": "upper"}),
    "image, from below, dilated": ((3, 2), {"direction": (-1, 1), "dilation": (2, 1)}),
    "raster": ((3, 3), {"mask": "raster", "dilation": (1, 2)}),
    "raster, backwards": ((2, 3), {"mask": "raster", "direction": -1}),
}
FEW = "signal", "image, from below, dilated"
few_maps = pytest.mark.parametrize("name", [*FEW, *(slow(n) for n in MAPS if n not in FEW)])


def operator(name: str) -> ic.AutoregressiveConv:
    size, settings = MAPS[name]
    rng = np.random.default_rng(len(name))
    taps = (size[0], *((k + 1) // 2 for k in size[1:])) if "mask" in settings else size
    conv = ic.AutoregressiveConv.init(2, taps, len(size), rng=rng, **settings)
    kernel = conv.kernel + 0.1 * rng.standard_normal(conv.kernel.shape)
    return conv.replace(kernel=kernel, bias=rng.standard_normal(2))


@few_maps
def test_gradients_are_those_of_differences(name: str) -> None:
    conv, rng = operator(name), np.random.default_rng(0)
    grid = (4, 3)[: conv.ndim]
    depth = conv._family.reaches_back(0)
    x, y_bar = rng.standard_normal((2, 2, 2, *grid))
    before = rng.standard_normal((2, 2, depth, *grid[1:]))
    given = {"kernel": conv.kernel, "bias": conv.bias, "x": x, "before": before}
    tensors = {n: torch.tensor(a, requires_grad=a.size > 0) for n, a in given.items()}
    trained = [n for n, t in tensors.items() if t.requires_grad]
    for way in ("forward", "inverse"):

        def run(*tensors: Any, way: str = way) -> Any:
            kernel, bias, *images = tensors
            return getattr(conv.replace(kernel=kernel, bias=bias), way)(*images)

        assert torch.autograd.gradcheck(run, tuple(tensors.values()))
        result = run(*tensors.values())
        known = torch.autograd.grad(result, [tensors[n] for n in trained], torch.as_tensor(y_bar))
        gradients, x_bar = getattr(conv, f"{way}_vjp")(x, y_bar, before=before)
        assert gradients["before"].shape == before.shape
        bars = gradients | {"x": x_bar}
        for n, right in zip(trained, known, strict=True):
            np.testing.assert_allclose(bars[n], right, rtol=0, atol=1e-12)


def test_gradients_in_jax_with_channels_last() -> None:
    conv, rng = operator("image"), np.random.default_rng(0)
    arrays = [conv.kernel, *(rng.standard_normal((1, n, 4, 2)) for n in (3, 1))]

    def forward(kernel: Any, x: Any, before: Any) -> Any:
        return channels_last(conv.replace(kernel=kernel, bias=None)).forward(x, before)

    def inverse(kernel: Any, y: Any, before: Any) -> Any:
        prepared = conv.replace(kernel=kernel, bias=None).prepare((3, 4))
        first = (jax.numpy.moveaxis(a, -1, 1) for a in (y, before))
        return prepared.inverse(*first)

    for run in (forward, inverse):
        check_grads(jax.jit(run), [jax.numpy.asarray(a) for a in arrays], order=2)


def test_precision_is_that_of_the_whole() -> None:
    conv, rng = operator("signal"), np.random.default_rng(0)
    x = rng.standard_normal((2, 1, 2, 40))
    small = conv.asarrays(np.zeros(0, "float32"))
    y, before = conv.forward(x).astype("float32"), x[..., 18:20].astype("float32")
    wide = small.prepare((20,), precision="float64").inverse(y[..., 20:], before)
    exact = small.asarrays(x).inverse(y[..., 20:].astype("float64"), before.astype("float64"))
    np.testing.assert_array_equal(wide, exact.astype("float32"))
    half = conv.asarrays(torch.zeros(0, dtype=torch.bfloat16))
    signal = torch.as_tensor(x).bfloat16()
    pieces = [half.forward(signal[..., :20]), half.forward(signal[..., 20:], signal[..., 18:20])]
    assert torch.equal(torch.cat(pieces, -1), half.forward(signal))


STREAMS = ([1, -1.02], [1, 0, -1.04], [1, -0.999], [1, -1], [1, -2, 1], [1, -1.8, 0.81])


@pytest.mark.parametrize("taps", STREAMS, ids=str)
@pytest.mark.parametrize("direction", [1, -1])
def test_blocks_warn_where_what_goes_from_one_to_the_next_is_lost(
    taps: Any, direction: int
) -> None:
    """After as many samples as a plain loop finds; with poles inside the circle or on it, never."""
    conv = ic.AutoregressiveConv(np.asarray([[taps]], float), direction=direction)
    y, before = np.zeros((1, 64)), np.ones((1, len(taps) - 1))
    state, lost = [1.0] * (len(taps) - 1), math.inf  # the last sample first
    for sample in range(5000):
        state = [-sum(t * s for t, s in zip(taps[1:], state, strict=True)), *state[:-1]]
        if abs(state[0]) * np.finfo(float).eps > 1e-2:
            lost = sample
            break
    with warnings.catch_warnings(record=True, action="always") as caught:
        conv.inverse(y, before=before)
        conv.prepare((64,)).inverse(y, before=before)
        conv.prepare((64,), check=False).inverse(y, before=before)
    said = [int(str(w.message).split("about ")[1].split()[0]) for w in caught]
    assert said == ([] if math.isinf(lost) else [pytest.approx(lost, rel=0.05)] * 2)


def test_blocks_of_images_warn_of_growth_along_their_rows() -> None:
    """A tap that reaches aside grows as far as rows are wide, until what lies above it fades."""
    kernel = np.asarray([[[[1, 0.0], [-0.9, -0.175]]]])
    y, before = np.zeros((1, 1, 64, 400)), np.zeros((1, 1, 1, 400))
    with pytest.warns(ic.IllConditionedWarning, match=r"by blocks is lost after about \d+ pixels"):
        ic.AutoregressiveConv(kernel).inverse(y, before=before)
    ic.AutoregressiveConv(kernel / [[1], [2]]).inverse(y, before=before)
