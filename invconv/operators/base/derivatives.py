"""The derivatives of every invertible convolution, without an autodiff library.

A class supplies `_forward_vjp`, `_inverse_vjp` and `_log_det_vjp` (`base.protocol`).
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

from invconv.arrays.namespaces import Array, Shape, cast, namespace
from invconv.operators.base.calls import Call, as_batch, require_cotangent
from invconv.operators.base.protocol import Gradients, Protocol
from invconv.solve.state import State


class Differentiable(Protocol, abstract=True):
    """The vector-Jacobian products of value, inverse and log-determinant."""

    @abstractmethod
    def _state(self, held: Any, shape: Shape, check: bool = True, wide: bool = False) -> State:
        """Factor an operator for a grid, and judge its inverse."""

    def _check_forward(self, shape: Shape, result: Array) -> None:
        """Warn if the forward map contains an inverse that cannot be right."""

    def forward_vjp(
        self, x: Array, y_bar: Array, log_det_bar: Array | None = None
    ) -> tuple[Gradients, Array]:
        """Pull cotangents of `forward_and_log_det` back to the parameters and to x.

        Parameters
        ----------
        x, y_bar : array, shape (*batch, C, *spatial)
            The input, and the cotangent of y.
        log_det_bar : array, shape batch, optional
            The cotangent of the log-determinant.

        Returns
        -------
        gradients : dict of str to array
            The gradient of each parameter, by the names of `parameters`.
        x_bar : array, shape (*batch, C, *spatial)

        Examples
        --------
        >>> import numpy as np
        >>> from invconv import Conv1x1
        >>> conv, x = Conv1x1(np.eye(2)), np.ones((1, 2, 3))
        >>> gradients, x_bar = conv.forward_vjp(x, x)  # of the sum of y**2 / 2
        >>> gradients["weight"]
        array([[3., 3.],
               [3., 3.]])
        """
        call = as_batch(self, "x", x)
        memo = call.conv._forward_saving(call.x)[1]
        gradients, x_bar = call.conv._forward_vjp(memo, call.alike("y_bar", y_bar))
        self._check_forward(call.spatial_shape, x_bar)
        return self._finish(call, gradients, log_det_bar, 1), call.restore_shape(x_bar)

    def inverse_vjp(
        self, y: Array, x_bar: Array, log_det_bar: Array | None = None, *, check: bool = True
    ) -> tuple[Gradients, Array]:
        """Pull cotangents of `inverse_and_log_det` back to the parameters and to y.

        Parameters
        ----------
        y, x_bar : array, shape (*batch, C, *spatial)
            The input, and the cotangent of x = inverse(y).
        log_det_bar : array, shape batch, optional
            The cotangent of the log-determinant of the inverse, which this direction returns.
        check : bool
            As for `prepare`: an inverse that cannot be right has no right gradient either.

        Returns
        -------
        gradients : dict of str to array
            The gradient of each parameter, by the names of `parameters`.
        y_bar : array, shape (*batch, C, *spatial)

        Examples
        --------
        >>> import numpy as np
        >>> from invconv import Conv1x1
        >>> conv, y = Conv1x1(2 * np.eye(2)), np.ones((1, 2, 3))
        >>> gradients, y_bar = conv.inverse_vjp(y, np.ones_like(y))  # of the sum of x = y / 2
        >>> y_bar[0, :, 0]
        array([0.5, 0.5])
        """
        call = as_batch(self, "y", y)
        x = self._state(self, call.spatial_shape, check).solve(call.x)
        if check:
            self._check_forward(call.spatial_shape, x)
        gradients, y_bar = call.conv._inverse_vjp(call.x, x, call.alike("x_bar", x_bar))
        return self._finish(call, gradients, log_det_bar, -1), call.restore_shape(y_bar)

    def _finish(
        self, call: Call, gradients: Gradients, log_det_bar: Array | None, sign: int
    ) -> Gradients:
        """Add the gradients of the log-determinant, and cast to the parameters' dtype."""
        if log_det_bar is not None:
            require_cotangent(call, log_det_bar)
            total = namespace(log_det_bar).sum(log_det_bar) * sign
            more = call.conv._log_det_vjp(call.spatial_shape, total)
            gradients = gradients | {name: gradients[name] + g for name, g in more.items()}
        dtype = self._reference()[1].dtype
        return {name: cast(gradients[name], dtype) for name in self.parameters()}
