"""An operator as a bijector of distrax (DeepMind)."""

from typing import Any, Self

import distrax
from jax.ad_checkpoint import checkpoint_name

from invconv.arrays.namespaces import Array
from invconv.operators.dropins import event_ndim, on_batch, require_conv


class DistraxBijector(distrax.Bijector):  # type: ignore[misc]
    """An operator for ``distrax.Transformed``, ``Chain``, ``Block`` and ``Inverse``.

    ``forward`` maps latents to data, as in all of distrax: the operator's *inverse*. The Jacobian
    is constant, so distrax computes means, modes and entropies of transformed distributions. The
    leaves of the pytree are the operator's arrays.

    Parameters
    ----------
    conv : InvertibleConv
    ndim : int, optional
        The number of spatial axes, if the operator takes any number; batch axes come before.

    Examples
    --------
    >>> import distrax, invconv, invconv_jax, jax
    >>> from invconv_jax.interop import DistraxBijector
    >>> conv = invconv_jax.init(jax.random.key(0), invconv.EmergingConv, 3)
    >>> base = distrax.Independent(distrax.Normal(jax.numpy.zeros((3, 8, 8)), 1.0), 3)
    >>> images = distrax.Transformed(base, DistraxBijector(conv))
    >>> images.log_prob(jax.numpy.zeros((2, 3, 8, 8))).shape
    (2,)
    """

    def __init__(self, conv: Any, *, ndim: int | None = None) -> None:
        require_conv(conv)
        axes = event_ndim(getattr(conv, "ndim", None), ndim)
        super().__init__(event_ndims_in=axes, is_constant_jacobian=True)
        self.conv = conv

    def forward_and_log_det(self, x: Array) -> tuple[Array, Array]:
        """Return K^-1 (x - b) and log|det K^-1|, shape batch, of latent x."""
        return on_batch(self.conv.inverse_and_log_det, self._named(x), self.event_ndims_in)

    def inverse_and_log_det(self, y: Array) -> tuple[Array, Array]:
        """Return K y + b and log|det K|, shape batch, of data y."""
        return on_batch(self.conv.forward_and_log_det, self._named(y), self.event_ndims_in)

    def _named(self, x: Array) -> Array:
        """Return x with the operator's identity in the text of a traced program.

        distrax treats two bijectors with equal texts as the same, with a KL divergence of zero,
        although the texts do not show the values of arrays.
        """
        return checkpoint_name(x, f"operator {id(self.conv)}")

    def same_as(self, other: distrax.Bijector) -> bool:
        """Tell whether another bijector has the same operator, on the same number of axes."""
        known = type(other) is DistraxBijector and other.conv is self.conv
        return known and other.event_ndims_in == self.event_ndims_in

    def tree_flatten(self) -> tuple[tuple[Any], int]:
        """Return the operator, and the static part; distrax's own depends on the leaves' values."""
        return (self.conv,), self.event_ndims_in

    @classmethod
    def tree_unflatten(cls, aux_data: int, children: tuple[Any]) -> Self:
        """Undo `tree_flatten`."""
        bijector = object.__new__(cls)
        distrax.Bijector.__init__(bijector, event_ndims_in=aux_data, is_constant_jacobian=True)
        (bijector.conv,) = children
        return bijector
