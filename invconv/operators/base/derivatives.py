"""The derivatives of every invertible convolution, without an autodiff library.

They follow from the factors (`base.factors`).
"""

import math
from abc import abstractmethod
from typing import Any

from invconv.arrays.derived import derived
from invconv.arrays.namespaces import Array, Shape, cast, dtype_name, namespace, readable, to_float
from invconv.arrays.validation import require_alike
from invconv.families.factored import State
from invconv.operators.base import register
from invconv.operators.base.calls import Call, as_batch
from invconv.operators.base.checks import warn_of_loss
from invconv.operators.base.factors import Factored, FactorList, Gradients, require_regular


class Differentiable(Factored, abstract=True):
    """The vector-Jacobian products of value, inverse and log-determinant."""

    @abstractmethod
    def _state(self, held: Any, shape: Shape, check: bool = True, wide: bool = False) -> State:
        """Factor an operator for a grid, and judge its inverse."""

    def _check_forward(self, shape: Shape, result: Array) -> None:
        """Warn if the forward map contains an inverse that cannot be right."""
        if type(self).factors is FactorList.factors:
            for conv in self._parts().values():
                conv._check_forward(shape, result)
        elif self._inverts_forward:
            warn_of_loss(self._turned, shape, result)

    @derived
    def _turned(self) -> Any:
        """Return the inverse as an operator, which remembers how the forward map is judged."""
        return register.operators()["Inverse"](self)

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
        y_bar, total = call.alike("y_bar", y_bar), _total(call, log_det_bar)
        _, log_det, memo = call.conv._route(call.x).saving(call.x, total is not None)
        if total is not None:
            _require_finite(call, log_det)
        gradients, x_bar = call.conv._pull_back(memo, y_bar, total)
        self._check_forward(call.spatial_shape, x_bar)
        return self._named(gradients), call.restore_shape(x_bar)

    def inverse_vjp(
        self, y: Array, x_bar: Array, log_det_bar: Array | None = None, *, check: bool = True
    ) -> tuple[Gradients, Array]:
        """Pull cotangents of `inverse_and_log_det` back to the parameters and to y.

        The gradients are named as those of `forward_vjp`.

        Parameters
        ----------
        y, x_bar : array, shape (*batch, C, *spatial)
            The input, and the cotangent of x = inverse(y).
        log_det_bar : array, shape batch, optional
            The cotangent of the log-determinant of the inverse, which this direction returns.
        check : bool
            As for `prepare`: an inverse that cannot be right has no right gradient either.

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
        x_bar, total = call.alike("x_bar", x_bar), _total(call, log_det_bar)
        if total is not None:
            _require_finite(call, call.conv._log_det(call.spatial_shape))
            total = -total
        gradients, y_bar = call.conv._inverse_vjp(call.x, x, x_bar, total)
        return self._named(gradients), call.restore_shape(y_bar)

    def _named(self, gradients: Gradients) -> Gradients:
        """Return the gradients in the order of `parameters`, and in the parameters' dtype."""
        dtype, names = self._reference()[1].dtype, self._parameter_names
        if missing := set(names) - gradients.keys():
            raise ValueError(
                f"{type(self).__name__}.factors_vjp: expected gradients by {', '.join(names)}, "
                f"got none by {', '.join(sorted(missing))}"
            )
        return {name: cast(gradients[name], dtype) for name in names}


def _total(call: Call, log_det_bar: Array | None) -> Array | None:
    """Return the sum of a log-determinant's cotangents over the batch."""
    if log_det_bar is None:
        return None
    require_alike("log_det_bar", log_det_bar, "the log-determinant", call.x)
    if tuple(log_det_bar.shape) != call.batch_shape:
        raise ValueError(
            f"log_det_bar: expected the batch shape {call.batch_shape}, one number per sample, "
            f"got {tuple(log_det_bar.shape)} of {dtype_name(log_det_bar.dtype)}"
        )
    return namespace(log_det_bar).sum(log_det_bar)


def _require_finite(call: Call, log_det: Array) -> None:
    """Raise SingularConvError if a log-determinant is -inf, as far as it is readable."""
    if readable(log_det) and to_float(log_det) == -math.inf:
        require_regular(call.conv, call.spatial_shape, back=True)
