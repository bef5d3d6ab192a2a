"""Images mirrored in their last pixels, beside the dense matrix, in all mixtures of borders."""

import itertools
from typing import Any

import jax
import numpy as np
import pytest
import torch

import invconv as ic
from invconv.kernels.frequencies.spectrum import within_range
from invconv_conformance.cases.table import perturbed
from invconv_conformance.truth.oracle import affine
from tests.selected import CARRY, slow

WORDS = "mirror", "symmetric", "odd", "zero", "periodic"
GRIDS: dict[int, list[tuple[int, ...]]] = {
    n: [*itertools.product((1, 2, 4, 5), repeat=n)] for n in (1, 2)
}
GRIDS[3] = [(1, 4, 5), (5, 2, 4)]


@pytest.mark.parametrize("library", [slow(n) if n == "jax" else n for n in CARRY])
@pytest.mark.parametrize("ndim", [1, 2, slow(3)])
def test_a_mirror_beside_any_border_is_the_dense_matrix(ndim: int, library: str) -> None:
    rng = np.random.default_rng(ndim)
    mixtures = itertools.product(itertools.product(WORDS, repeat=ndim), GRIDS[ndim])
    mirrored = [mixture for mixture in mixtures if "mirror" in mixture[0]]
    step = 7 if library == "jax" and ndim > 1 else 1  # JAX compiles each
    for n, (words, grid) in enumerate(mirrored[::step]):
        taps = tuple(3 if word == "zero" else (3, 5)[n % 2] for word in words)
        conv: Any = ic.SymmetricConv.init(2, taps, ndim, boundary=words, rng=rng)
        conv = perturbed(conv, rng, 0.05)
        (dense, _), x = affine(conv, grid), rng.standard_normal((2, 2, *grid))
        rows, carried = x.reshape(2, -1), CARRY[library](x)
        run: Any = jax.jit(everything) if library == "jax" else everything
        found = map(np.asarray, run(conv.asarrays(carried), carried))
        wanted = rows @ dense.T, rows @ dense, np.linalg.solve(dense, rows.T).T
        for one, other in zip(found, (*wanted, np.linalg.slogdet(dense)[1]), strict=True):
            size = np.linalg.cond(dense) * np.abs(other).max(initial=1)
            one = one.reshape(other.shape)
            np.testing.assert_allclose(one, other, rtol=0, atol=1e-13 * size, err_msg=f"{words}")


def everything(conv: Any, x: Any) -> tuple[Any, ...]:
    return conv.forward(x), conv.transpose().forward(x), conv.inverse(x), conv.log_det(x.shape[2:])


@pytest.mark.parametrize("words", [("mirror", "periodic"), ("symmetric", "mirror")])
def test_torchs_gradient_of_an_inverse_is_the_transposed_solve(words: tuple[str, ...]) -> None:
    rng = np.random.default_rng(0)
    conv: Any = ic.SymmetricConv.init(2, boundary=words, rng=rng)
    (dense, _), (y, bar) = affine(conv, (4, 5)), rng.standard_normal((2, 1, 2, 4, 5))
    given = torch.tensor(y, requires_grad=True)
    conv.asarrays(given).inverse(given).backward(torch.tensor(bar))
    np.testing.assert_allclose(given.grad.reshape(-1), np.linalg.solve(dense.T, bar.reshape(-1)))


@pytest.mark.parametrize("library", ["numpy", "torch"])
def test_sums_over_large_numbers_do_not_overflow(library: str) -> None:
    """By a matrix per frequency, a solve of each, and transforms of a wide kernel."""
    for size, dtype in ((2.0**64, np.float32), (-(2.0**512), np.float64)):
        y = CARRY[library](np.full((1, 1, 1), size, dtype))
        assert within_range(lambda same: same, y) is y  # not larger: nothing is scaled
    for kernel in (np.asarray([0.1, 1.0, 0.2]), np.asarray([0.45, 1.0, 0.45]), np.eye(1, 601)[0]):
        conv = ic.PeriodicConv(CARRY[library](kernel[None, None]))
        x = CARRY[library](1 + 0.1 * np.random.default_rng(0).random((2, 1, 700)))
        for run, size in itertools.product((conv.forward, conv.inverse), (1e306, -1e306)):
            sizes = CARRY[library](np.asarray([[[size]], [[1e-160]]]))  # each image has its own
            np.testing.assert_allclose(run(sizes * x) / sizes, run(x), rtol=1e-12)


@pytest.mark.parametrize(
    ("shape", "words", "grid"),
    [
        *(((1, 1, 601), (word,), (30,)) for word in ("mirror", "symmetric", "periodic")),
        ((2, 2, 4, 2), ("periodic", "mirror"), (5, 6)),
    ],
)
def test_the_gradient_by_a_kernel_is_that_of_its_taps(shape: Any, words: Any, grid: Any) -> None:
    """The map and its transpose, which has one tap more along a periodic axis, are linear in it."""
    rng = np.random.default_rng(0)
    x, bar = rng.standard_normal((2, 1, shape[0], *grid))
    convs = [ic.SymmetricConv(rng.standard_normal(shape), boundary=words) for _ in range(2)]
    for conv, moved in (convs, [conv.transpose() for conv in convs]):
        (gradient,), (step,) = conv.forward_vjp(x, bar)[0].values(), moved.parameters().values()
        assert np.sum(gradient * step) == pytest.approx(np.sum(bar * moved.forward(x)))
