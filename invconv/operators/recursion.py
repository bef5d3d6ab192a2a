"""The primitive of recursive filters, and its derivatives.

A section maps x, and numbers z that its past adds to the first K outputs, to y and to the numbers
that it adds itself to the next K outputs (the state of SciPy's filters, transposed direct form II):

    y[n] = z[n] + sum over j of b[n, j] x[n - j] - sum over k > 0 of a[n, k] y[n - k],  0 <= n < N
    last[i] = z[N + i] + sum over k > i of b[k] x[N + i - k] - a[k] y[N + i - k]

Numbers beyond the ends are zero. With v = (y, last) this is A v = B x + z, where A and B have N + K
rows, and the last K columns of A are the identity's. So the derivatives are filters again:

    v_dot = A^-1 (B x_dot + z_dot + B_dot x - A_dot y)
    g = A^-T v_bar,  x_bar = B^T g,  z_bar = g[:K],  b_bar[j] = <g, x j samples later>,
    a_bar[k] = -<g, y k samples later>

A^-T is the filter that runs backwards, from the state that the last K numbers of v_bar make. Of a
filter that runs ``backwards`` samples are counted from the last one. Arrays are b (filters, 1 or N,
...) and a, without the first coefficient, which is 1; x (filters, signals, N), z (filters, signals,
K). K may be 0: then the past adds nothing, and no state is wanted. Coefficients of every sample
leave no state: then ``last`` is zero.
"""

from collections.abc import Callable, Sequence
from typing import Any

from invconv.arrays.namespaces import Array, device, identity, namespace, zeros
from invconv.arrays.registry import Primitive
from invconv.kernels.primitives import matmul, pad, part
from invconv.operators.autoregressive import AutoregressiveConv

Pair = tuple[Array, Array]
Section = Callable[[Array, Array, Array, Array], Pair]
Packed = Callable[[bool, Array, Array, Array, Array], Array]  # whether backwards, b, a, x and z

_BLOCK = 64  # samples whose coefficients make one matrix


def in_sections(run: Section, b: Array, a: Array, x: Array, z: Array) -> Pair:
    """Run the sections of a cascade, the first axis of b, a and z, one after the other."""
    lasts = []
    for s in range(b.shape[0]):
        x, last = run(b[s, ...], a[s, ...], x, z[s, ...])
        lasts.append(last)
    return x, namespace(x).stack(lasts)


def _in_sections(b: Array, a: Array, x: Array, z: Array) -> Pair:
    """Return y and the last states of a cascade: b, a and z have an axis of sections first."""
    return in_sections(_by_solves if b.shape[2] == 1 else _by_blocks, b, a, x, z)


filtered: Primitive[[Array, Array, Array, Array], Pair] = Primitive(_in_sections, "filtered", on=2)


def packed(backwards: bool, b: Array, a: Array, x: Array, z: Array) -> Array:
    """Return y of a section with the last state behind it, by what every library has."""
    xp = namespace(x)
    if backwards:
        b, a, x = xp.flip(b, axis=1), xp.flip(a, axis=1), xp.flip(x, axis=2)
    y, last = filtered.agnostic(b[None, ...], a[None, ...], x, z[None, ...])
    return xp.concat([xp.flip(y, axis=2) if backwards else y, last[0, ...]], axis=-1)


def _by_solves(b: Array, a: Array, x: Array, z: Array) -> Pair:
    """Run a section by autoregressive convolutions of one channel."""
    xp, length, results = namespace(x), x.shape[-1], []
    for f in range(x.shape[0]):
        y = AutoregressiveConv(b[f, 0, ...][None, None, :]).forward(x[f, ...][:, None, :])
        y = y + resized(z[f, ...], length)[:, None, :]
        if a.shape[-1]:
            taps = xp.concat([xp.ones_like(a[f, 0, :1]), a[f, 0, ...]])
            recursion = AutoregressiveConv(taps[None, None, :])
            y = recursion.prepare((length,), check=False).inverse(y)
        results.append(y[:, 0, :])
    y, kept = xp.stack(results), resized(z, z.shape[-1], length)
    return y, kept + _carried(b[:, 0, 1:], x, z) - _carried(a[:, 0, :], y, z)


def _by_blocks(b: Array, a: Array, x: Array, z: Array) -> Pair:
    """Run a section with coefficients of its own at every sample, by solves of some samples."""
    xp, length = namespace(x), x.shape[-1]
    driven = resized(z, length)
    for j in range(b.shape[2]):
        driven = driven + b[:, None, :, j] * _later(x, j)
    poles, parts = a.shape[2], [zeros((*x.shape[:2], a.shape[2]), x)]
    for start in range(0, length if poles else 0, _BLOCK):
        here = part(driven, 2, start, min(start + _BLOCK, length))
        count = here.shape[2]
        past = pad(part(xp.concat(parts[-2:], axis=2), 2, -poles, None), 2, 0, count)
        matrix = identity(count, x)
        for k in range(1, poles + 1):
            taps = a[:, start : start + count, k - 1]
            here = here - taps[:, None, :] * part(past, 2, poles - k, poles - k + count)
            matrix = matrix + taps[:, :, None] * xp.eye(
                count, k=-k, dtype=x.dtype, device=device(x)
            )
        solved = xp.linalg.solve(matrix, xp.matrix_transpose(here))
        parts.append(xp.matrix_transpose(solved))
    return xp.concat(parts[1:], axis=2) if poles else driven, zeros(z.shape, x)


def resized(x: Array, count: int, start: int = 0) -> Array:
    """Return ``count`` numbers along the last axis from ``start`` on, zeros behind the end."""
    length = x.shape[-1]
    start, stop = min(start, length), min(start + count, length)
    return pad(x[..., start:stop], x.ndim - 1, 0, count - (stop - start))


def _later(x: Array, count: int) -> Array:
    """Return x[n - count], zero before the start."""
    return resized(pad(x, x.ndim - 1, count, 0), x.shape[-1])


def _carried(c: Array, x: Array, z: Array) -> Array:
    """Return sum over k > i of c[k - 1] x[N + i - k] for the numbers i of a state like z."""
    return _of_state(c, _newest(x, z.shape[-1], False))


def _newest(x: Array, count: int, backwards: bool) -> Array:
    """Return the last numbers that a filter reads, the newest first, zeros before the start."""
    xp, length = namespace(x), x.shape[-1]
    if not backwards:
        x = xp.flip(x[..., length - min(count, length) :], axis=-1)
    return resized(x, count)


def _of_state(c: Array, before: Array) -> Array:
    """Return sum over j of c[i + j] before[j] for c (filters, k), before (filters, signals, K)."""
    xp, order = namespace(c), before.shape[-1]
    if not (order and c.shape[-1]):
        return zeros(before.shape, before)
    rows = [resized(c, order, i) for i in range(order)]
    return matmul(before, xp.stack(rows, axis=-1))


def _ahead(c: Array, first: int, backwards: bool) -> Array:
    """Return c[n + first + j, j] of coefficients (filters, 1 or N, k)."""
    xp, (_, length, count) = namespace(c), c.shape
    if length == 1 or not count:
        return c
    lags = range(first, first + count)
    if backwards:
        moved = [_later(c[..., j], lag) for j, lag in enumerate(lags)]
    else:
        moved = [resized(c[..., j], length, lag) for j, lag in enumerate(lags)]
    return xp.stack(moved, axis=2)


def _products(
    g: Array, tail: Array, x: Array, lags: range, backwards: bool, varying: bool
) -> Array:
    """Return <(g, tail), x j samples later> for each lag j, of every sample if they vary."""
    xp, length, found = namespace(x), x.shape[-1], []
    ends = _newest(x, tail.shape[-1], backwards)
    for j in lags:
        if varying:
            moved = resized(x, length, j) if backwards else _later(x, j)
            found.append(xp.sum(g * moved, axis=1))
            continue
        count = max(0, length - j)
        early, late = slice(count), slice(length - count, length)
        of_x, of_g = (late, early) if backwards else (early, late)
        rows = matmul(x[:, :, None, of_x], g[:, :, of_g, None])[..., 0]
        last = xp.flip(ends[..., : min(j, tail.shape[-1])], axis=-1)
        beyond = xp.sum(last * tail[..., : last.shape[-1]], axis=-1, keepdims=True)
        found.append(xp.sum(rows + beyond, axis=1))
    shape = x.shape[0], length if varying else 1, 0
    return xp.stack(found, axis=-1) if found else zeros(shape, x)


def tangent(
    run: Packed,
    backwards: bool,
    b: Array,
    a: Array,
    x: Array,
    v: Array,
    dots: Sequence[Array | None],
) -> Array:
    """Return the tangent of v = run(backwards, b, a, x, z) by those of b, a, x and z."""
    length = x.shape[-1]
    b_dot, a_dot, x_dot, z_dot = dots
    none = zeros((*x.shape[:2], v.shape[-1] - length), x)
    parts = []
    if x_dot is not None or z_dot is not None:
        moved = zeros(x.shape, x) if x_dot is None else x_dot
        parts.append(run(backwards, b, a, moved, none if z_dot is None else z_dot))
    if b_dot is not None:
        parts.append(run(backwards, b_dot, a, x, none))
    if a_dot is not None:
        parts.append(run(backwards, pad(-a_dot, 2, 1, 0), a, v[..., :length], none))
    return sum(parts[1:], parts[0])


def cotangents(
    run: Packed,
    backwards: bool,
    b: Array,
    a: Array,
    x: Any,
    v: Any,
    bar: Array,
    wanted: Sequence[bool],
    order: int,
) -> tuple[Array | None, ...]:
    """Return the gradients by b, a, x and z, None where not wanted, of v = run(backwards, ...).

    x and v are used for the gradients by b and by a alone.
    """
    length, varying = bar.shape[-1] - order, a.shape[1] > 1
    tail = zeros((*bar.shape[:2], order), bar) if varying else bar[..., length:]
    one = zeros((*a.shape[:2], 1), a) + 1
    state, ahead = -_of_state(a[:, 0, :], tail), _ahead(a, 1, backwards)
    g = run(not backwards, one, ahead, bar[..., :length], state)[..., :length]
    b_bar = a_bar = x_bar = z_bar = None
    if wanted[0]:
        b_bar = _products(g, tail, x, range(b.shape[2]), backwards, varying)
    if wanted[1]:
        y, lags = v[..., :length], range(1, a.shape[2] + 1)
        a_bar = -_products(g, tail, y, lags, backwards, varying)
    if wanted[2]:
        state, ahead = _of_state(b[:, 0, 1:], tail), _ahead(b, 0, backwards)
        x_bar = run(not backwards, ahead, a[..., :0], g, state)[..., :length]
    if wanted[3]:
        z_bar = _first(g, tail, order, backwards)
    return b_bar, a_bar, x_bar, z_bar


def _first(g: Array, tail: Array, order: int, backwards: bool) -> Array:
    """Return the first numbers of (g, tail) in the order of a filter."""
    xp, count = namespace(g), min(order, g.shape[-1])
    head = xp.flip(g[..., g.shape[-1] - count :], axis=-1) if backwards else g[..., :count]
    return xp.concat([head, tail[..., : order - count]], axis=-1)
