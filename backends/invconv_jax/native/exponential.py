"""Exponentials of correlations in JAX: loops on the device, which counts the terms itself.

Two primitives, linear in all arguments but the taps, with the derivatives of
`invconv.kernels.exponential`. A loop has no reverse derivative of its own, and needs none: the
derivatives are the primitives again, also under `jax.vmap`, which becomes part of a primitive.
"""

import functools
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
from jax import lax
from jax import numpy as jnp

from invconv.arrays.namespaces import Array, Shape
from invconv.arrays.stencil import Stencil
from invconv.families.convolutions import StencilFamily
from invconv.kernels import exponential as core
from invconv_jax import private
from invconv_jax.native.partition import whole
from invconv_jax.native.products import correlate, correlate_kernel_vjp
from invconv_jax.private import Zero, is_undefined_primal

# the ``in_axes``, 0 or None, of nested calls of `jax.vmap`, the innermost first
Maps = tuple[tuple[int | None, ...], ...]


class _Series:
    """Taylor's series of e^M with directions, by the equations of `invconv.kernels.exponential`."""

    def __init__(
        self, family: StencilFamily, w: Array, directions: Sequence[Array], orders: int
    ) -> None:
        self.family, self.blocks = family, 2 ** len(directions)
        taps, mean = core.without_mean(family, w)
        norm = core.taps_norm(taps)
        self.finite = norm <= core.LARGEST
        steps = jnp.where(self.finite, jnp.ceil(norm / core.LARGEST_STEP), jnp.zeros_like(norm))
        self.divisor = jnp.maximum(steps, jnp.ones_like(steps))
        self.steps = self.divisor.astype(jnp.int32)
        few = jnp.asarray(core.reaches(float(jnp.finfo(w.dtype).eps)), w.dtype)
        self.most = len(few) + 1 + orders
        self.terms = 1 + orders + jnp.sum(norm / self.divisor > few, dtype=jnp.int32)
        self.taps = core.block_taps(taps, directions) / self.divisor
        self.scale = jnp.exp(mean / self.divisor)

    def __call__(self, x: Array) -> Array:
        """Return P(w; x, directions)."""
        y = self.after(core.in_block(x, self.blocks, 0), self.steps)
        return self.result(core.last_block(y, self.blocks))

    def result(self, a: Array) -> Array:
        """Return the array, or NaN if the norm is above `LARGEST` or NaN."""
        return jnp.where(self.finite, a, math.nan)

    def after(self, x: Array, steps: Array) -> Array:
        """Return e^(M steps/s) x."""
        return lax.fori_loop(0, steps, lambda _, x: self.step(x), x)

    def step(self, x: Array) -> Array:
        """Return e^(M/s) x."""
        z: Array = lax.fori_loop(0, self.terms, lambda i, z: x + self.apply(z, self.terms - i), x)
        return self.scale * z

    def apply(self, x: Array, n: Array, turned: bool = False) -> Array:
        """Return M x / n, or M^T x / n."""
        family = self.family.transpose() if turned else self.family
        taps = (self.taps.mT if turned else self.taps) * (1 / n.astype(self.taps.dtype))
        return correlate(Stencil(family.offsets, taps), x, wrap=family.wrap)

    def gram(self, x: Array, y: Array) -> Array:
        """Return Q(w; x, y, directions): step after step, the last one first."""
        x, y = core.in_block(x, self.blocks, 0), core.in_block(y, self.blocks, self.blocks - 1)

        def one_step(i: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
            # recompute the step's input from the start: few kernels need many steps
            return self.pull_back(self.after(x, self.steps - 1 - i), *carry)

        total, _ = lax.fori_loop(0, self.steps, one_step, (jnp.zeros_like(self.taps), y))
        return self.result(core.diagonal_block(total, self.blocks) / self.divisor)

    def pull_back(self, x: Array, total: Array, bar: Array) -> tuple[Array, Array]:
        """Pull a cotangent back through a step, and add the step's part to the gradient."""
        # a buffer on the devices of the images; its values do not matter: they are overwritten
        kept = jnp.broadcast_to(x, (self.most, *x.shape))

        def forward(i: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
            z, kept = carry
            kept = lax.dynamic_update_index_in_dim(kept, z, i, 0)
            return x + self.apply(z, self.terms - i), kept

        _, kept = lax.fori_loop(0, self.terms, forward, (x, kept))
        bar = self.scale * bar

        def backward(n: Array, carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
            total, term, bar = carry
            z = lax.dynamic_index_in_dim(kept, self.terms - n, 0, keepdims=False)
            part = correlate_kernel_vjp(z, term, self.family.offsets, wrap=self.family.wrap)
            total = total + part / n.astype(total.dtype)
            term = self.apply(term, n, turned=True)
            return total, term, bar + term

        total, _, bar = lax.fori_loop(1, self.terms + 1, backward, (total, bar, bar))
        return total, bar


def _exponential(w: Array, x: Array, *directions: Array, family: StencilFamily) -> Array:
    return _Series(family, w, directions, len(directions))(x)


def _exponential_gram(
    w: Array, x: Array, y: Array, *directions: Array, family: StencilFamily
) -> Array:
    return _Series(family, w, directions, 1 + len(directions)).gram(x, y)


def _mapped(function: Callable[..., Array], maps: Iterable[Any]) -> Callable[..., Array]:
    return functools.reduce(lambda run, axes: jax.vmap(run, in_axes=axes), maps, function)


def _primitive(
    name: str,
    function: Callable[..., Array],
    like: int,
    tangent: Callable[..., Array],
    cotangent: Callable[..., Array],
) -> private.Primitive:
    """Return a primitive; its result has the type of argument ``like``."""

    def run(*arrays: Array, family: StencilFamily, maps: Maps) -> Array:
        return _mapped(functools.partial(function, family=family), maps)(*arrays)

    primitive = private.primitive_of(name, jax.jit(run, static_argnames=("family", "maps")))

    def type_of(*types: Any, family: StencilFamily, maps: Maps) -> Any:
        result = jax.eval_shape(_mapped(lambda *arrays: arrays[like], maps), *types)
        return types[like].update(shape=result.shape, sharding=result.sharding, weak_type=False)

    def jvp(arrays: Any, dots: Any, *, family: StencilFamily, maps: Maps) -> tuple[Array, Any]:
        def part(slot: int, dot: Array) -> Array:
            pairs = tuple((axes, axes[slot]) for axes in maps)
            run = _mapped(lambda arrays, dot: tangent(family, arrays, slot, dot), pairs)
            return run(tuple(arrays), dot)

        parts = [part(slot, dot) for slot, dot in enumerate(dots) if not isinstance(dot, Zero)]
        return primitive.bind(*arrays, family=family, maps=maps), functools.reduce(jnp.add, parts)

    def transpose(bar: Any, *arrays: Any, family: StencilFamily, maps: Maps) -> list[Any]:
        def part(slot: int) -> Array:
            pairs = tuple((axes, 0) for axes in maps)
            run = _mapped(lambda arrays, bar: cotangent(family, arrays, slot, bar), pairs)
            shared = (n for n, axes in enumerate(reversed(maps)) if axes[slot] is None)
            return run(arrays, bar).sum(axis=tuple(shared))

        if isinstance(bar, Zero):
            return [None] * len(arrays)
        return [part(slot) if is_undefined_primal(a) else None for slot, a in enumerate(arrays)]

    def vectorise(
        arrays: Any, axes: Any, *, family: StencilFamily, maps: Maps
    ) -> tuple[Array, int]:
        pairs = list(zip(arrays, axes, strict=True))
        arrays = [a if axis is None else jnp.moveaxis(a, axis, 0) for a, axis in pairs]
        maps = (*maps, tuple(None if axis is None else 0 for axis in axes))
        return primitive.bind(*arrays, family=family, maps=maps), 0

    primitive.def_abstract_eval(type_of)
    private.primitive_jvps[primitive] = jvp
    private.primitive_transposes[primitive] = transpose
    private.primitive_batchers[primitive] = vectorise
    return primitive


_exponential_p = _primitive(
    "invconv_exponential", _exponential, 1, core.exponential_tangent, core.exponential_cotangent
)
_gram_p = _primitive(
    "invconv_exponential_gram", _exponential_gram, 0, core.gram_tangent, core.gram_cotangent
)


def exponential(
    family: StencilFamily, w: Array, x: Array, *directions: Array, counts: None = None
) -> Array:
    """See `invconv.kernels.exponential`."""
    return whole(_exponential_p.bind(whole(w, 0), whole(x), *directions, family=family, maps=()))


def exponential_gram(
    family: StencilFamily, w: Array, x: Array, y: Array, *directions: Array, counts: None = None
) -> Array:
    """See `invconv.kernels.exponential`."""
    return _gram_p.bind(whole(w, 0), whole(x), whole(y), *directions, family=family, maps=())


def counted(family: StencilFamily, w: Array, kernel: Array, shape: Shape) -> tuple[Array, None]:
    """See `invconv.kernels.exponential`."""
    return w, None
