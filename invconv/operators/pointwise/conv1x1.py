"""1x1 convolutions: one C x C matrix at every pixel.

    y[:, p] = W x[:, p] + b        log|det| = N log|det W|, N the number of pixels

This file has the base class and the plain 1x1 convolution (Kingma & Dhariwal, Glow, 2018).
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import KW_ONLY
from typing import Any, ClassVar, Self

import numpy as np

from invconv.arrays.namespaces import Array, Shape, cast, constant, namespace, size
from invconv.arrays.settings import generator, optional_ndim, positive_int
from invconv.kernels.families import MatrixFamily
from invconv.kernels.primitives import inverse_saved, log_abs_det, log_abs_det_saving
from invconv.operators.base.fields import array
from invconv.operators.base.linear import Linear
from invconv.operators.base.protocol import Gradients
from invconv.trust import condition
from invconv.trust.bound import Bounds, largest_entry, of_matrix
from invconv.trust.gains import matrix_within


class Pointwise(Linear, abstract=True):
    """A C x C matrix W at every pixel."""

    _pointwise = True
    _pixelwise = True
    _given_factors: ClassVar[bool] = False  # True if the solve uses factors that are parameters

    @abstractmethod
    def _matrix(self) -> Array:
        """Return W, shape (C, C), in the working precision."""

    def matrix(self) -> Array:
        """Return W, shape (C, C), in the parameters' dtype.

        Examples
        --------
        >>> import numpy as np
        >>> from invconv import CirculantConv1x1
        >>> ones = np.ones(3)
        >>> CirculantConv1x1(ones, np.asarray([1.0, 0.0, 2.0]), ones).matrix()
        array([[1., 2., 0.],
               [0., 1., 2.],
               [2., 0., 1.]])
        """
        return cast(self._in_working_precision()._matrix(), self._reference()[1].dtype)

    @property
    def _family(self) -> MatrixFamily:
        return MatrixFamily()

    def _weights(self) -> Array:
        return self._matrix()

    def transpose(self) -> Pointwise:
        """Return the plain 1x1 convolution with W^T, without bias."""
        matrix = self.matrix()
        return Conv1x1(namespace(matrix).matrix_transpose(matrix), ndim=self.ndim)

    def _condition(self, shape: Shape) -> condition.Condition:
        columns = self._solver(shape)(np.eye(self.channels)[..., None])
        return condition.of_inverse(self._matrix(), columns[..., 0].T, self._given_factors)

    @property
    def _singular_hint(self) -> str:
        return "the C x C matrix has not full rank; change its weights"


def random_orthogonal(channels: int, rng: np.random.Generator | None) -> np.ndarray[Any, Any]:
    """Return a C x C orthogonal matrix from the uniform (Haar) distribution.

    The matrix is Q of A = Q R for a matrix A of N(0, 1) numbers, with signs that make R's diagonal
    positive. It agrees bit for bit with `scipy.stats.ortho_group`, which takes longer to import
    than invconv.

    References
    ----------
    F. Mezzadri, How to generate random matrices from the classical compact groups, Notices AMS 54
    (2007), arXiv math-ph/0609050.
    """
    rng = generator(rng)
    if channels == 1:
        return np.ones((1, 1))
    q, r = np.linalg.qr(rng.standard_normal((channels, channels)))
    return np.asarray(q * np.sign(np.diagonal(r)))


class Conv1x1(Pointwise, mixing="plain"):
    """A plain 1x1 convolution with any C x C matrix.

    y[:, p] = W x[:, p] + b, log det = N log|det W|. The inverse goes through W = Q R.

    Parameters
    ----------
    weight : array, shape (C, C)
        W.
    bias : array, shape (C,), optional
        Added to the channels of every pixel.
    ndim : int or None
        The number of spatial axes, with any number of batch axes; None for one batch axis and
        any number of spatial axes.

    Examples
    --------
    >>> import numpy as np
    >>> conv = Conv1x1(np.array([[2.0, 1.0], [0.0, 0.5]]))
    >>> conv.forward(np.ones((1, 2, 3)))
    array([[[3. , 3. , 3. ],
            [0.5, 0.5, 0.5]]])
    >>> float(conv.log_det((3,)))
    0.0
    """

    weight: Array = array("C", "C")
    bias: Array | None = array("C", optional=True)
    _: KW_ONLY
    ndim: int | None = None

    _saves_log_det = True

    def validate(self) -> None:
        """See `Fields`."""
        optional_ndim(self)

    @classmethod
    def init(
        cls,
        channels: int,
        *,
        ndim: int | None = None,
        rng: np.random.Generator | None = None,
        like: Array | None = None,
    ) -> Self:
        """Return a random rotation, as Glow does; NumPy float64 unless ``like`` is given.

        Examples
        --------
        >>> import numpy as np
        >>> from invconv import Conv1x1
        >>> w = Conv1x1.init(3, rng=np.random.default_rng(0)).matrix()
        >>> bool(np.allclose(w @ w.T, np.eye(3)))
        True
        """
        weight = random_orthogonal(positive_int("channels", channels), rng)
        conv = cls(weight, ndim=ndim)
        return conv if like is None else conv.asarrays(like)

    def _within(self, gain: float) -> Self:
        return self.replace(weight=matrix_within(self.weight, gain)[0])

    def _matrix(self) -> Array:
        return self.weight

    def _weights_vjp(self, w_bar: Array, memo: Any = None) -> Gradients:
        return {"weight": w_bar}

    def _bounds(self, shape: Shape) -> list[Bounds]:
        return [of_matrix(self.weight, np.linalg.inv(self.weight), largest_entry(self.bias))]

    def _log_det(self, shape: Shape) -> Array:
        return size(shape) * log_abs_det(self.weight)

    def _log_det_saving(self, shape: Shape) -> tuple[Array, Any]:
        log_det, memo = log_abs_det_saving(self.weight)
        return size(shape) * log_det, memo

    def _add_log_det_vjp(
        self, gradients: Gradients, shape: Shape, log_det_bar: Array, memo: Any
    ) -> Gradients:
        inverse = inverse_saved(self.weight, memo)
        more = (size(shape) * log_det_bar) * namespace(inverse).matrix_transpose(inverse)
        known = gradients.get("weight")
        return gradients | {"weight": more if known is None else known + more}


def permutation_matrix(permutation: Array, like: Array) -> Array:
    """Return P with (P v)[i] = v[permutation[i]], in the dtype of ``like``."""
    xp = namespace(like)
    columns = constant(np.arange(like.shape[0]), permutation)
    return xp.astype(permutation[:, None] == columns[None, :], like.dtype)
