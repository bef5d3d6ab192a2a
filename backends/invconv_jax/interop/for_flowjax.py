"""An operator as a bijection of flowjax (D. Ward)."""

from __future__ import annotations

from typing import Any, ClassVar

import equinox
from flowjax.bijections import AbstractBijection

from invconv.arrays import Array, Shape
from invconv.dropins import event_ndim, on_batch


class FlowjaxBijection(AbstractBijection):  # type: ignore[misc]
    """An operator for ``flowjax.distributions.Transformed`` and flowjax's other bijections.

    ``transform`` is latent to data, as everywhere in flowjax: the operator's *inverse*. Arrays have
    no batch axis; flowjax's distributions map over theirs.

    Parameters
    ----------
    conv : InvertibleConv
    shape : tuple of int
        Of one sample, (C, *spatial).
    """

    conv: Any
    shape: tuple[int, ...] = equinox.field(static=True)
    cond_shape: ClassVar[None] = None

    def __init__(self, conv: Any, shape: Shape) -> None:
        self.shape = tuple(shape)
        event_ndim(getattr(conv, "ndim", None), len(self.shape) - 1)  # raises where it cannot be
        self.conv = conv

    def transform_and_log_det(
        self, x: Array, condition: Array | None = None
    ) -> tuple[Array, Array]:
        """Return K^-1 (x - b) and log|det K^-1|, 0-d, of latent x."""
        return on_batch(self.conv.inverse_and_log_det, x, len(self.shape))

    def inverse_and_log_det(self, y: Array, condition: Array | None = None) -> tuple[Array, Array]:
        """Return K y + b and log|det K|, 0-d, of data y."""
        return on_batch(self.conv.forward_and_log_det, y, len(self.shape))
