"""Squeezes in orthonormal bases, against dense matrices of Kronecker products."""

from __future__ import annotations

import functools

import jax
import numpy as np
import pytest
import scipy.fft
import torch

import invconv as ic
from invconv_conformance.truth.oracle import block_transform

RNG = np.random.default_rng(0)
BASES = ("haar", "dct")


@pytest.mark.parametrize("basis", BASES)
@pytest.mark.parametrize(("ndim", "factor"), [(1, 8), (3, 2), (4, 2), (2, 1)])
def test_blocks_go_through_an_orthonormal_matrix(basis: str, ndim: int, factor: int) -> None:
    """Two axes are the law "squeeze"."""
    dense = functools.reduce(np.kron, [block_transform(basis, factor).astype(float)] * ndim)
    np.testing.assert_allclose(dense @ dense.T, np.eye(len(dense)), atol=1e-15)
    x = RNG.standard_normal((2, 3, *(factor * n for n in range(1, ndim + 1))))
    pairs = x.reshape(2, 3, *(n for size in x.shape[2:] for n in (size // factor, factor)))
    inside, places = range(3, 3 + 2 * ndim, 2), range(2, 2 + 2 * ndim, 2)
    blocks = pairs.transpose(0, 1, *inside, *places).reshape(2, 3, factor**ndim, -1)
    for how, wanted in (("pixels", blocks), (basis, dense @ blocks)):
        found = ic.squeeze(x, factor, ndim=ndim, basis=how)
        np.testing.assert_allclose(found.reshape(blocks.shape), wanted, atol=1e-14)
        np.testing.assert_allclose(ic.unsqueeze(found, factor, ndim=ndim, basis=how), x, atol=1e-14)


def test_cosines_are_scipys() -> None:
    x = RNG.standard_normal((1, 6, 3))
    found = ic.squeeze(x, 3, basis="dct").reshape(3, 3, 2)
    blocks = x.reshape(2, 3, 3).transpose(1, 2, 0)
    np.testing.assert_allclose(found, scipy.fft.dctn(blocks, axes=(0, 1), norm="ortho"), atol=1e-15)


def test_libraries_differentiate_it() -> None:
    x = RNG.standard_normal((2, 4, 4)).astype(np.float32)
    bar = RNG.standard_normal((8, 2, 2)).astype(np.float32)
    tensor = torch.as_tensor(x).requires_grad_()
    (torch.as_tensor(bar) * ic.squeeze(tensor, basis="dct")).sum().backward()
    squeezed = jax.jit(lambda x: ic.squeeze(x, basis="dct"))
    (in_jax,) = jax.vjp(squeezed, jax.numpy.asarray(x))[1](jax.numpy.asarray(bar))
    wanted = ic.unsqueeze(bar, basis="dct")  # the transpose of an orthogonal map
    np.testing.assert_allclose(tensor.grad, wanted, atol=1e-6)
    np.testing.assert_allclose(in_jax, wanted, atol=1e-6)
    half = ic.squeeze(torch.as_tensor(x).to(torch.bfloat16), basis="haar")
    assert half.dtype == torch.bfloat16
