"""From a user's arrays (*batch, C, *spatial) to the core's (B, C, *spatial), and back."""

import math
import operator
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from invconv.arrays.namespaces import (
    KNOWN,
    Array,
    Shape,
    cast,
    copy_of,
    namespace,
    ops_of,
    readable,
    size,
    to_numpy,
    zeros,
)
from invconv.arrays.registry import Primitive
from invconv.arrays.validation import (
    LARGEST,
    in_order,
    require_alike,
    require_array,
    require_beside,
)
from invconv.families.path import State
from invconv.kernels.primitives import Plan
from invconv.operators.base.factors import Operator, require_operator


class Call(NamedTuple):
    """A validated call: the operator and its argument in the working precision."""

    conv: Any
    name: str  # the name of the argument, for errors
    original: Array  # shape (*batch, C, *spatial)
    x: Array  # shape (B, C, *spatial)
    batch_shape: Shape

    @property
    def spatial_shape(self) -> Shape:
        return tuple(self.x.shape[2:])

    def alike(self, name: str, x: Any) -> Array:
        """Validate and flatten another argument, of the shape and dtype of the first one."""
        require_alike(name, x, self.name, self.original)
        if tuple(x.shape) != tuple(self.original.shape):
            raise ValueError(
                f"{name}: expected the shape of {self.name}, {tuple(self.original.shape)}, "
                f"got {tuple(x.shape)}"
            )
        x = cast(ops_of(x).spread(x, self.x), self.x.dtype)
        return namespace(x).reshape(x, tuple(self.x.shape))

    def broadcast(self, name: str, value: Any) -> Array:
        """Validate another argument, of any dtype, broadcast it to the first one and flatten it."""
        xp, shape = require_array(name, value), tuple(self.original.shape)
        require_beside(name, value, self.name, self.original)
        try:
            value = xp.broadcast_to(value, shape)
        except (ValueError, RuntimeError, TypeError):
            raise ValueError(
                f"{name}: expected an array that broadcasts to the shape of {self.name}, {shape}, "
                f"got {tuple(value.shape)}"
            ) from None
        return xp.reshape(cast(value, self.x.dtype), tuple(self.x.shape))

    def restore_batch(self, every: Array) -> Array:
        """Return numbers, one for each image of x, in the batch shape of the argument."""
        one = len(self.batch_shape) == 1
        return every if one else namespace(every).reshape(every, self.batch_shape)

    def restore_shape(self, y: Array) -> Array:
        """Return a result in the shape and dtype, and on the devices, of the argument."""
        if self.x is self.original and y.dtype == self.x.dtype:
            return y
        y = namespace(y).reshape(cast(y, self.original.dtype), tuple(self.original.shape))
        return ops_of(y).spread(y, self.original)


@Primitive
def for_each(x: Array, log_det: Array) -> Array:
    """Return a log-determinant for each image of x (B, C, *spatial), shape (B,)."""
    return zeros(x.shape[:1], log_det) + log_det


def fits(conv: Operator, x: Any) -> bool:
    """Tell cheaply whether an array is (B, C, *spatial), of an operator's library and dtype."""
    ndim, like, ops = conv.ndim, conv._reference()[1], KNOWN.get(type(x))
    return (
        ops is not None
        and ops is KNOWN.get(type(like))
        and ops.same_kind(x, like)
        and x.ndim >= 2
        and (ndim is None or x.ndim == ndim + 2)
        and x.shape[1] == conv.channels
        and 0 not in x.shape[2:]
        and conv._stacked is None
    )


def as_batch(conv: Operator, name: str, x: Any) -> Call:
    """Validate an argument and flatten its batch axes."""
    if fits(conv, x):
        return Call(conv, name, x, x, (x.shape[0],))
    require_one(conv)
    require_alike(name, x, *conv._reference(), movable=True)
    channels, ndim = conv.channels, conv.ndim
    batch_axes = 1 if ndim is None else x.ndim - 1 - ndim
    if batch_axes < 0 or x.ndim <= batch_axes or x.shape[batch_axes] != channels:
        spatial = "any number of spatial axes" if ndim is None else f"{ndim} spatial axes"
        batch = "batch" if ndim is None else "*batch"
        hint = f"; one image without its channel axis is {name}[None]" if channels == 1 else ""
        if ndim is not None and x.ndim > ndim and channels == 1:
            hint = f"; images without their channel axis are {name}[..., None{', :' * ndim}]"
        if x.ndim > (ndim or 1) and x.shape[-1] == channels:
            to = 1 if ndim is None else -1 - ndim
            hint = f"; channels that are last go before the pixels by moveaxis({name}, -1, {to})"
        if ndim is None and x.ndim > 1 and x.shape[0] == channels:
            hint = f"; of one image it is {name}[None], or say ndim={x.ndim - 1} when it is made"
        raise ValueError(
            f"{name}: expected shape ({batch}, {channels}, *spatial) with {channels} channel(s) "
            f"and {spatial}, got {tuple(x.shape)}{hint}"
        )
    shape = tuple(x.shape)
    spatial_shape = require_spatial_shape(conv, shape[batch_axes + 1 :], name)
    working = conv._in_working_precision()
    # each device keeps whole images, split along the first batch axis
    flat = cast(ops_of(x).spread(x, x, min(batch_axes, 1)), working._reference()[1].dtype)
    flat = namespace(x).reshape(flat, (size(shape[:batch_axes]), channels, *spatial_shape))
    return Call(working, name, x, flat, shape[:batch_axes])


def require_one(conv: Operator) -> None:
    """Raise if an operator's arrays are stacked arrays of several operators, as in JAX's trees."""
    if (name := conv._stacked) is not None:
        raise ValueError(
            f"{name}: expected that of one {type(conv).__name__}, got shape "
            f"{tuple(conv._arrays()[name].shape)}, one axis more, as of several that are "
            "stacked; call it under jax.vmap or jax.lax.scan, which take that axis away, or take "
            "one of them: jax.tree.map(lambda array: array[0], conv)"
        )


def as_squares(conv: Any, y: Any, damp: Any, penalty: Any) -> tuple[Call, float | Array, list[Any]]:
    """Validate the arguments of `least_squares`; return the penalty's operators as a list."""
    call = as_batch(conv, "y", y)
    number, limit = damp, float(namespace(call.x).finfo(call.x.dtype).max)
    if not isinstance(damp, int | float):
        require_alike("damp", damp, "y", y)
        if damp.ndim and tuple(damp.shape) != call.batch_shape:
            raise ValueError(
                "damp: expected a number, a 0-d array, or a number for each image, of shape "
                f"{call.batch_shape}, got the shape {tuple(damp.shape)}"
            )
        numbers = to_numpy(damp) if readable(damp) else np.zeros(())
        number = 0.0 if ((numbers >= 0) & (numbers <= limit)).all() else math.nan
        damp = cast(damp, call.x.dtype)
        damp = namespace(damp).reshape(damp, (call.x.shape[0],)) if damp.ndim else damp
    if not 0 <= number <= limit:
        raise ValueError(f"damp: expected a finite number of at least 0, got {damp!r:.80}")
    several = isinstance(penalty, Iterator | Sequence)
    given = list(penalty) if several else [] if penalty is None else [penalty]
    if penalty is not None and not given:
        raise ValueError("penalty: expected at least one operator, got none")
    for one in given:
        require_operator("penalty", one)
        if getattr(one, "_decoupled_by", ()) != conv._decoupled_by:
            raise ValueError(
                "penalty: expected an operator that the waves of this one's borders decouple, or a "
                f"1x1 for a 1x1, since others have no solution in one solve, got {one!r:.200}"
            )
        require_one(one)
        inside, array = one._reference()
        require_alike(f"penalty.{inside}", array, "y", y)
        if one.channels != conv.channels or one.ndim not in (None, call.x.ndim - 2):
            raise ValueError(
                f"penalty: expected {conv.channels} channels and {call.x.ndim - 2} spatial axes, "
                f"as y has, got {one!r:.200}"
            )
    return call, damp, [one._in_working_precision() for one in given]


def grid_of(conv: Operator, shape: Sequence[int]) -> Shape:
    """Return the grid of an array of shape (*batch, C, *spatial)."""
    return tuple(shape[2 if conv.ndim is None else len(shape) - conv.ndim :])


def require_spatial_shape(
    conv: Operator, shape: Sequence[Any], name: str = "spatial_shape"
) -> Shape:
    """Return a grid as a tuple of ints, or raise if it does not fit the operator."""
    given, array = conv._reference()
    ops_of(array).require_usable(given, array)
    require_one(conv)
    try:
        sizes = tuple(map(operator.index, in_order(shape)))
    except TypeError:
        got = f"an array of shape {tuple(shape.shape)}" if hasattr(shape, "shape") else repr(shape)
        raise TypeError(
            f"{name}: expected a tuple of integers such as x.shape[2:], got {got}"
        ) from None
    if conv.ndim is not None and len(sizes) != conv.ndim:
        raise ValueError(f"{name}: expected {conv.ndim} spatial axes, got {sizes}")
    if not all(1 <= n <= LARGEST for n in sizes):
        raise ValueError(
            f"{name}: expected at least one pixel along every spatial axis, and {LARGEST} at most, "
            f"got {sizes}"
        )
    return sizes


@dataclass(frozen=True, eq=False, repr=False)
class PreparedInverse:
    """An operator factored by `InvertibleConv.prepare`, with the values that it had then.

    JAX's arrays are immutable and not copied: do not donate them. With JAX's arrays it is a pytree,
    as its operator is, and can be an argument of ``jax.jit``.

    Attributes
    ----------
    conv : InvertibleConv
        A copy each time, so that edits of its arrays change nothing here.
    spatial_shape : tuple of int
        The grid for which the operator was factored.

    Examples
    --------
    >>> import numpy as np
    >>> from invconv import PeriodicConv
    >>> conv = PeriodicConv.init(3, rng=np.random.default_rng(0))
    >>> prepared = conv.prepare((8, 8))
    >>> x = np.ones((2, 3, 8, 8))
    >>> y = conv.forward(x)
    >>> np.allclose(prepared.inverse(y), x)
    True
    >>> np.allclose(prepared.inverse_and_log_det(y)[1], [-conv.log_det((8, 8))] * 2)
    True
    >>> np.allclose(prepared.least_squares(y, damp=1e-6), x)
    True
    """

    _conv: Any  # an InvertibleConv: its module imports this one
    spatial_shape: Shape
    _state: State

    @property
    def conv(self) -> Any:
        """A copy of the operator, with the values that it had then."""
        return self._conv._map(copy_of, check=False)

    @property
    def plan(self) -> Plan:
        """How the solve runs: the method, and its choices."""
        return self._state.plan

    def __repr__(self) -> str:
        return f"PreparedInverse({self._conv!r}, {self.spatial_shape}, plan={self.plan})"

    def inverse(self, y: Array, before: Array | None = None) -> Array:
        """Return x with conv.forward(x) = y, shape (*batch, C, *spatial).

        ``before``, of an `AutoregressiveConv` alone, are the pixels of x that precede this block:
        see `AutoregressiveConv.inverse`.
        """
        if before is None and fits(self._conv, y) and y.shape[2:] == self.spatial_shape:
            return self._state.solve(y)
        call = self._as_batch(y)
        y = call.x
        if before is not None:
            if not hasattr(call.conv, "_with_before"):
                raise TypeError(
                    "before: expected none, since only an AutoregressiveConv alone reads the "
                    f"pixels before a block, got some for {type(self._conv).__name__}"
                )
            conv = call.conv if self._state.dtype is None else call.conv._in_float64()
            y = conv._with_before(call, cast(y, self._state.dtype or y.dtype), before, -1)
            self._conv._warn_of_blocks(self.spatial_shape, y)
        return call.restore_shape(self._state.solve(y))

    def least_squares(self, y: Array, damp: float | Array = 0.0, penalty: Any = None) -> Array:
        """Return the x that minimises |K x + b - y|^2 + damp^2 |P x|^2, as the operator does.

        An operator that is exactly singular cannot be prepared; call its own `least_squares`.

        Raises
        ------
        TypeError
            For an operator that has no `least_squares`.
        """
        self._as_batch(y)
        if not hasattr(self._conv, "least_squares"):
            raise TypeError(
                "least_squares: expected a periodic, symmetric or 1x1 convolution, or an ActNorm, "
                f"got {type(self._conv).__name__}"
            )
        dtype = self._state.dtype
        if dtype is None:
            return self._conv.least_squares(y, damp, penalty)
        _, damp, penalties = as_squares(self._conv, y, damp, penalty)
        damp = damp if isinstance(damp, int | float) else cast(damp, dtype)
        wide = self._conv._in_float64()
        vars(wide)["_conditions"] = self._conv._conditions  # shared: the numbers are the same
        wider = [one._in_float64() for one in penalties]
        return cast(wide.least_squares(cast(y, dtype), damp, wider or None), y.dtype)

    def inverse_and_log_det(self, y: Array) -> tuple[Array, Array]:
        """Return `inverse` and log|det K^-1|, the latter broadcast to the batch shape."""
        call = self._as_batch(y)
        x = call.restore_shape(self._state.solve(call.x))
        return x, call.restore_batch(for_each(call.x, -self._state.log_det))

    def _as_batch(self, y: Array) -> Call:
        call = as_batch(self._conv, "y", y)
        if call.spatial_shape != self.spatial_shape:
            raise ValueError(
                f"y: expected the grid {self.spatial_shape} that this inverse was prepared for, "
                f"got {call.spatial_shape}; prepare another one for it"
            )
        return call
