"""An operator as a transform of NumPyro (D. Phan, N. Pradhan, M. Jankowiak)."""

import functools
from typing import Any

import jax
from jax import numpy as jnp
from numpyro.distributions import constraints
from numpyro.distributions.transforms import Transform
from numpyro.distributions.util import array_equiv

from invconv.arrays.namespaces import Array
from invconv.operators.dropins import event_ndim, on_batch, require_conv


@functools.cache
def _real_arrays(axes: int) -> Any:
    return constraints.independent(constraints.real, axes)


class NumpyroTransform(Transform):  # type: ignore[misc]
    """An operator for ``numpyro.distributions.TransformedDistribution``.

    The transform maps latents to data, as in all of NumPyro: the operator's *inverse*.

    Parameters
    ----------
    conv : InvertibleConv
    ndim : int, optional
        The number of spatial axes, if the operator takes any number; batch axes come before.

    Examples
    --------
    >>> import invconv, invconv_jax, jax
    >>> from numpyro.distributions import Normal, TransformedDistribution
    >>> from invconv_jax.interop import NumpyroTransform
    >>> conv = invconv_jax.init(jax.random.key(0), invconv.EmergingConv, 3)
    >>> base = Normal(jax.numpy.zeros((3, 8, 8)), 1.0).to_event(3)
    >>> images = TransformedDistribution(base, NumpyroTransform(conv))
    >>> images.log_prob(jax.numpy.zeros((2, 3, 8, 8))).shape
    (2,)
    """

    def __init__(self, conv: Any, *, ndim: int | None = None) -> None:
        require_conv(conv)
        self._axes = event_ndim(getattr(conv, "ndim", None), ndim)
        self.conv = conv

    @property
    def domain(self) -> Any:
        """Latent variables: real arrays of ndim + 1 axes; the same object each time."""
        return _real_arrays(self._axes)

    codomain = domain

    def __call__(self, x: Array) -> Array:
        """Return K^-1 (x - b) of latent x."""
        return self.call_with_intermediates(x)[0]

    def call_with_intermediates(self, x: Array) -> tuple[Array, Array]:
        """Return K^-1 (x - b) and log|det K^-1|, shape batch."""
        return on_batch(self.conv.inverse_and_log_det, x, self._axes)

    def _inverse(self, y: Array) -> Array:
        return on_batch(self.conv.forward_and_log_det, y, self._axes)[0]

    def log_abs_det_jacobian(self, x: Array, y: Array, intermediates: Any = None) -> Array:
        """Return log|det dy/dx| = -log|det K|, shape batch, of latent x and data y."""
        if intermediates is not None:
            return intermediates
        return -on_batch(self.conv.forward_and_log_det, y, self._axes)[1]  # XLA drops the value

    def tree_flatten(self) -> tuple[tuple[Any], tuple[tuple[str], dict[str, int]]]:
        """Return the operator, its arrays being the leaves, and the static part."""
        return (self.conv,), (("conv",), {"_axes": self._axes})

    def eq(self, other: object, static: bool = False) -> Any:
        """Tell whether another transform has an operator of the same kind with the same arrays."""
        if not isinstance(other, NumpyroTransform):
            return False
        leaves, structure = jax.tree.flatten(self)
        others, other_structure = jax.tree.flatten(other)
        if structure != other_structure:
            return False
        equal = [array_equiv(a, b, static=static) for a, b in zip(leaves, others, strict=True)]
        return all(equal) if static else jnp.stack(jnp.asarray(equal)).all()
