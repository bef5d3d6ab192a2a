"""The public methods of every invertible convolution, derived from its factors.

    y = K x + b,    x = K^-1 (y - b),    log|det K|

A method validates its arguments, and runs the operator's factors (`base.factors`).
"""

from __future__ import annotations

import math

from invconv.arrays.namespaces import Array, Shape, as_array, copy_of, namespace
from invconv.arrays.registry import Primitive
from invconv.arrays.validation import flag
from invconv.families import path as paths
from invconv.families.factored import State, solvers_of
from invconv.operators.base import register
from invconv.operators.base.calls import as_batch, for_each, require_spatial_shape
from invconv.operators.base.checks import warn_of_loss
from invconv.operators.base.conditions import remembered
from invconv.operators.base.derivatives import Differentiable
from invconv.operators.base.factors import require_regular
from invconv.operators.base.prepared import PreparedInverse


class InvertibleConv(Differentiable, abstract=True):
    """An affine map of arrays (*batch, C, *spatial) with exact inverse and log-determinant.

        y = K x + b,    x = K^-1 (y - b)

    The arrays of a call must have the operator's library, dtype and device; nothing is moved or
    promoted. float16 and bfloat16 are computed in float32 and cast at the end.

    Condition numbers are remembered. Editing arrays in place, as torch's optimisers do, leaves them
    out of date, but never values or inverses; a copy by ``replace()`` computes them anew.

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

    def transpose(self) -> InvertibleConv:
        """Return the operator of the transposed matrix, without bias."""
        transposed: InvertibleConv = register.operators()["Transposed"](self)
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
            If the result has fewer than two right digits.

        Notes
        -----
        NaN and inf in a sample stay in that sample. There they may reach pixels that do not depend
        on them but are solved together with them (frequencies, channels).
        """
        call = as_batch(self, "y", y)
        return call.restore_shape(self._state(self, call.spatial_shape).solve(call.x))

    def log_det(self, spatial_shape: Shape) -> Array:
        """Return log|det K| for one sample on a grid, a 0-d array; -inf if K is singular.

        It has the dtype of the parameters, float32 for float16 and bfloat16.
        """
        shape = require_spatial_shape(self, spatial_shape)
        return as_array(self._in_working_precision()._log_det(shape))

    def _log_det(self, shape: Shape) -> Array:
        return paths.log_det(self._path(), shape)[0]

    def forward_and_log_det(self, x: Array) -> tuple[Array, Array]:
        """Return y = K x + b and log|det K|, the latter broadcast to the batch shape."""
        call = as_batch(self, "x", x)
        y, log_dets = evaluate(call.x, call.conv)
        if self._inverts_forward:
            self._check_forward(call.spatial_shape, y)
        if log_dets.shape != call.batch_shape:
            log_dets = namespace(log_dets).reshape(log_dets, call.batch_shape)
        return call.restore_shape(y), log_dets

    def inverse_and_log_det(self, y: Array) -> tuple[Array, Array]:
        """Return x = K^-1 (y - b) and log|det K^-1|, the latter broadcast to the batch shape."""
        call = as_batch(self, "y", y)
        state = self._state(self, call.spatial_shape)
        return call.restore_shape(state.solve(call.x)), call.broadcast(-state.log_det)

    def prepare(
        self, spatial_shape: Shape, *, check: bool = True, precision: str | None = None
    ) -> PreparedInverse:
        """Factor the operator for one grid, to solve often.

        Parameters
        ----------
        spatial_shape : tuple of int
            The grid.
        check : bool
            Whether to judge the inverse and warn of an inverse that cannot be right. Never
            done inside traced code nor for arrays on an accelerator.
        precision : "float64", optional
            Solve data of another dtype in float64, for more right digits.

        Raises
        ------
        SingularConvError
            If the operator has a zero pivot (known in host memory, outside traced code only).
        """
        shape = require_spatial_shape(self, spatial_shape)
        held = self._each(copy_of)  # later edits of the arrays do not reach it
        wide = self._wants_float64(precision)
        return PreparedInverse(held, shape, self._state(held, shape, flag("check", check), wide))

    def _state(
        self, held: InvertibleConv, shape: Shape, check: bool = True, wide: bool = False
    ) -> State:
        """Factor ``held``, this operator or a copy of it; this operator remembers the condition."""
        working = held._in_working_precision()
        state = (working._in_float64() if wide else working)._factor(shape)
        if check:
            warn_of_loss(self, shape, state.log_det, state)
        return state.for_data_in(working._reference()[1].dtype) if wide else state

    def _factor(self, shape: Shape) -> State:
        path = self._path()
        guard = require_regular(self, shape, back=True) if self._inverts_forward else None
        log_det = paths.log_det(path, shape)[0]
        if not self._inverts_forward:  # the inverse solves all factors
            guard = require_regular(self, shape, back=True, log_det=log_det)
        return State(solvers_of(paths.inverse(path), shape), log_det, guard)

    def condition(self, spatial_shape: Shape, *, norm: float | None = None) -> float:
        """Return the condition number |K| |K^-1| on a grid.

        It bounds the relative error of x by the relative error of y. The solve itself may lose
        fewer digits, if rows differ in scale, or more, if factors grow and their product does not,
        or if steps undo each other: `invconv.diagnose` and the warning measure that.

        Parameters
        ----------
        spatial_shape : tuple of int
            The grid.
        norm : {1, inf}, optional
            Unless given, the 2-norm for periodic and symmetric convolutions and for what is one
            matrix at every pixel, the 1-norm for the others.

        Returns
        -------
        float
            Exact in the 2-norm. In the other norms exact up to 512 unknowns (16 x 32 x 32 for
            corners; fewer for wide exponentials), and a Hager-Higham estimate from below beyond.
            inf if K is singular or its inverse overflows. It is computed on the host, in float64;
            `diagnose` tells whether rounding may account for it, from about 1e15 on.
        """
        shape = require_spatial_shape(self, spatial_shape)
        if not (norm is None or norm in (1, math.inf)):
            raise ValueError(f"norm: expected 1 or inf, or None, got {norm!r}")
        return remembered(self, shape, norm)


@Primitive
def evaluate(x: Array, conv: InvertibleConv) -> tuple[Array, Array]:
    """Return K x + b and log|det K| for every sample, shape (B,), for x (B, C, *spatial).

    A library may record the whole as one step, with the operator's own derivative.
    """
    route = conv._route(x)
    log_det = paths.log_det(route.path, route.shape)[0]
    return route(x), for_each(x.shape[:1], log_det)
