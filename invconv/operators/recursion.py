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

A^-T is the filter that runs backwards, from the last sample to the first, from the state that the
last K numbers of v_bar make. Coefficients, states and last numbers of a section that runs backwards
are in the order in which it meets them; x and y lie as ever. Arrays are b (filters, 1, ...) and a,
without the first coefficient, which is 1; x (filters, signals, N), z (filters, signals, K). K may
be 0: then the past adds nothing.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from invconv.arrays.namespaces import Array, namespace, size, zeros
from invconv.arrays.registry import Primitive
from invconv.kernels.primitives import matmul, pad, part, window
from invconv.operators.autoregressive import AutoregressiveConv

Section = Callable[..., Array]  # of b, a, x, z, and whether it runs backwards, to v


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


def by_solves(b: Array, a: Array, x: Array, z: Array, back: bool = False) -> Array:
    """Run a section by what every library has: solves of causal convolutions, or of matrices."""
    if back:
        v, length = by_solves(b, a, _turned(x), z), x.shape[-1]
        return namespace(x).concat([_turned(v[..., :length]), v[..., length:]], axis=-1)
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
    return _of_state(c, _turned(_newest(x, z.shape[-1])))


def _newest(x: Array, count: int) -> Array:
    """Return the last samples, with zeros where there are none."""
    return window(x, 2, x.shape[-1] - count, x.shape[-1])


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


def _lagged(g: Array, x: Array, c: Array) -> Array:
    """Return <g, x j samples later> of every signal, for as many j as c (filters, 1, k) has.

    Their sums over signals are the gradient of <g, c * x> by the coefficients c.
    """
    length, found = x.shape[-1], []
    for j in range(c.shape[-1]):
        count = max(0, length - j)
        products = matmul(x[:, :, None, :count], g[:, :, length - count :, None])
        found.append(products[..., 0, 0])
    return namespace(x).stack(found, axis=-1)


lagged: Primitive[[Array, Array, Array], Array] = Primitive(_lagged, "lagged")


def lagged_cotangents(
    run: Section, g: Array, x: Array, bar: Array, wanted: Sequence[bool]
) -> tuple[Array | None, ...]:
    """Return the gradients by g and x of lagged(g, x, c): numbers of ``bar`` are coefficients."""
    xp, shape = namespace(bar), x.shape
    bar, g, x = (xp.reshape(v, (size(shape[:2]), 1, v.shape[2])) for v in (bar, g, x))
    none, by_g, by_x = bar[..., :0], None, None
    if wanted[0]:
        by_g = xp.reshape(run(bar, none, x, x[..., :0]), shape)
    if wanted[1]:
        by_x = xp.reshape(run(bar, none, g, x[..., :0], True), shape)
    return by_g, by_x, None


def _by_coefficients(g: Array, tail: Array, x: Array, c: Array, back: bool) -> Array:
    """Return the gradient by coefficients c (filters, 1, k); the numbers of ``tail`` follow g."""
    order = tail.shape[-1]
    sums = lagged(x, g, c) if back else lagged(g, x, c)
    if order:
        met = _turned(part(x, 2, 0, min(order, x.shape[-1]))) if back else x
        sums = sums + lagged(pad(tail, 2, order, 0), pad(_newest(met, order), 2, 0, order), c)
    return namespace(g).sum(sums, axis=1, keepdims=True)


def tangent(
    run: Section,
    back: bool,
    b: Array,
    a: Array,
    x: Array,
    v: Array,
    dots: Sequence[Array | None],
) -> Array:
    """Return the tangent of v = run(b, a, x, z, back) by those of b, a, x and z."""
    length = x.shape[-1]
    b_dot, a_dot, x_dot, z_dot = dots
    none = zeros((*x.shape[:2], v.shape[-1] - length), x)
    parts = []
    if x_dot is not None:
        assert z_dot is not None  # they come together
        parts.append(run(b, a, x_dot, z_dot, back))
    if b_dot is not None:
        parts.append(run(b_dot, a, x, none, back))
    if a_dot is not None:
        parts.append(run(pad(-a_dot, 2, 1, 0), a, v[..., :length], none, back))
    return sum(parts[1:], parts[0])


def cotangents(
    run: Section,
    back: bool,
    b: Array,
    a: Array,
    x: Any,
    v: Any,
    bar: Array,
    wanted: Sequence[bool],
    order: int,
) -> tuple[Array | None, ...]:
    """Return the gradients by b, a, x and z, None where not wanted, of v = run(b, a, x, z, back).

    x and v are used for the gradients by b and by a alone.
    """
    length = bar.shape[-1] - order
    tail = bar[..., length:]
    g = bar[..., :length] if order else bar
    if not (order or wanted[0] or wanted[1]):  # one filter: A and B commute
        return None, None, run(b, a, g, tail, not back), tail
    if a.shape[-1]:
        one, state = zeros((*a.shape[:2], 1), a) + 1, -_of_state(a[:, 0, :], tail)
        g = run(one, a, g, state, not back)[..., :length]
    b_bar = a_bar = x_bar = z_bar = None
    if wanted[0]:
        b_bar = _by_coefficients(g, tail, x, b, back)
    if wanted[1]:
        powers = pad(a, 2, 1, 0)
        a_bar = -_by_coefficients(g, tail, v[..., :length], powers, back)[..., 1:]
    if wanted[2]:
        state = _of_state(b[:, 0, 1:], tail)
        x_bar = run(b, a[..., :0], g, state, not back)[..., :length]
    if wanted[3]:
        count = min(order, length)
        first = _turned(part(g, 2, length - count, length)) if back else g[..., :count]
        z_bar = namespace(bar).concat([first, tail], axis=-1)[..., :order]
    return b_bar, a_bar, x_bar, z_bar
