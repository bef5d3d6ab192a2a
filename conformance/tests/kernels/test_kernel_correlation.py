"""Compiled correlations and their gradients against sums over shifted images, in float64."""

import itertools
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch

import invconv as ic
from invconv.arrays.stencil import Offset
from invconv.kernels import maps
from invconv.kernels.cpu import costs
from invconv.kernels.cpu.compiler.target import host
from invconv.kernels.cpu.correlate import correlation
from invconv.kernels.cpu.correlate.correlation import compiled_correlation, compiled_kernel_vjp
from invconv.kernels.cpu.correlate.programs import of_taps
from invconv.kernels.cpu.program import addresses
from invconv_torch.native import kernels
from tests.kernels.conftest import between_nans
from tests.kernels.test_kernels import narrower
from tests.selected import seeds

Floats = np.ndarray[Any, Any]
pytestmark = pytest.mark.usefixtures("guarded")


@pytest.fixture
def always_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(costs, "SHARED", 0.0)


def run(found: Any, taps: Floats, x: Floats, workers: int = 1) -> Floats:
    correlate = partial(found.run, *addresses(taps), of_taps(x.shape[1]))
    return np.asarray(between_nans(correlate, x, workers))


def expected(taps: Floats, offsets: tuple[Offset, ...], x: Floats, wrap: Any) -> Floats:
    """Return the sum over taps of their matrix times the image, shifted pixel by pixel."""
    y = np.zeros(x.shape)
    for matrix, offset in zip(taps.astype("float64"), offsets, strict=True):
        for p in itertools.product(*map(range, x.shape[2:])):
            there: Any = tuple(i + o for i, o in zip(p, offset, strict=True))
            if wrap is True:
                there = tuple(i % n for i, n in zip(there, x.shape[2:], strict=True))
            if wrap == "symmetric":  # dcba|abcd|dcba
                both = zip(there, x.shape[2:], strict=True)
                there = tuple([*range(n), *reversed(range(n))][i % (2 * n)] for i, n in both)
            if all(0 <= i < n for i, n in zip(there, x.shape[2:], strict=True)):
                pixel: Any = (..., *p)
                y[pixel] += x[(..., *there)].astype("float64") @ matrix.T
    return y


def random_case(rng: np.random.Generator) -> tuple[Floats, tuple[Offset, ...], Floats]:
    ndim = int(rng.integers(1, 5))
    most = {1: 40, 2: 12, 3: 6, 4: 4}[ndim]
    grid = tuple(int(n) for n in rng.integers(1, most, ndim))
    count, channels = int(rng.integers(1, 6)), int(rng.choice([1, 2, 3, 9, 12, 25, 50]))
    offsets = tuple(tuple(int(o) for o in rng.integers(-4, 5, ndim)) for _ in range(count))
    dtype = str(rng.choice(["float32", "float64"]))
    x = rng.standard_normal((int(rng.choice([1, 2, 9, 21])), channels, *grid)).astype(dtype)
    return rng.standard_normal((count, channels, channels)).astype(dtype), offsets, x


@pytest.mark.parametrize("bits", [128, 256, None])
@pytest.mark.parametrize("wrap", [False, True, "symmetric"], ids=["zeros", "periodic", "symmetric"])
@pytest.mark.parametrize("seed", seeds(4, 10))
def test_pixels_and_images_agree(seed: int, wrap: Any, bits: int | None, monkeypatch: Any) -> None:
    target = host() if bits is None else narrower(bits)
    taps, offsets, x = random_case(np.random.default_rng(100 + seed))
    given = compiled_correlation(x.shape[1], x.shape[2:], offsets, wrap, x.itemsize, target)
    wanted = expected(taps, offsets, x, wrap)
    if given is None:  # no tap reaches a pixel
        assert not wanted.any()
        return
    by_images = given.by_images
    assert by_images is not None
    assert (given.lanes, by_images.lanes) == ("pixels", "images")
    found = []
    for way in (given, by_images):
        monkeypatch.setattr(correlation, "_way", lambda *_, way=way: (way, 1))
        found.append(run(given, taps, x))
    assert np.array_equal(found[0], found[1])
    scale = np.abs(taps).sum(axis=(0, 2)).max() * np.abs(x).max()
    for y in found:
        assert np.abs(y - wanted).max() <= 4 * np.finfo(x.dtype).eps * scale


@pytest.mark.parametrize("wrap", [False, True], ids=["zeros", "periodic"])
@pytest.mark.parametrize("shape", [(2, 12, 300, 40), (1, 3, 40, 697), (2, 3, 70, 16, 20)])
@pytest.mark.usefixtures("always_shared")
def test_bands_of_large_images(shape: tuple[int, ...], wrap: bool) -> None:
    """Against PyTorch's convolution of images that NumPy has padded, and its gradient."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal(shape)
    ndim, channels = len(shape) - 2, shape[1]
    kernel = rng.standard_normal((channels, channels, *[3] * ndim))
    around = np.pad(x, [(0, 0)] * 2 + [(1, 1)] * ndim, "wrap" if wrap else "constant")
    convolve = getattr(torch.nn.functional, f"conv{ndim}d")
    wanted = convolve(torch.as_tensor(around), torch.as_tensor(kernel)).numpy()
    offsets = tuple(itertools.product((-1, 0, 1), repeat=ndim))
    taps = np.ascontiguousarray(np.moveaxis(kernel.reshape(channels, channels, -1), -1, 0))
    known = compiled_correlation(channels, shape[2:], offsets, wrap, x.itemsize)
    assert known is not None
    y = run(known, taps, x)
    np.testing.assert_allclose(y, wanted, rtol=1e-11, atol=1e-11)
    assert np.array_equal(run(known, taps, x, workers=2), y)
    given = torch.as_tensor(around), kernel.shape, torch.as_tensor(y)
    wanted = getattr(torch.nn.grad, f"conv{ndim}d_weight")(*given).numpy()
    found = np.moveaxis(compiled_kernel_vjp(x, y, offsets, wrap), 0, -1).reshape(kernel.shape)
    np.testing.assert_allclose(found, wanted, rtol=1e-11, atol=1e-9)


@pytest.mark.parametrize("layout", ["contiguous", "transposed", "channels_last", "every other"])
@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize(("mask", "order"), [("corner", "lower"), ("raster", "upper")])
@pytest.mark.usefixtures("always_shared")
def test_kernels_are_read_where_they_are(
    mask: str, order: str, workers: int, layout: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Masked entries, NaN here, are neither read nor given a gradient."""
    monkeypatch.setattr(torch, "get_num_threads", lambda: workers)
    conv = ic.AutoregressiveConv(torch.randn(5, 5, 3, 3), mask=mask, channel_order=order)
    known = conv._family.kernel(conv._causal().taps)
    kernel = torch.where(known == 0, torch.nan, known)
    match layout:
        case "transposed":
            kernel = kernel.transpose(0, 1).contiguous().transpose(0, 1)
        case "channels_last":
            kernel = kernel.to(memory_format=torch.channels_last)
        case "every other":
            kernel = torch.stack([kernel, kernel], dim=-1)[..., 0]
    x, y_bar = torch.randn(2, 9, 5, 6, 7)
    y = maps.apply(conv._family, kernel, x)
    wanted = maps.apply.agnostic(conv._family, known, x)
    torch.testing.assert_close(y, wanted)
    found = maps.gram(conv._family, x, y_bar)
    wanted = maps.gram.agnostic(conv._family, x.double(), y_bar.double())
    torch.testing.assert_close(found, wanted.float())
    assert not found[known == 0].any()


@pytest.mark.parametrize("bits", [128, 256, None])
@pytest.mark.parametrize("wrap", [False, True], ids=["zeros", "periodic"])
@pytest.mark.parametrize("seed", seeds(4, 10))
@pytest.mark.usefixtures("always_shared")
def test_the_gradient_by_the_taps(seed: int, wrap: bool, bits: int | None) -> None:
    """<y_bar, correlate(taps, x)> is linear in each tap: its value for a unit is the gradient."""
    rng = np.random.default_rng(seed)
    taps, offsets, x = random_case(rng)
    target = host() if bits is None else narrower(bits)
    y_bar = np.asarray(rng.standard_normal(x.shape), x.dtype)
    for workers in (1, 2):
        found = compiled_kernel_vjp(x, y_bar, offsets, wrap, workers, target)
        for _ in range(4):
            place = tuple(int(rng.integers(n)) for n in taps.shape)
            unit = np.zeros(taps.shape)
            unit[place] = 1.0
            terms = np.asarray(y_bar, "float64") * expected(unit, offsets, x, wrap)
            bound = 20 * np.finfo(x.dtype).eps * np.sqrt(x[:, 0].size) * 4
            assert abs(found[place] - terms.sum()) <= bound


@pytest.mark.parametrize("wrap", [False, True])
@pytest.mark.parametrize(
    "offsets",
    [
        *(((0, 0), (1, 1), (-1, 2), (0, -1)), ((0, 0), (2, 3)), ((-1, 0), (-1, 2), (0, 0))),
        *(((0, 0, 0, 0), (1, 0, -1, 1)), ((7,), (-8,)), ((0,), (1,), (-9,)), ((0,), (0,))),
    ],
)
def test_pytorchs_own_operations_are_sums_over_shifted_images(offsets: Any, wrap: bool) -> None:
    """Of dense taps, of few that are far apart, of four axes, and of taps that reach no pixel."""
    shape, rng = (4, 5, 3, 2)[: len(offsets[0])], np.random.default_rng(0)
    x, bar = rng.standard_normal((2, 3, 2, *shape))
    taps = rng.standard_normal((len(offsets), 2, 2))
    given = torch.as_tensor(x), torch.as_tensor(bar)
    y = kernels.convolve(offsets, wrap, torch.as_tensor(taps), given[0]).numpy()
    np.testing.assert_allclose(y, expected(taps, offsets, x, wrap), atol=1e-12)
    gradient = kernels.convolve_vjp(offsets, wrap, *given).numpy()
    np.testing.assert_allclose((gradient * taps).sum(), (y * bar).sum(), atol=1e-12)
