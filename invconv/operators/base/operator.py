"""The public methods of every invertible convolution, derived from its factors.

y = K x + b,    x = K^-1 (y - b),    log|det K|
"""

import math
from dataclasses import replace
from typing import Any, ClassVar

from invconv.arrays.derived import of_values
from invconv.arrays.namespaces import (
    Array,
    Shape,
    as_array,
    cast,
    copy_of,
    dtype_name,
    namespace,
    readable,
    to_float,
)
from invconv.arrays.registry import Primitive
from invconv.arrays.validation import choice, flag, is_number, require_alike
from invconv.families import path as paths
from invconv.families.path import State
from invconv.operators.base.calls import (
    Call,
    PreparedInverse,
    as_batch,
    for_each,
    require_spatial_shape,
)
from invconv.operators.base.conditions import condition
from invconv.operators.base.factors import Gradients, Operator, require_regular
from invconv.operators.base.judgement import warn_of_loss


class InvertibleConv(Operator, abstract=True):
    r"""An affine map of arrays (*batch, C, *spatial) with exact inverse and log-determinant.

    $$y = K x + b, \qquad x = K^{-1} (y - b)$$

    The arrays of a call must have the operator's library, dtype and device; nothing is moved or
    promoted. float16 and bfloat16 are computed in float32 and cast at the end.

    Condition numbers are remembered: once arrays are edited in place, as by torch's optimisers,
    they are out of date. Values and inverses never are. Copies by ``replace()`` remember none.

    Examples
    --------
    >>> import numpy as np
    >>> from invconv import PeriodicConv
    >>> conv = PeriodicConv(np.asarray([[[1.0, 2.0, 0.0]]]))  # y[p] = x[p - 1] + 2 x[p]
    >>> x = np.asarray([[1.0, 0.0, 0.0, 0.0]])  # one channel of four pixels
    >>> conv.forward(x)
    array([[2., 1., 0., 0.]])
    >>> np.round(conv.inverse(conv.forward(x)), 12) + 0.0
    array([[1., 0., 0., 0.]])
    >>> conv.transpose().forward(x)
    array([[2., 0., 0., 1.]])
    >>> float(np.exp(conv.log_det((4,))).round(12)), round(conv.condition((4,)), 12)
    (15.0, 3.0)
    >>> prepared = conv.prepare((4,))  # to solve often
    >>> np.round(prepared.inverse(x), 3)
    array([[ 0.533, -0.267,  0.133, -0.067]])

    With a batch axis there is one log-determinant for each sample:

    >>> y, log_dets = conv.forward_and_log_det(np.ones((3, 1, 4)))
    >>> x, back = conv.inverse_and_log_det(y)
    >>> log_dets.round(3), back.round(3)
    (array([2.708, 2.708, 2.708]), array([-2.708, -2.708, -2.708]))

    The arrays have names, and a copy may have others, or another dtype or library:

    >>> list(conv.replace(bias=np.ones(1)).parameters())
    ['kernel', 'bias']
    >>> conv.asarrays(like=np.zeros(1, np.float32)).kernel.dtype
    dtype('float32')
    """

    # `Transposed` and `Inverse`, set by their module `operators.inverse`, which imports this one
    _transposed: ClassVar[type[Any]]
    _inverse: ClassVar[type[Any]]

    def transpose(self) -> "InvertibleConv":
        """Return the operator of the transposed matrix, without bias."""
        transposed: InvertibleConv = self._transposed(self)
        return transposed

    def forward(self, x: Array) -> Array:
        """Return y = K x + b; x and y have the shape (*batch, C, *spatial)."""
        call = as_batch(self, "x", x)
        y = call.conv._route(call.x)(call.x)
        if self._inverts_forward:
            self._check_forward(call.spatial_shape, y)
        return call.restore_shape(y)

    def inverse(self, y: Array) -> Array:
        """Return x with forward(x) = y; short for ``prepare(spatial_shape).inverse(y)``.

        Raises
        ------
        SingularConvError
            If the operator has a zero pivot (known in host memory, outside traced code only).

        Warns
        -----
        IllConditionedWarning
            If the result has fewer than two correct digits.

        Notes
        -----
        NaN and inf in a sample stay in that sample. There they may reach pixels that do not depend
        on them but are solved together with them (frequencies, channels).
        """
        call = as_batch(self, "y", y)
        return call.restore_shape(self._state(call.conv, call.spatial_shape).solve(call.x))

    def log_det(self, spatial_shape: Shape) -> Array:
        """Return log|det K| for one sample on a grid, a 0-d array; -inf if K is singular.

        It has the dtype of the parameters, float32 for float16 and bfloat16.
        """
        shape = require_spatial_shape(self, spatial_shape)
        return as_array(paths.log_det(self._in_working_precision()._path(), shape)[0])

    def forward_and_log_det(self, x: Array) -> tuple[Array, Array]:
        """Return y = K x + b and log|det K|, the latter broadcast to the batch shape."""
        call = as_batch(self, "x", x)
        y, log_dets = evaluate(call.x, call.conv)
        if self._inverts_forward:
            self._check_forward(call.spatial_shape, y)
        return call.restore_shape(y), call.restore_batch(log_dets)

    def inverse_and_log_det(self, y: Array) -> tuple[Array, Array]:
        """Return x = K^-1 (y - b) and log|det K^-1|, the latter broadcast to the batch shape."""
        call = as_batch(self, "y", y)
        state = self._state(call.conv, call.spatial_shape)
        log_dets = call.restore_batch(for_each(call.x, -state.log_det))
        return call.restore_shape(state.solve(call.x)), log_dets

    def prepare(
        self, spatial_shape: Shape, *, check: bool = True, precision: str | None = None
    ) -> PreparedInverse:
        """Factor the operator for one grid, to solve often.

        Parameters
        ----------
        spatial_shape : tuple of int
            The grid.
        check : bool
            Whether to judge the inverse, and to warn if it cannot be right. Inverses in traced
            code and of arrays on an accelerator are never judged.
        precision : "float64", optional
            Solve data of another dtype in float64, for more correct digits.

        Raises
        ------
        SingularConvError
            If the operator has a zero pivot (known in host memory, outside traced code only).
        """
        shape = require_spatial_shape(self, spatial_shape)
        held = self._map(copy_of, check=False)  # later edits of the arrays do not reach it
        working, wide = held._in_working_precision(), precision is not None
        if wide:
            choice("precision", precision, ("float64",))
            like = working._reference()[1]
            wide = bool(like.dtype != namespace(like).float64)
        state = self._state(working, shape, flag("check", check), wide)
        held._conditions.fixed = True
        if not check:
            held._conditions.unchecked.add(shape)  # its least squares are not judged either
        return PreparedInverse(held, shape, state)

    def _state(
        self, working: "InvertibleConv", shape: Shape, check: bool = True, wide: bool = False
    ) -> State:
        state = (working._in_float64() if wide else working)._factor(shape)
        if check:
            warn_of_loss(self, shape, state.log_det, state)
        if not wide:
            return state
        log_det = cast(state.log_det, working._reference()[1].dtype)
        return replace(state, dtype=state.log_det.dtype, log_det=log_det)

    def condition(self, spatial_shape: Shape, *, norm: float | None = None) -> float:
        """Return the condition number |K| |K^-1| on a grid.

        The relative error of x is at most this number times that of y. The solve itself may lose
        fewer digits, if rows differ in scale, or more, if factors grow and their product does not,
        or if steps undo each other: `invconv.diagnose` and the warning measure the actual loss.

        Parameters
        ----------
        spatial_shape : tuple of int
            The grid.
        norm : {1, inf}, optional
            Unless given, the 2-norm for periodic and symmetric convolutions without a "mirror" and
            for operators with one matrix for all pixels; the 1-norm for all others.

        Returns
        -------
        float
            Exact in the 2-norm. In the other norms exact up to 512 unknowns (16 x 32 x 32 for
            corners; fewer for wide exponentials); beyond, a Hager-Higham estimate from below.
            inf if K is singular or its inverse overflows. It is computed on the host, in float64:
            from about 1e15 on, rounding alone may account for it, which `diagnose` tells.
        """
        shape = require_spatial_shape(self, spatial_shape)
        if norm is not None and not (is_number(norm) and norm in (1, math.inf)):
            raise ValueError(f"norm: expected 1 or inf, or None, got {norm!r}")
        return condition(self, shape, norm).condition

    def _check_forward(self, shape: Shape, result: Array) -> None:
        """Warn if the forward map contains an inverse that cannot be right."""
        if self._of_parts:
            for conv in self._parts().values():
                conv._check_forward(shape, result)
        elif self._inverts_forward:
            warn_of_loss(self._turned, shape, result)

    @of_values
    def _turned(self) -> Any:
        """Return the inverse as an operator, which remembers how the forward map is judged."""
        return self._inverse(self)

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
        state = self._state(call.conv, call.spatial_shape, check)
        x = state.solve(call.x)
        if check:
            self._check_forward(call.spatial_shape, x)
        x_bar, total = call.alike("x_bar", x_bar), _total(call, log_det_bar)
        if total is not None:
            _require_finite(call, state.log_det)
            total = -total
        gradients, y_bar = call.conv._inverse_vjp(call.x, x, x_bar, total)
        return self._named(gradients), call.restore_shape(y_bar)

    def _named(self, gradients: Gradients) -> Gradients:
        dtype, names = self._reference()[1].dtype, self._parameter_names
        if missing := set(names) - gradients.keys():
            raise ValueError(
                f"{type(self).__name__}.factors_vjp: expected gradients by {', '.join(names)}, "
                f"got none by {', '.join(sorted(missing))}"
            )
        for name, array in self.parameters().items():
            if gradients[name].shape != array.shape:
                raise ValueError(
                    f"{type(self).__name__}.factors_vjp: expected a gradient by {name} of shape "
                    f"{tuple(array.shape)}, got one of shape {tuple(gradients[name].shape)}"
                )
        return {name: cast(gradients[name], dtype) for name in names}


@Primitive
def evaluate(x: Array, conv: InvertibleConv) -> tuple[Array, Array]:
    """Return K x + b and log|det K|, shape (B,); a library may record the whole as one step."""
    route = conv._route(x)
    return route(x), for_each(x, paths.log_det(route.path, route.shape)[0])


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
    """Raise SingularConvError if a factor's log-determinant is -inf, as far as it is readable."""
    if readable(log_det) and math.isinf(to_float(log_det)):
        for back in (True, False):
            require_regular(call.conv, call.spatial_shape, back=back)
