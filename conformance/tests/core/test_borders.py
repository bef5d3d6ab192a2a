"""Images mirrored in their last pixels, beside the dense matrix, in all mixtures of borders."""

import itertools
from typing import Any

import jax
import numpy as np
import pytest

import invconv as ic
from invconv_conformance.cases.case import perturbed
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
    for n, (words, grid) in enumerate(m for m in mixtures if "mirror" in m[0]):
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
