"""1x1 convolutions: one C x C matrix at every pixel.

This file has the base class and the plain 1x1 convolution (Kingma & Dhariwal, Glow, 2018).
"""

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY
from functools import partial
from typing import Any, Self

import numpy as np

from invconv.arrays.namespaces import Array, Shape, cast, identity, namespace
from invconv.arrays.validation import generator, optional_ndim, positive_int
from invconv.families import path as paths
from invconv.families.family import Family
from invconv.families.path import Multiply, Route
from invconv.families.pointwise import MATRIX
from invconv.kernels.primitives import Map, multiply
from invconv.operators.base.factors import Gradients
from invconv.operators.base.fields import array
from invconv.operators.base.operator import InvertibleConv
from invconv.operators.least_squares import Blocks, least_squares, regularised
from invconv.trust.gains import matrix_within


class Pointwise(InvertibleConv, abstract=True):
    """A C x C matrix W at every pixel, from the factors of a class.

    Examples
    --------
    >>> import numpy as np
    >>> from invconv.extend import Householder, LogScale, Pointwise, array
    >>> __name__ = "my_operators"  # the file in which the class is
    >>> class Turned(Pointwise):
    ...     log_scale: np.ndarray = array("C")
    ...     vectors: np.ndarray = array("m", "C")
    ...
    ...     def factors(self):
    ...         return [(LogScale(), self.log_scale), (Householder(), self.vectors)]
    ...
    ...     def factors_vjp(self, bars):
    ...         return {"log_scale": bars[0], "vectors": bars[1]}
    >>> Turned(np.log([2.0, 1.0]), np.asarray([[1.0, -1.0]])).matrix().round(12)
    array([[0., 1.],
           [2., 0.]])
    """

    _: KW_ONLY
    ndim: int | None = None

    def validate(self) -> None:
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
        """Return the operator that training starts from; the class says which.

        Parameters
        ----------
        channels : int
        ndim : int or None
            As for the class.
        rng : numpy.random.Generator, optional
            Unless given, every call draws other numbers.
        like : array, optional
            An array of the library, dtype and device to use; NumPy float64 unless given.

        Examples
        --------
        >>> import numpy as np
        >>> from invconv import QRConv1x1
        >>> w = QRConv1x1.init(3, rng=np.random.default_rng(0)).matrix()
        >>> bool(np.allclose(w @ w.T, np.eye(3)))
        True
        """
        arrays = cls.drawn(positive_int("channels", channels), generator(rng))
        if not isinstance(arrays, Mapping):
            raise TypeError(f"{cls.__name__}.drawn: expected arrays by name, got {arrays!r:.80}")
        conv = cls(**arrays, ndim=ndim)
        return conv if like is None else conv.asarrays(like)

    def _matrix(self) -> Array:
        path = paths.linear(self._path())
        if not any(factor.inverted for factor in path):
            return Multiply(path).product
        unit = identity(self.channels, self._reference()[1])  # a unit image a pixel
        return Route(path, unit.shape[1:])(unit[None, ...])[0, ...]

    least_squares = least_squares

    def _regularised(self, shape: Shape, damp: float | Array, penalties: Sequence[Any] = ()) -> Map:
        more = [one._blocks() for one in penalties]
        return partial(multiply, regularised(self._blocks(), damp, "matrix", more)[0, ...])

    def _blocks(self) -> Blocks:
        w = self._matrix()
        return w[None, ...], abs(w)

    _decoupled_by = None

    @classmethod
    def drawn(cls, channels: int, rng: np.random.Generator) -> dict[str, Any]:
        """Return NumPy arrays for `init`."""
        raise TypeError(
            f"{cls.__name__}: expected a class method `drawn(channels, rng)`, which returns the "
            "arrays by name: `init` needs it"
        )

    def matrix(self) -> Array:
        """Return W, shape (C, C), in the parameters' dtype."""
        return cast(self._in_working_precision()._matrix(), self._reference()[1].dtype)

    def transpose(self) -> InvertibleConv:
        """Return the plain 1x1 convolution with W^T, without bias."""
        matrix = self.matrix()
        return Conv1x1(namespace(matrix).matrix_transpose(matrix), ndim=self.ndim)


def random_orthogonal(channels: int, rng: np.random.Generator | None) -> np.ndarray[Any, Any]:
    """Return a C x C orthogonal matrix from the uniform (Haar) distribution.

    The matrix is Q of A = Q R for a matrix A of N(0, 1) numbers, with signs that make R's diagonal
    positive (F. Mezzadri, Notices AMS 54, 2007, arXiv math-ph/0609050). It agrees bit for bit with
    `scipy.stats.ortho_group`, which takes longer to import than invconv.
    """
    rng = generator(rng)
    if channels == 1:
        return np.ones((1, 1))
    q, r = np.linalg.qr(rng.standard_normal((channels, channels)))
    return np.asarray(q * np.sign(np.diagonal(r)))


class Conv1x1(Pointwise, mixing="plain"):
    r"""A plain 1x1 convolution with any C x C matrix.

    $$y[:, p] = W x[:, p] + b, \qquad \log|\det K| = N \log|\det W|$$

    with N pixels. The inverse goes through W = Q R. `init` gives a random rotation, as Glow does.

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

    @classmethod
    def drawn(cls, channels: int, rng: np.random.Generator) -> dict[str, Any]:
        return {"weight": random_orthogonal(channels, rng)}

    def factors(self) -> Sequence[tuple[Family, Any]]:
        return [(MATRIX, self.weight)]

    def factors_vjp(self, bars: Sequence[Any]) -> Gradients:
        return {"weight": bars[0]}

    def within(self, gain: float) -> Self:
        return self.replace(weight=matrix_within(self.weight, gain)[0])
