"""Symmetric convolutions against SciPy's: reflected borders, the DCT, and derivatives."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
import pytest
import scipy.fft
import scipy.ndimage
import scipy.signal
import torch

import invconv as ic
from invconv.kernels.frequencies.cosine import Cosine

jax.config.update("jax_enable_x64", True)

RNG = np.random.default_rng(0)


def even(kernel: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return the whole kernel of taps 0 ... h - 1 along each axis."""
    for axis in range(kernel.ndim):
        others = np.flip(np.take(kernel, range(1, kernel.shape[axis]), axis), axis)
        kernel = np.concatenate([others, kernel], axis)
    return kernel


@pytest.mark.parametrize(("taps", "grid"), [((2, 3), (5, 4)), ((4, 1), (3, 3)), ((3,), (2,))])
def test_it_is_scipys_correlation_with_a_reflected_border(
    taps: tuple[int, ...], grid: tuple[int, ...]
) -> None:
    kernel, x = RNG.standard_normal((2, 2, *taps)), RNG.standard_normal((2, *grid))
    y = ic.SymmetricConv(kernel).forward(x)
    for out in range(2):
        parts = [
            scipy.ndimage.correlate(x[i], even(kernel[out, i]), mode="reflect") for i in range(2)
        ]
        np.testing.assert_allclose(y[out], sum(parts), atol=1e-13)


def test_a_whole_point_spread_function_warns_with_the_slice_to_pass() -> None:
    one = scipy.signal.windows.gaussian(5, 0.5)
    psf = np.outer(one, one) / one.sum() ** 2
    with pytest.warns(UserWarning, match=r"pass kernel\[..., 2:, 2:\]") as issued:
        ic.SymmetricConv(psf[None, None])
    assert issued[0].filename == __file__
    x = RNG.random((1, 20, 24))
    y = scipy.ndimage.convolve(x[0], psf, mode="reflect")[None]
    np.testing.assert_allclose(ic.SymmetricConv(psf[None, None, 2:, 2:]).inverse(y), x, atol=1e-12)
    for half in ([3.0, 2, 1], [1.0, 2, 0.9], [1.0, 2], [[1.0]]):  # which are none
        ic.SymmetricConv(np.asarray(half)[None, None])


@pytest.mark.parametrize("grid", [(5, 4), (1,), (130,), (131, 2)])
def test_the_transform_is_scipys_dct(grid: tuple[int, ...]) -> None:
    x, basis = RNG.standard_normal((3, 2, *grid)), Cosine()
    found = basis.to_frequencies(x)
    wanted = scipy.fft.dctn(x, axes=range(2, x.ndim), norm="ortho")
    np.testing.assert_allclose(found, wanted.reshape(3, 2, -1).transpose(2, 1, 0), atol=1e-13)
    np.testing.assert_allclose(basis.from_frequencies(found, grid), x, atol=1e-13)


def test_a_blur_is_undone_without_wrapping_round() -> None:
    conv = ic.SymmetricConv(np.asarray([0.5, 0.2, 0.04]).reshape(1, 1, 3))
    x = np.zeros((1, 12))
    x[0, 0] = 1.0
    y = conv.forward(x)
    np.testing.assert_allclose(y[0, :4], [0.7, 0.24, 0.04, 0.0], atol=1e-15)
    assert not y[0, 3:].any()
    np.testing.assert_allclose(conv.inverse(y), x, atol=1e-13)


@pytest.mark.parametrize("way", ["forward_and_log_det", "inverse_and_log_det"])
def test_torch_has_second_derivatives(way: str) -> None:
    conv = ic.SymmetricConv.init(2, (1, 5), rng=RNG, like=torch.zeros(0, dtype=torch.float64))

    def run(kernel: torch.Tensor, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return getattr(conv.replace(kernel=kernel), way)(x)  # type: ignore[no-any-return]

    arrays = conv.kernel.requires_grad_(), torch.randn(1, 2, 2, 3, dtype=torch.float64)
    arrays[1].requires_grad_()
    torch.manual_seed(0)
    assert torch.autograd.gradcheck(run, arrays)
    assert torch.autograd.gradgradcheck(run, arrays)


def test_jax_differentiates_it_twice_inside_jit() -> None:
    like = jax.numpy.zeros(0)
    conv, x = ic.SymmetricConv.init(2, rng=RNG, like=like), RNG.standard_normal((1, 2, 3, 2))

    @jax.jit  # type: ignore[untyped-decorator]
    def loss(kernel: jax.Array) -> jax.Array:
        y, log_det = conv.replace(kernel=kernel).inverse_and_log_det(jax.numpy.asarray(x))
        return (y**3).sum() + (log_det**2).sum()

    gradient, step = jax.jit(jax.grad(loss)), 1e-5
    direction = RNG.standard_normal(conv.kernel.shape)
    moved = [conv.kernel + s * step * direction for s in (1, -1)]
    slope = (loss(moved[0]) - loss(moved[1])) / (2 * step)
    np.testing.assert_allclose((gradient(conv.kernel) * direction).sum(), slope, rtol=1e-6)
    second = jax.jit(jax.jvp, static_argnums=0)(gradient, (conv.kernel,), (direction,))[1]
    wanted = (gradient(moved[0]) - gradient(moved[1])) / (2 * step)
    np.testing.assert_allclose(second, wanted, rtol=1e-5, atol=1e-6)


def test_init_is_a_rotation_and_noise() -> None:
    kernel = ic.SymmetricConv.init(24, (5, 3), rng=RNG).kernel
    assert kernel.shape == (24, 24, 3, 2)
    assert np.abs(kernel[:, :, 0, 0] @ kernel[:, :, 0, 0].T - np.eye(24)).max() < 0.3
    assert 0.018 < kernel[:, :, 1:].std() < 0.022
    with pytest.raises(ValueError, match=r"kernel_size: expected odd sizes, .* got 4"):
        ic.SymmetricConv.init(2, 4, rng=RNG)


def test_diagnose_names_the_half_period() -> None:
    conv = ic.SymmetricConv(np.asarray([1.0, -0.4999]).reshape(1, 1, 2))
    assert ic.diagnose(conv, (8,)).frequency == (0.0,)
    turned = ic.SymmetricConv(np.asarray([1.0, 0.5]).reshape(1, 1, 2))
    found = ic.diagnose(turned, (8,))
    assert found.frequency == (3.5,)  # the last cosine
    assert "3.5 periods across the grid" in str(found)


@pytest.mark.parametrize(("taps", "grid"), [([1.0, -0.5], (6,)), ([0.0, 1.0], (2,))])
def test_a_zero_of_the_spectrum_is_singular(taps: list[float], grid: tuple[int, ...]) -> None:
    conv = ic.SymmetricConv(np.asarray(taps).reshape(1, 1, 2))
    assert float(conv.log_det(grid)) == -np.inf
    with pytest.raises(ic.SingularConvError):
        conv.inverse(np.ones((1, *grid)))
