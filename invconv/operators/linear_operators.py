"""Operators as SciPy's linear operators, for its iterative solvers and those that take the same."""

import math
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import numpy as np

from invconv.arrays.namespaces import Array, Shape
from invconv.arrays.validation import integer
from invconv.operators.base.calls import as_batch
from invconv.operators.base.factors import require_operator
from invconv.operators.base.operator import InvertibleConv

if TYPE_CHECKING:
    from scipy.sparse.linalg import LinearOperator


def aslinearoperator(
    conv: InvertibleConv, shape: Shape, *, inverse: bool = False
) -> "LinearOperator":
    """Return K, or its inverse, as a `scipy.sparse.linalg.LinearOperator` of flattened arrays.

    Its ``matvec(x)`` is $K x$ without the bias, its ``rmatvec(y)`` $K^T y$; with ``inverse`` they
    are $K^{-1} x$ and $K^{-T} y$, factored beforehand. The inverse of an operator that is close to
    a matrix A is a preconditioner: ``cg(A, b, M=...)``, or ``lsqr(A @ M, b)``, whose result M turns
    into x.

    Parameters
    ----------
    conv : InvertibleConv
        Of NumPy arrays; vectors are of its dtype.
    shape : tuple of int
        The shape (*batch, C, *spatial) of the arrays that the vectors are; the grid alone is that
        of one sample.
    inverse : bool

    Examples
    --------
    Weights between 1 and 1.2 after a blur, undone by GMRES, for which the blur is a preconditioner:

    >>> import numpy as np
    >>> from scipy.sparse.linalg import gmres, LinearOperator
    >>> from invconv import aslinearoperator, from_psf
    >>> blur, weights = from_psf([[0.1, 0.8, 0.1]]), np.linspace(1, 1.2, 12)
    >>> K = aslinearoperator(blur, (3, 4))
    >>> A = LinearOperator(K.shape, lambda x: weights * K.matvec(x), dtype=K.dtype)
    >>> x = np.arange(12.0)
    >>> M = aslinearoperator(blur, (3, 4), inverse=True)
    >>> np.allclose(gmres(A, A @ x, M=M, rtol=1e-10)[0], x)
    True
    """
    from scipy.sparse.linalg import LinearOperator  # takes longer to import than invconv

    require_operator("conv", conv)
    name, like = conv._reference()
    if not isinstance(like, np.ndarray):
        raise TypeError(
            f"{name}: expected an array of NumPy, got {type(like).__name__}: "
            "conv.asarrays(like=numpy_array) has NumPy's"
        )
    sizes = tuple(integer("shape", n) for n in (shape if isinstance(shape, Iterable) else [shape]))
    if min(sizes, default=0) < 0:
        raise ValueError(f"shape: expected sizes of at least 0, got {sizes}")
    full = (conv.channels, *sizes) if len(sizes) == conv.ndim else sizes
    grid = as_batch(conv, "shape", np.broadcast_to(like.dtype.type(), full)).spatial_shape

    def on_columns(conv: InvertibleConv) -> Callable[[Array], Array]:
        run = conv.prepare(grid).inverse if inverse else conv.forward

        def columns(x: Array) -> Array:
            return run(x.T.reshape(-1, conv.channels, *grid)).reshape(x.T.shape).T

        return columns

    transposed = conv.transpose()  # whose transpose is K without bias
    there, back = on_columns(transposed.transpose()), on_columns(transposed)
    size = math.prod(full)
    return LinearOperator((size, size), there, back, there, like.dtype, back)
