"""The inverse of an operator, as an operator: forward and inverse exchanged."""

from __future__ import annotations

from typing import Any, Self

from invconv.arrays.derived import derived
from invconv.arrays.namespaces import Array, Shape
from invconv.operators.base.fields import part, require_operator
from invconv.operators.base.operator import InvertibleConv
from invconv.operators.base.protocol import BOTH, Gradients
from invconv.solve.state import Forward, Map, State
from invconv.trust.bound import Bounds
from invconv.trust.condition import Condition
from invconv.trust.measured import Step


class Inverse(InvertibleConv):
    """Forward and inverse exchanged: forward(x) solves conv(y) = x.

    Parameters
    ----------
    conv : InvertibleConv
        Its arrays are named "conv.kernel", ...

    Examples
    --------
    >>> import numpy as np
    >>> from invconv import EmergingConv
    >>> conv = EmergingConv.init(3, rng=np.random.default_rng(0))
    >>> x = np.ones((3, 8, 8))
    >>> np.allclose(Inverse(conv).forward(conv.forward(x)), x)
    True
    """

    conv: InvertibleConv = part()

    def validate(self) -> None:
        """See `Fields`."""
        require_operator("conv", self.conv)  # not several

    _inverts_forward = _turned = True
    _needs_y = True
    _keeps_y = True

    @derived
    def _pixelwise(self) -> bool:
        return self.conv._pixelwise

    def transpose(self) -> Inverse:
        """Return the inverse of the transposed operator, without bias."""
        return Inverse(self.conv.transpose())

    def _within(self, gain: float) -> Self:
        raise TypeError(
            "conv: expected an operator whose class bounds its inverse, got Inverse; bound what it "
            "is the inverse of"
        )

    def _apply(self, x: Array) -> Array:
        return self.conv._factor(tuple(x.shape[2:])).solve(x)

    def _factor(self, shape: Shape) -> State:
        if isinstance(self.conv, Inverse):
            return self.conv.conv._factor(shape)
        return State(Forward(self.conv), self._log_det(shape))

    def _check_forward(self, shape: Shape, result: Array) -> None:
        self.conv._check_inverse(shape, result)

    def _linear_maps(self, shape: Shape) -> tuple[Map, Map]:
        apply, solve = self.conv._linear_maps(shape)
        return solve, apply

    def _transposed_maps(self, shape: Shape) -> tuple[Map, Map]:
        apply, solve = self.conv._transposed_maps(shape)
        return solve, apply

    def _forward_saving(self, x: Array) -> tuple[Array, Any]:
        y = self._apply(x)
        return y, (x, y)

    def _apply_vjp(
        self, memo: Any, y_bar: Array, wanted: tuple[bool, bool] = BOTH
    ) -> tuple[Gradients, Array]:
        gradients, x_bar = self.conv._inverse_vjp(memo[0], memo[1], y_bar)
        return self._renamed(gradients), x_bar

    def _solve_vjp(self, y: Array | None, x: Array, x_bar: Array) -> tuple[Gradients, Array]:
        gradients, y_bar = self.conv._forward_vjp(self.conv._forward_saving(y)[1], x_bar)
        return self._renamed(gradients), y_bar

    def _log_det(self, shape: Shape) -> Array:
        return -self.conv._log_det(shape)

    def _log_det_vjp(self, shape: Shape, log_det_bar: Array) -> Gradients:
        return self._renamed(self.conv._log_det_vjp(shape, -log_det_bar))

    def _renamed(self, gradients: Gradients) -> Gradients:
        return {f"conv.{name}": g for name, g in gradients.items()}

    def _longest_columns(self, shape: Shape, transposed: bool) -> tuple[int | None, ...]:
        return self.conv._longest_columns(shape, transposed)

    def _condition(self, shape: Shape) -> Condition:
        return self.conv._condition(shape)

    def _bounds(self, shape: Shape) -> list[Bounds]:
        return [bounds.inverted() for bounds in reversed(self.conv._bounds(shape))]

    def _computation(
        self, shape: Shape, factored: bool = True, state: State | None = None
    ) -> list[Step]:
        inner = reversed(self.conv._computation(shape, factored))
        return [step.inverted().within("conv") for step in inner]
