"""Compiled gradients of correlations by their taps against sums over shifted images in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import invconv as ic
from invconv.kernels.cpu.compiler.target import host
from invconv.kernels.cpu.correlate import gram
from invconv.kernels.cpu.correlate.gram import compiled_kernel_vjp
from invconv_torch.native import correlation as torch_correlation
from invconv_torch.native import kernels
from tests.kernels.test_kernel_correlation import expected, random_case
from tests.kernels.test_kernels import narrower
from tests.selected import seeds


@pytest.fixture
def always_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let threads share out gradients of any size."""
    monkeypatch.setattr(gram, "_SHARED", 0.0)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("kind", [ic.PeriodicConv, ic.AutoregressiveConv, ic.ExponentialConv])
def test_gradients_of_many_taps_and_channels(kind: Any, dtype: str) -> None:
    """Which are PyTorch's own: the gradient of <y, A(w) x>, against its definition in float64."""
    rng = np.random.default_rng(0)
    family = kind.init(48, 3, 2, rng=rng)._family.linear
    x, y = rng.standard_normal((2, 9, 48, 7, 6)).astype(dtype)
    tensors = torch.from_numpy(x), torch.from_numpy(y)
    assert not torch_correlation.prefers_kernel_for_gradient(tensors[0], 9)
    found = kernels.gram(family, *tensors).numpy()
    wanted = family.gram(x.astype("float64"), y.astype("float64"))
    assert np.abs(found - wanted).max() <= 1e3 * np.finfo(dtype).eps


@pytest.mark.parametrize("bits", [128, 256, None])
@pytest.mark.parametrize("wrap", [False, True], ids=["zeros", "periodic"])
@pytest.mark.parametrize("seed", seeds(10, more=15))
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
