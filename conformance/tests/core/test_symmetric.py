"""Symmetric convolutions against SciPy's: reflected borders, the DCT, and derivatives."""

from __future__ import annotations

import jax
import numpy as np
import pytest
import scipy.fft
import scipy.ndimage
import scipy.signal

import invconv as ic

jax.config.update("jax_enable_x64", True)

RNG = np.random.default_rng(0)


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


def test_diagnose_names_the_half_period() -> None:
    conv = ic.SymmetricConv(np.asarray([1.0, -0.4999]).reshape(1, 1, 2))
    assert ic.diagnose(conv, (8,)).frequency == (0.0,)
    turned = ic.SymmetricConv(np.asarray([1.0, 0.5]).reshape(1, 1, 2))
    found = ic.diagnose(turned, (8,))
    assert found.frequency == (3.5,)  # the last cosine
    assert "3.5 periods across the grid" in str(found)
