"""Recursive filters with SciPy's signatures, on every library and differentiable in all arguments.

A filter is A y = B x + z with two banded triangular matrices (`invconv.operators.recursion`).
"""

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import numpy as np

from invconv.arrays.namespaces import (
    Array,
    Shape,
    cast,
    constant,
    copy_of,
    is_half,
    namespace,
    native_dtype,
    readable,
    size,
    to_numpy,
    widened,
    zeros,
)
from invconv.arrays.validation import choice, integer, require_alike, require_real, table
from invconv.kernels.primitives import pad, part
from invconv.operators.propagation import Propagation, recursed
from invconv.operators.recursion import filtered

# types of arguments that are tables of numbers, not arrays of a library
_NUMBERS = (np.ndarray, np.number, Sequence, float, int)
_PADS = ("odd", "even", "constant")


def lfilter(b: Any, a: Any, x: Array, axis: int = -1, zi: Any = None) -> Any:
    r"""Filter signals with a rational transfer function, as `scipy.signal.lfilter`.

    $$a[0] y[n] = b[0] x[n] + \dots + b[K] x[n - K] - a[1] y[n - 1] - \dots - a[K] y[n - K]$$

    The result is differentiable in b, a, x and zi. JAX's ``jit`` compiles it, and `torch.compile`,
    with ``fullgraph=True`` if b and a are tensors.

    Parameters
    ----------
    b, a : array, sequence of numbers, shape (..., k), or number
        Numerator and denominator; a[0] is not zero. Axes before the last broadcast against the
        other axes of x, with a filter of its own for each index.
    x : array
        Signals, real and floating. Its dtype is that of the result; b, a and zi of plain numbers or
        of NumPy are cast to it.
    axis : int
        The axis of time.
    zi : array, optional
        The initial state: shaped as x, but with K = max(len(a), len(b)) - 1 numbers along ``axis``;
        other axes may have the size 1.

    Returns
    -------
    array, or (array, array)
        y, shaped as x; with ``zi`` also the final state, from which the next piece of the signals
        continues.

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
    axis = _axis(axis, x)
    b, a = (_coefficients(name, values, x) for name, values in (("b", b), ("a", a)))
    signals = moved(x, axis, -1)
    if zi is not None:
        zi = _state(zi, x, axis, (*signals.shape[:-1], _order(b, a)))[None, ...]
    y, last = _run(b[None, ..., None, :], a[None, ..., None, :], signals, zi)
    y = moved(y, -1, axis)
    return y if zi is None else (y, moved(last[0, ...], -1, axis))


def sosfilt(sos: Any, x: Array, axis: int = -1, zi: Any = None) -> Any:
    """Filter signals with second-order sections one after the other, as `scipy.signal.sosfilt`.

    Parameters
    ----------
    sos : array or sequence, shape (..., n, 6)
        Numerator and denominator of each section, as `scipy.signal.butter(..., output="sos")` gives
        them. Axes before the last two broadcast as those of `lfilter`'s coefficients.
    x, axis
        As for `lfilter`.
    zi : array, optional
        The n initial states: each shaped as x, but 2 along ``axis``; other sizes may be 1.

    Returns
    -------
    array, or (array, array)
        y, shaped as x; with ``zi`` also the final states.

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
    axis = _axis(axis, x)
    b, a = _sections(sos, x)
    signals = moved(x, axis, -1)
    if zi is not None:
        zi = _state(zi, x, axis, (b.shape[0], *signals.shape[:-1], 2))
    y, last = _run(b[..., None, :], a[..., None, :], signals, zi)
    y = moved(y, -1, axis)
    return y if zi is None else (y, moved(last, -1, axis + 1))


def varying_lfilter(b: Any, a: Any, x: Array, axis: int = -1, zi: Any = None) -> Any:
    r"""Filter signals with coefficients of their own at every sample.

    $$a[n, 0] y[n] = b[n, 0] x[n] + b[n, 1] x[n - 1] + \dots - a[n, 1] y[n - 1] - \dots$$

    `varying_lfilter(a, b, y)` is the inverse. The log-determinant is the sum over n of
    log|b[n, 0] / a[n, 0]|, once for each signal of x.

    Parameters
    ----------
    b, a : array, shape (..., time, k)
        Numerator and denominator at every sample; a[..., 0] is not zero. With one sample they are
        the same at all times. Axes before these two broadcast as those of `lfilter`'s coefficients.
    x, axis
        As for `lfilter`.
    zi : array, optional
        Along ``axis``, the K = max(k) - 1 numbers of x before the first one, then the K numbers of
        y before the first one, each with the newest last.

    Returns
    -------
    array, or (array, array)
        y, shaped as x; with ``zi`` also the last numbers, in the same order, from which the next
        piece of the signals continues.

    Examples
    --------
    >>> import numpy as np
    >>> a = np.asarray([[1.0, 0.0], [1.0, -0.5], [1.0, -2.0]])
    >>> varying_lfilter(np.ones((1, 1)), a, np.asarray([1.0, 0.0, 0.0]))
    array([1. , 0.5, 1. ])
    """
    axis = _axis(axis, x)
    b, a = (_coefficients(name, values, x) for name, values in (("b", b), ("a", a)))
    xp, signals, order = namespace(x), moved(x, axis, -1), _order(b, a)
    *lead, length = signals.shape
    for name, values in (("b", b), ("a", a)):
        if values.ndim < 2 or values.shape[-2] not in (1, length):
            one = "; one filter for all samples has an axis more, as [[1.0]]" * (values.ndim == 1)
            raise ValueError(
                f"{name}: expected {length} samples along the axis before the last, as many as x "
                f"has, or 1, got the shape {tuple(values.shape)}{one}"
            )
    _filters(b[None, ...], a[None, ...], tuple(lead))
    # NumPy joins numbers of a foreign byte order to native ones
    inner = xp.float32 if is_half(x.dtype, x) else native_dtype(x.dtype)
    b, a, signals = (cast(v, inner) for v in (b, a, signals))
    b, a = _divided(b, a)
    gains, taps = (moved(v, -1, -2) for v in (b, -a))
    gains, taps = (xp.broadcast_to(v, (*v.shape[:-1], length)) for v in (gains, taps))
    inputs = tuple((-j,) for j in range(b.shape[-1]))
    if zi is None and a.shape[-1]:
        y = _recursed(taps, signals, inputs, gains)
        return cast(moved(y, -1, axis), x.dtype)
    past = zeros((*lead, 2 * order), signals)
    if zi is not None:
        past = cast(_state(zi, x, axis, (*lead, 2 * order)), inner)
    signals, y = xp.concat([past[..., :order], signals], axis=-1), past[..., order:]
    parts = (part(signals, len(lead), order - j, order - j + length) for j in range(b.shape[-1]))
    terms = (gains[..., j, :] * v for j, v in enumerate(parts))
    y = xp.concat([y, sum(terms, zeros((), signals))], axis=-1)
    if a.shape[-1]:  # the given numbers of y have no taps
        y = _recursed(pad(taps, taps.ndim - 1, order, 0), y)
    found = cast(moved(part(y, len(lead), order), -1, axis), x.dtype)
    if zi is None:
        return found
    ends = xp.concat([part(v, len(lead), length) for v in (signals, y)], axis=-1)
    return found, cast(moved(ends, -1, axis), x.dtype)


def _recursed(taps: Array, x: Array, *inputs: Any) -> Array:
    """Run the recursion of y[n - 1], y[n - 2], ..., with taps (..., K, time), as `recursed`."""
    xp, shape = namespace(x), tuple(x.shape)
    x = x if x.ndim > 1 else x[None, :]
    taps, *gains = (
        xp.reshape(v, (*[1] * (x.ndim + 1 - v.ndim), *v.shape)) for v in (taps, *inputs[1:])
    )
    family = Propagation.of(tuple((-k,) for k in range(1, taps.shape[-2] + 1)))
    return xp.reshape(recursed(family, taps, x, *inputs[:1], *gains), shape)


def filtfilt(
    b: Any, a: Any, x: Array, axis: int = -1, padtype: str | None = "odd", padlen: int | None = None
) -> Array:
    """Filter signals forwards and backwards, so that no phase is left.

    It is `scipy.signal.filtfilt` of ``method="pad"``, its default.

    Parameters
    ----------
    b, a, x, axis
        As for `lfilter`.
    padtype : "odd", "even", "constant" or None
        How signals are continued at both ends before they are filtered; None for not at all.
    padlen : int, optional
        By how many numbers they are continued: 3 max(len(a), len(b)) unless given.

    Returns
    -------
    array
        Shaped as x.

    Raises
    ------
    TypeError, ValueError
        As `lfilter`, or if x is not longer than ``padlen``.

    Examples
    --------
    >>> import numpy as np
    >>> filtfilt([0.5], [1.0, -0.5], np.asarray([1.0, 0.0, 0.0, 1.0]), padlen=2).round(3)
    array([1.122, 0.743, 0.736, 1.098])
    """
    axis = _axis(axis, x)
    b, a = (widened(_coefficients(name, values, x)) for name, values in (("b", b), ("a", a)))
    state, taps = lfilter_zi(b, a), _order(b, a) + 1

    def run(signals: Array, first: Array) -> Array:
        zi = state[(*(None,) * (first.ndim - state.ndim), ...)] * first  # axes of the signals first
        return lfilter(b, a, signals, zi=zi)[0]

    return _there_and_back(run, x, axis, padtype, padlen, taps)


def sosfiltfilt(
    sos: Any, x: Array, axis: int = -1, padtype: str | None = "odd", padlen: int | None = None
) -> Array:
    """Filter signals forwards and backwards by sections, as `scipy.signal.sosfiltfilt`.

    Parameters
    ----------
    sos, x, axis
        As for `sosfilt`.
    padtype, padlen
        As for `filtfilt`. The default of ``padlen`` is 3 (2 n + 1 - m), m the smaller of the counts
        of sections whose b[2] is zero and whose a[2] is zero. Traced values cannot be counted.

    Returns
    -------
    array
        Shaped as x.

    Raises
    ------
    TypeError, ValueError
        As `sosfilt` and `filtfilt`.

    Examples
    --------
    >>> import numpy as np
    >>> sos = [[0.5, 0, 0, 1, -0.5, 0]]
    >>> sosfiltfilt(sos, np.asarray([1.0, 0.0, 0.0, 1.0]), padlen=2).round(3)
    array([1.122, 0.743, 0.736, 1.098])
    """
    axis = _axis(axis, x)
    given, sos = sos, widened(_as_x("sos", sos, x))
    states = sosfilt_zi(sos)
    taps = 2 * states.shape[0] + 1
    if padlen is None and padtype is not None:
        given = np.asarray(given) if isinstance(given, _NUMBERS) else given
        if not readable(given):
            raise ValueError("padlen: expected an integer, since the zeros of sos are not known")
        counted = np.count_nonzero(to_numpy(given)[..., 2::3] == 0, axis=-2)
        taps -= int(counted.min())

    def run(signals: Array, first: Array) -> Array:
        between = (1,) * (signals.ndim + 1 - states.ndim)  # axes of the signals before the last
        each = namespace(states).reshape(states, (states.shape[0], *between, *states.shape[1:]))
        return sosfilt(sos, signals, zi=each * first[None, ...])[0]

    return _there_and_back(run, x, axis, padtype, padlen, taps)


def lfilter_zi(b: Any, a: Any) -> Array:
    """Return the steady state of `lfilter` for a constant input 1, as `scipy.signal.lfilter_zi`.

    Parameters
    ----------
    b, a : array, sequence of numbers, shape (..., k), or number
        Numerator and denominator; a[0] is not zero.

    Returns
    -------
    array, shape (..., K)
        K = max(len(a), len(b)) - 1; the dtype is that of the first floating argument.

    Raises
    ------
    TypeError, ValueError
        As `lfilter`, or if the sum of a is zero: then there is no such state.

    Examples
    --------
    >>> lfilter_zi([0.5], [1.0, -0.5])
    array([0.5])
    """
    like = _floats(b=b, a=a)
    b, a = (widened(_coefficients(name, values, like)) for name, values in (("b", b), ("a", a)))
    shapes = tuple(b.shape[:-1]), tuple(a.shape[:-1])
    try:
        np.broadcast_shapes(*shapes)
    except ValueError:
        raise ValueError(
            f"b, a: expected axes before the last that broadcast, got {shapes[0]} and {shapes[1]}"
        ) from None
    xp, order = namespace(b), _order(b, a)
    b, a = _divided(b, a)
    b = pad(b, b.ndim - 1, 0, order + 1 - b.shape[-1])
    a = pad(a, a.ndim - 1, 0, order - a.shape[-1])
    total = 1 + xp.sum(a, axis=-1, keepdims=True)
    if readable(total) and not xp.all(total):
        raise ValueError("a: expected a sum other than zero: a pole at 1 has no steady state")
    steps = b[..., 1:] - a * b[..., :1]
    steady = xp.sum(steps, axis=-1, keepdims=True) / total
    of_a, of_steps = (xp.cumulative_sum(v, axis=-1) - v for v in (a, steps))
    return cast((1 + of_a) * steady - of_steps, like.dtype)


def sosfilt_zi(sos: Any) -> Array:
    """Return the steady states of `sosfilt` for a constant input 1, as `scipy.signal.sosfilt_zi`.

    Parameters
    ----------
    sos : array or sequence, shape (..., n, 6)
        As for `sosfilt`.

    Returns
    -------
    array, shape (n, ..., 2)

    Raises
    ------
    TypeError, ValueError
        As `sosfilt` and `lfilter_zi`.

    Examples
    --------
    >>> sosfilt_zi([[0.5, 0, 0, 1, -0.5, 0]])
    array([[0.5, 0. ]])
    """
    like = _floats(sos=sos)
    b, a = map(widened, _sections(sos, like))
    xp, states = namespace(b), lfilter_zi(b, a)
    gains = xp.sum(b, axis=-1, keepdims=True) / xp.sum(a, axis=-1, keepdims=True)
    before = [xp.ones_like(gains[0, ...])]
    for section in range(b.shape[0] - 1):
        before.append(before[-1] * gains[section, ...])
    return cast(states * xp.stack(before), like.dtype)


def _there_and_back(
    run: Any, x: Array, axis: int, padtype: str | None, padlen: int | None, taps: int
) -> Array:
    """Run a filter from the steady state of the first number, forwards and then backwards."""
    if padtype is not None:
        choice("padtype", padtype, _PADS)
    edge = 0 if padtype is None else 3 * taps if padlen is None else integer("padlen", padlen)
    xp, signals = namespace(x), moved(widened(x), axis, -1)
    if edge < 0:
        raise ValueError(f"padlen: expected 0 or more, got {edge}")
    if signals.shape[-1] <= edge:
        raise ValueError(
            f"x: expected more than {edge} samples along axis {axis}, by which both ends go on, "
            f"got {signals.shape[-1]}; a smaller padlen needs fewer"
        )
    if edge:
        last = signals.ndim - 1
        ends = part(signals, last, 1, edge + 1), part(signals, last, -edge - 1, -1)
        before, after = (xp.flip(end, axis=-1) for end in ends)
        first, final = signals[..., :1], signals[..., -1:]
        if padtype == "odd":
            before, after = 2 * first - before, 2 * final - after
        elif padtype == "constant":
            before, after = (xp.broadcast_to(v, before.shape) for v in (first, final))
        signals = xp.concat([before, signals, after], axis=-1)
    for _ in range(2):
        signals = xp.flip(run(signals, signals[..., :1]), axis=-1)
    return cast(moved(signals[..., edge : signals.shape[-1] - edge], -1, axis), x.dtype)


def _axis(axis: int, x: Array) -> int:
    require_real("x", x)
    axis = integer("axis", axis)
    if not -x.ndim <= axis < x.ndim:
        raise ValueError(f"axis: expected one of the {x.ndim} axes of x, got {axis}")
    return int(axis % x.ndim)


def _coefficients(name: str, values: Any, x: Array) -> Array:
    values = _as_x(name, values, x)
    if values.ndim == 0:
        values = values[None]  # SciPy's filters without feedback have a = 1
    if values.shape[-1] == 0:
        raise ValueError(f"{name}: expected at least one coefficient along the last axis")
    return values


def _as_x(name: str, values: Any, x: Array) -> Array:
    """Return an argument as an array of x's library; numbers and NumPy's arrays are cast."""
    if not isinstance(values, _NUMBERS) or isinstance(values, np.ma.MaskedArray):
        require_alike(name, values, "x", x)
        return values
    numbers = table(name, values)
    if numbers.dtype.kind not in "fiu":
        hint = "; scipy.signal has complex filters" if numbers.dtype.kind == "c" else ""
        raise TypeError(f"{name}: expected real numbers of NumPy, got {numbers.dtype}{hint}")
    return constant(numbers, x, x.dtype)


def _floats(**values: Any) -> Array:
    """Return the first floating array; those of PyTorch or JAX come before NumPy's."""
    for name, array in values.items():
        if not isinstance(array, _NUMBERS):
            require_real(name, array)
            return array
    arrays = [v for v in map(table, values, values.values()) if v.dtype.kind == "f"]
    return arrays[0] if arrays else np.zeros(())


def _sections(sos: Any, x: Array) -> tuple[Array, Array]:
    """Return b and a of all sections; the first axis is that of the sections."""
    sos = _as_x("sos", sos, x)
    if sos.ndim < 2 or sos.shape[-1] != 6 or not sos.shape[-2]:
        raise ValueError(f"sos: expected the shape (..., sections, 6), got {tuple(sos.shape)}")
    sos = moved(sos, -2, 0)
    return sos[..., :3], sos[..., 3:]


def moved(x: Array, start: int, end: int) -> Array:
    """Move an axis; torch cannot map its own function for that over a batch."""
    start, end = start % x.ndim, end % x.ndim
    if start == end:
        return x
    axes = list(range(x.ndim))
    axes.insert(end, axes.pop(start))
    return namespace(x).permute_dims(x, tuple(axes))


def _order(b: Array, a: Array) -> int:
    """Return how many numbers a state has."""
    return max(int(b.shape[-1]), int(a.shape[-1])) - 1


def _state(zi: Any, x: Array, axis: int, expected: Shape) -> Array:
    """Return the state of every signal with time last; ``expected`` is its whole shape."""
    zi = _as_x("zi", zi, x)
    own = len(expected) - x.ndim  # of sections
    state = moved(zi, axis + own, -1) if zi.ndim == len(expected) else zi
    shape = tuple(state.shape)
    if shape == expected:
        return state
    fits = len(shape) == len(expected) and shape[:own] == expected[:own]
    if not (fits and shape[-1] == expected[-1]) or any(
        n not in (1, m) for n, m in zip(shape, expected, strict=True)
    ):
        states = f"{expected[0]} states, one per section, each with " if own else ""
        raise ValueError(
            f"zi: expected {states}{expected[-1]} numbers along the axis of time and else the "
            f"shape of x, or 1: {expected} with time last, got {tuple(zi.shape)}"
        )
    return namespace(x).broadcast_to(state, expected)


def _run(b: Array, a: Array, x: Array, z: Array | None) -> tuple[Array, Array]:
    """Run sections b, a (S, ..., 1 or time, k) on x (..., time) from states z (S, ..., K).

    Each index of b or a has its own filter. Return y and the final states, which are None if z is.
    """
    xp, lead, kind = namespace(x), tuple(x.shape[:-1]), x.dtype
    own = _filters(b, a, lead)
    inner = xp.float32 if is_half(kind, x) else native_dtype(kind)
    if inner != kind:
        y, last = _run(*(None if v is None else cast(v, inner) for v in (b, a, x, z)))
        return cast(y, kind), None if last is None else cast(last, kind)
    b, a = _divided(b, a)
    if 0 in x.shape:  # empty sums, so that derivatives by b and a are zeros
        y = x + (xp.sum(b[..., :0]) + xp.sum(a[..., :0]))
        return y, None if z is None else copy_of(z)
    count = size(own)
    if count > 1:  # the axes of the filters come before those that share one
        several = [n for n in range(len(own)) if own[n] != 1]
        axes = several + [n for n in range(len(own)) if own[n] == 1]
        b, a = (_broadcast(v, own, axes, 2) for v in (b, a))
        x = _broadcast(x[None, ...], lead, axes, 1)[0, ...]
        z = None if z is None else _broadcast(z, lead, axes, 1)
    b, a = (
        v[:, None, ...] if v.ndim == 3 else xp.reshape(v, (v.shape[0], count, *v.shape[-2:]))
        for v in (b, a)
    )
    y, last = filtered(b, a, x, z)
    if count > 1:
        back = [*(axes.index(n) for n in range(len(axes))), len(axes)]
        y = xp.permute_dims(y, tuple(back))
        last = None if last is None else xp.permute_dims(last, (0, *(n + 1 for n in back)))
    return y, last


def _divided(b: Array, a: Array) -> tuple[Array, Array]:
    """Return b and a divided by a[0]; a comes without its first number, now 1."""
    divisor = a[..., :1]
    alone = size(divisor.shape) == 1 and hasattr(divisor, "item")  # quicker than a library's all
    if readable(divisor) and not (divisor.item() if alone else to_numpy(divisor).all()):
        raise ValueError("a: expected a[0] other than zero, since it divides all others, got 0")
    return b / divisor, a[..., 1:] / divisor


def _filters(b: Array, a: Array, lead: Shape) -> Shape:
    """Return how many filters there are along each axis of the signals."""
    if b.ndim == a.ndim == 3:
        return (1,) * len(lead)
    shapes = tuple(b.shape[1:-2]), tuple(a.shape[1:-2])
    with suppress(ValueError):
        own = np.broadcast_shapes(*shapes)
        if np.broadcast_shapes(own, lead) == lead:
            return (*[1] * (len(lead) - len(own)), *own)
    raise ValueError(
        f"b, a: expected axes before the last that broadcast to {lead}, the other axes of x, got "
        f"{shapes[0]} and {shapes[1]}"
    )


def _broadcast(v: Array, shape: Sequence[int], axes: Sequence[int], behind: int) -> Array:
    """Return v (S, ..., numbers) with its axes in between broadcast to a shape, then permuted."""
    xp, ends = namespace(v), tuple(v.shape[v.ndim - behind :])
    v = xp.reshape(v, (v.shape[0], *[1] * (len(shape) + 1 + behind - v.ndim), *v.shape[1:]))
    v = xp.broadcast_to(v, (v.shape[0], *shape, *ends))
    behinds = range(len(shape) + 1, v.ndim)
    return xp.permute_dims(v, (0, *(n + 1 for n in axes), *behinds))
