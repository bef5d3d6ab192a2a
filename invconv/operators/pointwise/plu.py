"""The PLU 1x1 convolution (Kingma & Dhariwal, Glow, 2018)."""

from collections.abc import Sequence
from typing import Any, Self

import numpy as np

from invconv.arrays.namespaces import (
    Array,
    constant,
    diagonal,
    diagonal_matrix,
    identity,
    namespace,
    readable,
    to_numpy,
)
from invconv.arrays.validation import require_real
from invconv.families.family import Family
from invconv.families.pointwise import LogTriangular, Permutation, Triangular
from invconv.operators.base.factors import Gradients
from invconv.operators.base.fields import array
from invconv.operators.pointwise.conv1x1 import Pointwise, random_orthogonal
from invconv.trust.gains import strict_below, triangle_within

_UPPER = LogTriangular(lower=False)
_LOWER = Triangular(lower=True)
_PERMUTATION = Permutation()


class PLUConv1x1(Pointwise, mixing="plu"):
    r"""A 1x1 convolution of PLU factors: a determinant that costs nothing.

    $$y[:, p] = W x[:, p] + b, \qquad W = P L (U + \text{diag}(\text{sign}\; e^s))$$

    $$\log|\det K| = N \sum_c s[c]$$

    with s the ``log_scale`` and N pixels. The permutation and the sign are not trained and get no
    gradient, so training cannot change the sign of the determinant. ``jax.grad`` refuses an
    operator with a permutation, since that holds integers: use ``equinox.filter_grad``, or
    differentiate by ``conv.parameters()`` and build the operator from them,
    ``conv.replace(**parameters)``. `init` gives the factors of a random rotation.

    Parameters
    ----------
    permutation : integer array, shape (C,)
        (P v)[i] = v[permutation[i]].
    lower : array, shape (C, C)
        L is its strict lower triangle with a unit diagonal; other entries are ignored.
    upper : array, shape (C, C)
        U is its strict upper triangle; other entries are ignored.
    sign : array, shape (C,)
        Only the signs of the numbers count: an optimiser's weight decay that shrinks them changes
        nothing. A zero, which only an edit in place can write, makes W singular; so does a
        permutation that has an index twice.
    log_scale : array, shape (C,)
    bias : array, shape (C,), optional
        Added to the channels of every pixel.
    ndim : int or None
        As for `Conv1x1`.

    Examples
    --------
    >>> import numpy as np
    >>> from invconv import PLUConv1x1
    >>> swap = np.asarray([1, 0])
    >>> lower, upper = np.asarray([[1.0, 0], [2, 1]]), np.asarray([[0.0, 4], [0, 0]])
    >>> conv = PLUConv1x1(swap, lower, upper, np.ones(2), np.log([3.0, 5.0]))
    >>> np.round(conv.forward(np.eye(2)[:, :, None])[:, :, 0].T, 12) + 0.0  # W = P L (U + diag)
    array([[ 6., 13.],
           [ 3.,  4.]])
    """

    permutation: Array = array("C", constant=True)
    lower: Array = array("C", "C")
    upper: Array = array("C", "C")
    sign: Array = array("C", constant=True)
    log_scale: Array = array("C")
    bias: Array | None = array("C", optional=True)

    def validate(self) -> None:
        super().validate()
        require_real("sign", self.sign)
        if not namespace(self.permutation).isdtype(self.permutation.dtype, "integral"):
            raise TypeError(f"permutation: expected integers, got {self.permutation.dtype}")
        if readable(self.permutation):
            order, last = to_numpy(self.permutation).tolist(), self.channels - 1
            if sorted(order) != list(range(self.channels)):
                raise ValueError(f"permutation: expected each of 0 to {last} once, got {order}")
        if readable(self.sign) and not (np.abs(to_numpy(self.sign)) > 0).all():
            raise ValueError(
                f"sign: expected a positive or negative number a channel, as +1 or -1, got "
                f"{to_numpy(self.sign).tolist()}"
            )

    @classmethod
    def drawn(cls, channels: int, rng: np.random.Generator) -> dict[str, Any]:
        from scipy.linalg import lu  # here: it takes as long to import as invconv does

        order, lower, upper = lu(random_orthogonal(channels, rng), p_indices=True)
        scale = np.diagonal(upper)
        return {
            "permutation": np.asarray(order, dtype=np.int64),
            "lower": np.tril(lower, -1),
            "upper": np.triu(upper, 1),
            "sign": np.sign(scale),
            "log_scale": np.log(np.abs(scale)),
        }

    def _signed(self, scale: Array) -> Array:
        xp = namespace(scale)
        positive = xp.where(self.sign > 0, scale, xp.zeros_like(scale))
        return xp.where(self.sign < 0, -scale, positive)

    def _scale(self) -> Array:
        return self._signed(namespace(self.log_scale).exp(self.log_scale))

    def factors(self) -> Sequence[tuple[Family, Any]]:
        xp = namespace(self.lower)
        lower = xp.tril(self.lower, k=-1) + identity(self.channels, self.lower)
        upper = xp.triu(self.upper, k=1) + diagonal_matrix(self._scale())
        columns = constant(np.arange(self.channels), self.permutation)
        permutation = xp.astype(self.permutation[:, None] == columns[None, :], lower.dtype)
        return [(_UPPER, (upper, self.log_scale)), (_LOWER, lower), (_PERMUTATION, permutation)]

    def factors_vjp(self, bars: Sequence[Any]) -> Gradients:
        (upper, logs), lower, _ = bars
        xp = namespace(lower)
        return {
            "lower": xp.tril(lower, k=-1),
            "upper": xp.triu(upper, k=1),
            "log_scale": diagonal(upper) * self._scale() + logs,
        }

    def within(self, gain: float) -> Self:
        xp = namespace(self.upper)
        third = gain ** (1 / 3)
        upper = xp.triu(self.upper, k=1)
        scale, upper, _ = triangle_within(self.log_scale, upper, third**2)
        lower = strict_below(xp.tril(self.lower, k=-1), 1 - 1 / third)
        upper = self._signed(scale)[:, None] * upper
        return self.replace(lower=lower, upper=upper, log_scale=xp.log(scale))
