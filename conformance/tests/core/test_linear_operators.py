"""Operators as SciPy's linear operators: beside dense matrices, and as preconditioners."""

from typing import Any

import numpy as np
import pytest
import scipy.sparse
from scipy.sparse.linalg import aslinearoperator as scipys
from scipy.sparse.linalg import cg, lsqr

import invconv as ic
from invconv_conformance.truth.oracle import affine

RNG = np.random.default_rng(0)
EMERGING, BIAS = ic.EmergingConv.init(3, rng=RNG), RNG.standard_normal(3)
PLU = ic.PLUConv1x1.init(3, rng=RNG).replace(bias=BIAS)


@pytest.mark.parametrize(
    ("conv", "shape"),
    [
        (EMERGING.replace(bias=BIAS), (3, 4)),  # a grid
        (ic.PeriodicConv.init(3, rng=RNG).replace(bias=BIAS), (3, 3, 4)),  # an image
        (ic.ActNorm(RNG.standard_normal(3), BIAS, ndim=2), (2, 3, 3, 4)),  # two images
        (PLU.asarrays(np.zeros(0, "float32")), (2, 3, 3, 4)),
        (ic.Inverse(EMERGING.replace(bias=BIAS)), (3, 4)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_products_are_those_of_the_dense_matrix(conv: Any, shape: tuple[int, ...]) -> None:
    dense, (dtype, *_) = affine(conv, (3, 4))[0], (a.dtype for a in conv.parameters().values())
    close = 5000 * float(np.finfo(dtype).eps)
    if len(shape) == 4:
        dense = np.kron(np.eye(shape[0]), dense)
    for wanted, inverse in ((dense, False), (np.linalg.inv(dense), True)):
        linear = ic.aslinearoperator(conv, shape, inverse=inverse)
        x = RNG.standard_normal((len(dense), 5)).astype(dtype)
        for found, product in (
            (linear.matmat(x), wanted @ x),
            (linear.rmatmat(x), wanted.T @ x),
            (linear.matvec(x[:, 0]), wanted @ x[:, 0]),
            (linear.rmatvec(x[:, :1]), wanted.T @ x[:, :1]),
        ):
            assert found.dtype == linear.dtype == dtype
            np.testing.assert_allclose(found, product, rtol=close, atol=close)


def test_a_constant_blur_is_a_preconditioner_of_one_that_varies() -> None:
    size = 40
    row, column = np.mgrid[-6:7, -6:7]
    widths, along = (1.9, 2.0, 2.1), np.linspace(0, 1, size)[:, None] * np.ones(size)
    windows = [scipys(scipy.sparse.diags_array(np.sqrt(w).ravel())) for w in (1 - along, along)]
    for border, skew in (("symmetric", 0.0), ("periodic", 0.5)):
        psfs = [(1 + (row**2 + (column + skew * row) ** 2) / w**2) ** -3.0 for w in widths]
        blurs = [ic.from_psf(psf / psf.sum(), boundary=border) for psf in psfs]
        first, _, last = (ic.aslinearoperator(blur, (size, size)) for blur in blurs)
        varies = windows[0] @ first @ windows[0] + windows[1] @ last @ windows[1]
        inverse = ic.aslinearoperator(blurs[1], (size, size), inverse=True)
        x = np.random.default_rng(0).standard_normal(size**2)
        y = varies @ x
        if border == "symmetric":  # and positive
            counts = []
            for preconditioner in (None, inverse):
                calls: list[Any] = []
                found, _ = cg(varies, y, rtol=1e-8, M=preconditioner, callback=calls.append)
                counts.append(len(calls))
        else:
            ends: dict[str, Any] = {"atol": 1e-9, "btol": 1e-9}
            plain, solved = lsqr(varies, y, **ends), lsqr(varies @ inverse, y, **ends)
            counts, found = [plain[2], solved[2]], inverse @ solved[0]
        np.testing.assert_allclose(found, x, atol=1e-4)
        assert counts[1] <= counts[0] / 3, (border, counts)
