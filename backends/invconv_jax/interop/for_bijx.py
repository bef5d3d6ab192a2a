"""An operator as a bijection of bijx (M. Gerdes), for lattice field theory."""

from typing import Any

import jax
from bijx import Bijection, Const
from flax import nnx

from invconv.arrays.namespaces import Array
from invconv.operators.dropins import event_ndim, on_batch, require_conv
from invconv_jax.pytrees import told_apart


class BijxBijection(Bijection):  # type: ignore[misc]
    """An operator for ``bijx.Transformed``, ``Chain``, ``ScanChain`` and ``Inverse``.

    ``forward`` maps latents to data, as in all of bijx: the operator's *inverse*. The operator's
    arrays are ``nnx.Param``, PLU's signs and permutation ``bijx.Const``. Fields have an axis of
    channels before the axes of the lattice. If your fields have no such axis, put
    ``bijx.ExpandDims(-ndim - 1)`` before an operator of one channel and
    ``bijx.SqueezeDims(-ndim - 1)`` after it; if it is the last axis, pass
    ``invconv_jax.channels_last(conv)``.

    Parameters
    ----------
    conv : InvertibleConv
    ndim : int, optional
        The number of lattice axes, if the operator takes any number; batch axes come before.

    Examples
    --------
    >>> import bijx, invconv, invconv_jax, jax
    >>> from invconv_jax.interop import BijxBijection
    >>> conv = invconv_jax.init(jax.random.key(0), invconv.PeriodicConv, 2)
    >>> flow = bijx.Transformed(bijx.IndependentNormal((2, 4, 4)), BijxBijection(conv))
    >>> field, log_density = flow.sample((5,), rng=jax.random.key(1))
    >>> bool(jax.numpy.allclose(flow.log_density(field), log_density, rtol=1e-4))
    True
    """

    def __init__(self, conv: Any, *, ndim: int | None = None) -> None:
        require_conv(conv)
        self._axes = event_ndim(getattr(conv, "ndim", None), ndim)
        self.arrays = nnx.data(told_apart(conv, nnx.Param, Const))

    @property
    def conv(self) -> Any:
        """The operator of the current parameters, x -> z."""

        def value(node: Any) -> Any:
            return node.get_value() if isinstance(node, nnx.Variable) else node

        return jax.tree.map(value, self.arrays, is_leaf=lambda n: isinstance(n, nnx.Variable))

    def forward(self, x: Array, log_density: Array, **kwargs: Any) -> tuple[Array, Array]:
        """Return K^-1 (x - b) and ``log_density - log|det K^-1|`` of latent x."""
        y, log_det = on_batch(self.conv.inverse_and_log_det, x, self._axes)
        return y, log_density - log_det

    def reverse(self, x: Array, log_density: Array, **kwargs: Any) -> tuple[Array, Array]:
        """Return K x + b and ``log_density - log|det K|`` of data x."""
        z, log_det = on_batch(self.conv.forward_and_log_det, x, self._axes)
        return z, log_density - log_det
