"""An operator as a bijection of flowjax (D. Ward)."""

from typing import Any, ClassVar

import equinox
import jax
import paramax
from flowjax.bijections import AbstractBijection

from invconv.arrays.namespaces import Array, Shape
from invconv.arrays.validation import sizes
from invconv.operators.dropins import event_ndim, on_batch, require_conv
from invconv_jax.pytrees import told_apart


class FlowjaxBijection(AbstractBijection):  # type: ignore[misc]
    """An operator for ``flowjax.distributions.Transformed`` and flowjax's other bijections.

    ``transform`` maps latents to data, as in all of flowjax: the operator's *inverse*. Arrays have
    no batch axis; flowjax's distributions map over batch axes.

    Parameters
    ----------
    conv : InvertibleConv
    shape : tuple of int
        The shape of one sample, (C, *spatial), or (*spatial, C) of `channels_last`.

    Examples
    --------
    >>> import flowjax.distributions, invconv, invconv_jax, jax
    >>> from invconv_jax.interop import FlowjaxBijection
    >>> conv = invconv_jax.init(jax.random.key(0), invconv.EmergingConv, 3)
    >>> base = flowjax.distributions.StandardNormal((3, 8, 8))
    >>> images = flowjax.distributions.Transformed(base, FlowjaxBijection(conv, (3, 8, 8)))
    >>> images.log_prob(jax.numpy.zeros((2, 3, 8, 8))).shape
    (2,)
    """

    arrays: Any
    shape: tuple[int, ...] = equinox.field(static=True)
    cond_shape: ClassVar[None] = None

    def __init__(self, conv: Any, shape: Shape) -> None:
        require_conv(conv)
        try:
            self.shape = sizes("shape", shape, len(shape))
        except TypeError:
            self.shape = ()
        if not self.shape:
            raise TypeError(f"shape: expected (C, *spatial) of one sample, got {shape!r}")
        event_ndim(getattr(conv, "ndim", None), len(self.shape) - 1)  # raises if it does not fit
        real = next(a.dtype for a in jax.tree.leaves(conv) if a.dtype.kind not in "iu")
        try:
            jax.eval_shape(conv.forward_and_log_det, jax.ShapeDtypeStruct((1, *self.shape), real))
        except ValueError as error:
            raise ValueError(
                f"shape: expected one that the operator takes, got {self.shape}: {error}"
            ) from error
        self.arrays = told_apart(conv, lambda array: array, paramax.non_trainable)

    @property
    def conv(self) -> Any:
        """The operator of the current parameters, x -> z."""
        return paramax.unwrap(self.arrays)

    def transform_and_log_det(
        self, x: Array, condition: Array | None = None
    ) -> tuple[Array, Array]:
        """Return K^-1 (x - b) and log|det K^-1|, 0-d, of latent x."""
        return on_batch(self.conv.inverse_and_log_det, x, len(self.shape))

    def inverse_and_log_det(self, y: Array, condition: Array | None = None) -> tuple[Array, Array]:
        """Return K y + b and log|det K|, 0-d, of data y."""
        return on_batch(self.conv.forward_and_log_det, y, len(self.shape))
