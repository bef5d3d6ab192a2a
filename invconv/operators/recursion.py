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

A^-T is the filter that runs from the last sample to the first, from the state that the last K
numbers of v_bar make. Arrays are b (filters, 1, ...) and a, without the first coefficient, which is
1; x (filters, signals, N), z (filters, signals, K). K may be 0: then the past adds nothing.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from invconv.arrays.namespaces import Array, namespace, size, zeros
from invconv.arrays.registry import Primitive
from invconv.kernels.primitives import matmul, pad, window
from invconv.operators.autoregressive import AutoregressiveConv

Section = Callable[[Array, Array, Array, Array], Array]  # of b, a, x and z to v


def in_sections(
    run: Section, b: Array, a: Array, x: Array, z: Array | None
) -> tuple[Array, Array | None]:
    """Run the sections of a cascade, the first axis of b, a and z, one after the other.

    The signals x (..., N) have as many rows after each other for every filter. Without z (sections,
    ..., K) there are no states, at the end neither.
    """
    xp, shape, length, lasts = namespace(x), x.shape, x.shape[-1], []
    x = xp.reshape(x, (b.shape[1], size(shape[:-1]) // b.shape[1], length))
    states = zeros((b.shape[0], *x.shape[:2], 0), x)
    if z is not None:
        states = xp.reshape(z, (b.shape[0], *x.shape[:2], z.shape[-1]))
    for s in range(b.shape[0]):
        v = run(b[s, ...], a[s, ...], x, states[s, ...])
        x = v[..., :length]
        lasts.append(v[..., length:])
    return xp.reshape(x, shape), None if z is None else xp.reshape(xp.stack(lasts), z.shape)


def by_solves(b: Array, a: Array, x: Array, z: Array) -> Array:
    """Run a section by what every library has: solves of causal convolutions, or of matrices."""
    xp, length, results = namespace(x), x.shape[-1], []
    for f in range(x.shape[0]):
        y = AutoregressiveConv(b[f, 0, ...][None, None, :]).forward(x[f, ...][:, None, :])
        y = y + window(z[f, ...], 1, 0, length)[:, None, :]
        if a.shape[-1]:
            taps = xp.concat([xp.ones_like(a[f, 0, :1]), a[f, 0, ...]])
            recursion = AutoregressiveConv(taps[None, None, :])
            y = recursion._factor((length,)).solve(y)
        results.append(y[:, 0, :])
    y, kept = xp.stack(results), window(z, 2, length, length + z.shape[-1])
    last = kept + _carried(b[:, 0, 1:], x, z) - _carried(a[:, 0, :], y, z)
    return xp.concat([y, last], axis=-1)


filtered: Primitive[[Array, Array, Array, Array | None], tuple[Array, Array | None]]
filtered = Primitive(partial(in_sections, by_solves), "filtered", on=2)


def _carried(c: Array, x: Array, z: Array) -> Array:
    """Return sum over k > i of c[k - 1] x[N + i - k] for the numbers i of a state like z."""
    return _of_state(c, _turned(window(x, 2, x.shape[-1] - z.shape[-1], x.shape[-1])))


def _turned(x: Array) -> Array:
    """Return signals from the last sample to the first."""
    return namespace(x).flip(x, axis=-1)


def _of_state(c: Array, before: Array) -> Array:
    """Return sum over j of c[i + j] before[j] for c (filters, k), before (filters, signals, K)."""
    xp, order = namespace(c), before.shape[-1]
    if not (order and c.shape[-1]):
        return zeros(before.shape, before)
    rows = [window(c, 1, i, i + order) for i in range(order)]
    return matmul(before, xp.stack(rows, axis=-1))


def _products(g: Array, x: Array, lags: range) -> Array:
    """Return <g, x j samples later> for each lag j."""
    xp, length, found = namespace(x), x.shape[-1], []
    for j in lags:
        count = max(0, min(length, g.shape[-1] - j))
        rows = matmul(x[:, :, None, :count], g[:, :, j : j + count, None])[..., 0]
        found.append(xp.sum(rows, axis=1))
    return xp.stack(found, axis=-1) if found else zeros((x.shape[0], 1, 0), x)


def tangent(
    run: Section, b: Array, a: Array, x: Array, v: Array, dots: Sequence[Array | None]
) -> Array:
    """Return the tangent of v = run(b, a, x, z) by those of b, a, x and z."""
    length = x.shape[-1]
    b_dot, a_dot, x_dot, z_dot = dots
    none = zeros((*x.shape[:2], v.shape[-1] - length), x)
    parts = []
    if x_dot is not None:
        assert z_dot is not None  # they come together
        parts.append(run(b, a, x_dot, z_dot))
    if b_dot is not None:
        parts.append(run(b_dot, a, x, none))
    if a_dot is not None:
        parts.append(run(pad(-a_dot, 2, 1, 0), a, v[..., :length], none))
    return sum(parts[1:], parts[0])


def cotangents(
    run: Section, b: Array, a: Array, x: Any, v: Any, bar: Array, wanted: Sequence[bool], order: int
) -> tuple[Array | None, ...]:
    """Return the gradients by b, a, x and z, None where not wanted, of v = run(b, a, x, z).

    x and v are used for the gradients by b and by a alone.
    """
    xp, length = namespace(bar), bar.shape[-1] - order
    tail = bar[..., length:]
    one = zeros((*a.shape[:2], 1), a) + 1
    state = -_of_state(a[:, 0, :], tail)
    turned = run(one, a, _turned(bar[..., :length]), state)[..., :length]
    g = xp.concat([_turned(turned), tail], axis=-1)
    b_bar = a_bar = x_bar = None
    if wanted[0]:
        b_bar = _products(g, x, range(b.shape[2]))
    if wanted[1]:
        a_bar = -_products(g, v[..., :length], range(1, a.shape[2] + 1))
    if wanted[2]:
        state = _of_state(b[:, 0, 1:], tail)
        x_bar = _turned(run(b, a[..., :0], turned, state)[..., :length])
    return b_bar, a_bar, x_bar, g[..., :order] if wanted[3] else None
