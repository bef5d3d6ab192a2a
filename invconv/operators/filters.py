"""Recursive filters with SciPy's signatures, on every library and differentiable in all arguments.

A filter is A y = B x with two autoregressive convolutions of one channel: y = A^-1 B x. An initial
state zi of the transposed direct form II is added to the first K numbers of B x.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from invconv.arrays.namespaces import (
    Array,
    Shape,
    cast,
    constant,
    copy_of,
    namespace,
    native_dtype,
    readable,
    size,
    to_float,
    zeros,
)
from invconv.arrays.validation import require_alike, require_array, require_real
from invconv.operators.autoregressive import AutoregressiveConv
from invconv.operators.blocks import added, carried_over, resized

# written as tables of numbers, not as arrays of a library
_NUMBERS = (np.ndarray, np.number, Sequence, float, int)


def lfilter(b: Any, a: Any, x: Array, axis: int = -1, zi: Array | None = None) -> Any:
    """Filter signals with a rational transfer function, as `scipy.signal.lfilter`.

        a[0] y[n] = b[0] x[n] + ... + b[K] x[n - K] - a[1] y[n - 1] - ... - a[K] y[n - K]

    Every step is differentiable, in b, a, x and zi. JAX's ``jit`` compiles it, and `torch.compile`,
    with ``fullgraph=True`` if b and a are tensors.

    Parameters
    ----------
    b, a : array, sequence of numbers, shape (..., k), or number
        Numerator and denominator; a[0] is not zero. Axes before the last broadcast against the
        other axes of x: there a filter of its own runs for each index.
    x : array
        Signals, real and floating. Its dtype is that of the result; b and a of plain numbers or of
        NumPy are cast to it.
    axis : int
        The axis of time.
    zi : array, optional
        The state at first: as x, with K = max(len(a), len(b)) - 1 numbers along ``axis``, or 1
        along other axes.

    Returns
    -------
    array, or (array, array)
        y, shaped as x; with ``zi`` also the state at the end, with which the next piece of the
        signals goes on.

    Raises
    ------
    TypeError, ValueError
        If an array is complex or of another library, a[0] is zero, or shapes do not fit.

    Examples
    --------
    >>> import numpy as np
    >>> lfilter([1.0], [1.0, -0.5], np.asarray([1.0, 0.0, 0.0]))
    array([1.  , 0.5 , 0.25])
    >>> y, state = lfilter([1.0], [1.0, -0.5], np.asarray([1.0, 0.0]), zi=np.zeros(1))
    >>> lfilter([1.0], [1.0, -0.5], np.asarray([0.0]), zi=state)[0]
    array([0.25])
    """
    require_real("x", x)
    x, dtype = cast(x, native_dtype(x.dtype)), x.dtype
    b, a = _coefficients("b", b, x), _coefficients("a", a, x)
    axis = operator.index(axis)
    if not -x.ndim <= axis < x.ndim:
        raise ValueError(f"axis: expected one of the {x.ndim} axes of x, got {axis}")
    signals = _moved(x, axis, -1)
    state = None if zi is None else _state(zi, x, axis, (*signals.shape[:-1], _order(b, a)))
    run: Callable[..., tuple[Array, Array]] = _one if b.ndim == a.ndim == 1 else _each
    y, last = run(b, a, signals, state)
    y, last = (cast(_moved(each, -1, axis), dtype) for each in (y, last))
    return y if zi is None else (y, last)


def sosfilt(sos: Any, x: Array, axis: int = -1, zi: Array | None = None) -> Any:
    """Filter signals with second-order sections one after the other, as `scipy.signal.sosfilt`.

    Parameters
    ----------
    sos : array or sequence, shape (n, 6)
        Numerator and denominator of each section, as `scipy.signal.butter(..., output="sos")` gives
        them.
    x, axis
        As for `lfilter`.
    zi : array, optional
        The states at first: n of x's shape, with 2 numbers along ``axis``.

    Returns
    -------
    array, or (array, array)
        y, shaped as x; with ``zi`` also the states at the end.

    Raises
    ------
    TypeError, ValueError
        As `lfilter`, or if ``sos`` or ``zi`` has another shape.

    Examples
    --------
    >>> import numpy as np
    >>> sosfilt([[1.0, 0, 0, 1, -0.5, 0]], np.asarray([1.0, 0.0, 0.0]))
    array([1.  , 0.5 , 0.25])
    """
    require_real("x", x)
    sos = _coefficients("sos", sos, x)
    if sos.ndim != 2 or sos.shape[1] != 6 or not sos.shape[0]:
        raise ValueError(f"sos: expected the shape (sections, 6), got {tuple(sos.shape)}")
    if zi is None:
        for section in range(sos.shape[0]):
            x = lfilter(sos[section, :3], sos[section, 3:], x, axis)
        return x
    require_array("zi", zi)
    if zi.ndim != x.ndim + 1 or zi.shape[0] != sos.shape[0]:
        raise ValueError(
            f"zi: expected {sos.shape[0]} states, one per section, each of {x.ndim} axes, "
            f"got the shape {tuple(zi.shape)}"
        )
    states = []
    for section in range(sos.shape[0]):
        x, last = lfilter(sos[section, :3], sos[section, 3:], x, axis, zi[section, ...])
        states.append(last)
    return x, namespace(x).stack(states)


def _coefficients(name: str, values: Any, x: Array) -> Array:
    """Return coefficients as an array of x's library."""
    if isinstance(values, _NUMBERS):
        numbers = np.atleast_1d(values)  # SciPy's filters without feedback have a = 1
        require_array(name, numbers)
        if numbers.dtype.kind not in "fiu":
            raise TypeError(f"{name}: expected real numbers, got {numbers.dtype}")
        values = constant(numbers, x, x.dtype)
    require_alike(name, values, "x", x)
    if values.ndim == 0 or values.shape[-1] == 0:
        raise ValueError(f"{name}: expected at least one coefficient along the last axis")
    if name == "a" and 0 not in values.shape:
        least = namespace(x).min(abs(values[..., 0]))
        if readable(least) and to_float(least) == 0:
            raise ValueError("a: expected a[0] other than zero, since it divides all others, got 0")
    return values


def _moved(x: Array, start: int, end: int) -> Array:
    """Move an axis; torch cannot map its own function for that over a batch."""
    axes = list(range(x.ndim))
    axes.insert(end % x.ndim, axes.pop(start))
    return namespace(x).permute_dims(x, tuple(axes))


def _order(b: Array, a: Array) -> int:
    return max(int(b.shape[-1]), int(a.shape[-1])) - 1


def _state(zi: Array, x: Array, axis: int, expected: Shape) -> Array:
    """Return the state with time last, for every signal."""
    require_alike("zi", zi, "x", x)
    xp, order = namespace(x), expected[-1]
    state = _moved(zi, axis, -1) if zi.ndim == x.ndim else zi
    alike = zi.ndim == x.ndim and state.shape[-1] == order
    if not alike or any(n not in (1, m) for n, m in zip(state.shape, expected, strict=True)):
        raise ValueError(
            f"zi: expected {order} numbers along the axis of time, the larger number of "
            f"coefficients less one, and else the shape of x: {expected} with time last, got "
            f"{tuple(zi.shape)}"
        )
    return xp.broadcast_to(cast(state, x.dtype), expected)


def _each(b: Array, a: Array, x: Array, zi: Array | None) -> tuple[Array, Array]:
    """Run a filter of its own wherever b or a has one; time is the last axis."""
    xp, lead = namespace(x), tuple(x.shape[:-1])
    try:
        own = np.broadcast_shapes(b.shape[:-1], a.shape[:-1])
        fits = np.broadcast_shapes(own, lead) == lead
    except ValueError:
        fits = False
    if not fits:
        raise ValueError(
            f"b, a: expected axes before the last that broadcast to {lead}, the other axes of x, "
            f"got {tuple(b.shape[:-1])} and {tuple(a.shape[:-1])}"
        )
    if 0 in lead:
        return x, zeros((*lead, _order(b, a)), x) if zi is None else zi
    own = (*[1] * (len(lead) - len(own)), *own)
    first = [n for n, m in enumerate(own) if m > 1]
    rest = [n for n, m in enumerate(own) if m == 1]
    order, count = (*first, *rest, len(lead)), size(own)

    def rows(array: Array, shape: tuple[int, ...]) -> Array:
        """Return filters or signals, the axes of the filters as one."""
        array = xp.permute_dims(xp.broadcast_to(array, (*shape, array.shape[-1])), order)
        return xp.reshape(array, (count, size(shape) // count, array.shape[-1]))

    def restored(parts: list[Array]) -> Array:
        length = parts[0].shape[-1]
        whole = xp.reshape(xp.stack(parts), (*(lead[n] for n in (*first, *rest)), length))
        return xp.permute_dims(whole, tuple(map(order.index, range(len(order)))))

    bs, as_, xs = rows(b, own), rows(a, own), rows(x, lead)
    states = None if zi is None else rows(zi, lead)
    results = [
        _one(bs[n, 0, :], as_[n, 0, :], xs[n, ...], None if states is None else states[n, ...])
        for n in range(count)
    ]
    ys, lasts = zip(*results, strict=True)
    return restored(list(ys)), restored(list(lasts))


def _one(b: Array, a: Array, x: Array, zi: Array | None) -> tuple[Array, Array]:
    """Run one filter on signals of shape (..., time), and return y and the state at the end."""
    xp, length, order = namespace(x), int(x.shape[-1]), _order(b, a)
    b, a = b / a[0], a / a[0]
    rows = xp.reshape(x, (size(x.shape[:-1]), 1, length))
    state = None if zi is None else xp.reshape(zi, (rows.shape[0], 1, order))
    if 0 in rows.shape:
        return x, zeros((*x.shape[:-1], order), x) if zi is None else copy_of(zi)
    driving, recursion = (AutoregressiveConv(taps[None, None, :]) for taps in (b, a))
    driven = driving.forward(rows)
    if state is not None:
        driven = added(driven, state, last=False)
    y = driven
    if a.shape[0] > 1:
        y = recursion.prepare((length,), check=False).inverse(driven)
    last = zeros((*x.shape[:-1], order), x)
    if state is not None:
        kept = resized(state[..., min(length, order) :], order)
        last = kept + _left(driving, rows, order) - _left(recursion, y, order)
    return xp.reshape(y, x.shape), xp.reshape(last, (*x.shape[:-1], order))


def _left(conv: AutoregressiveConv, x: Array, order: int) -> Array:
    """Return sum over k > i of c[k] x[end - k + i] for each number i of a state."""
    ends = resized(x, int(conv.kernel.shape[2]) - 1, last=True)
    return resized(carried_over(conv._family, conv.kernel, ends), order)
