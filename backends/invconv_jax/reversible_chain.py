"""Backpropagation without stored activations: inputs are recomputed by inversion.

A. N. Gomez, M. Ren, R. Urtasun, R. B. Grosse, The Reversible Residual Network: Backpropagation
Without Storing Activations, NeurIPS 2017.
"""

from __future__ import annotations

from dataclasses import dataclass

import jax
import numpy as np

from invconv.arrays import Array, Shape
from invconv.base import InvertibleConv
from invconv.calls import require_spatial_shape
from invconv.checks import require_invertible
from invconv.compose import Chain

Steps = tuple[InvertibleConv, ...]


def reversible(chain: Chain, spatial_shape: Shape) -> Reversible:
    """Return a chain that keeps only its output for the gradient, whatever its depth.

    The backward pass inverts each step and differentiates it: about twice the time. Gradients are
    those of the stored version up to rounding, which the condition of the steps amplifies. Steps
    that differ in nothing but their values (chains of such too) run in a loop, whose memory does
    not grow with depth and which compiles once; of others XLA decides what is kept at a time.

    Parameters
    ----------
    chain : Chain
    spatial_shape : tuple of int
        The grid, on which each step's inverse is judged; not inside traced code. Judge again
        after long training, or watch with `ConditionGuard`.

    Raises
    ------
    ValueError
        If a step's inverse cannot be right on this grid, with the step's number.

    Examples
    --------
    >>> import invconv, invconv_jax, jax
    >>> keys = jax.random.split(jax.random.key(0), 8)
    >>> chain = invconv.Chain([invconv_jax.init(k, invconv.EmergingConv, 3) for k in keys])
    >>> flow = invconv_jax.reversible(chain, (8, 8))
    >>> z, log_det = flow.forward_and_log_det(jax.numpy.ones((2, 3, 8, 8)))
    """
    shape = require_spatial_shape(chain, spatial_shape)
    for i, step in enumerate(chain.steps):
        require_invertible(f"steps[{i}]", step, shape)
    return Reversible(chain)


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class Reversible:
    """What `reversible` returns; a pytree, as the chain is."""

    chain: Chain

    def forward_and_log_det(self, x: Array) -> tuple[Array, Array]:
        """See `InvertibleConv.forward_and_log_det`."""
        result: tuple[Array, Array] = _run(tuple(self.chain.steps), x)
        return result

    def inverse_and_log_det(self, y: Array) -> tuple[Array, Array]:
        """See `InvertibleConv.inverse_and_log_det`; activations are stored."""
        return self.chain.inverse_and_log_det(y)


def _forward(steps: Steps, x: Array) -> tuple[Array, Array]:
    def forward(z: Array, step: InvertibleConv) -> tuple[Array, Array]:
        return step.forward_and_log_det(z)

    if _alike(steps):
        z, log_dets = jax.lax.scan(forward, x, _stacked(steps))
        return z, log_dets.sum(axis=0)
    z, total = forward(x, steps[0])
    for step in steps[1:]:
        z, log_det = forward(z, step)
        total = total + log_det
    return z, total


_run = jax.custom_vjp(_forward)


def _remember(steps: Steps, x: Array) -> tuple[tuple[Array, Array], tuple[Steps, Array]]:
    z, total = _forward(steps, x)
    return (z, total), (steps, z)


def _backward(kept: tuple[Steps, Array], bars: tuple[Array, Array]) -> tuple[Steps, Array]:
    (steps, z), (z_bar, total_bar) = kept, bars

    def backward(
        carried: tuple[Array, Array], step: InvertibleConv
    ) -> tuple[tuple[Array, Array], InvertibleConv]:
        z, z_bar = carried
        shape = tuple(z.shape[2:] if step.ndim is None else z.shape[z.ndim - step.ndim :])
        x = step.prepare(shape, check=False).inverse(z)
        gradients, x_bar = step.forward_vjp(x, z_bar, total_bar)
        return (x, x_bar), _like_tree(step, gradients)

    if _alike(steps):
        (_, x_bar), stacked = jax.lax.scan(backward, (z, z_bar), _stacked(steps), reverse=True)
        parts = [jax.tree.map(lambda a, i=i: a[i], stacked) for i in range(len(steps))]
        return tuple(parts), x_bar
    gradients: list[InvertibleConv] = []
    for step in reversed(steps):
        (z, z_bar), gradient = backward((z, z_bar), step)
        gradients.append(gradient)
    return tuple(reversed(gradients)), z_bar


_run.defvjp(_remember, _backward)


def _like_tree(step: InvertibleConv, gradients: dict[str, Array]) -> InvertibleConv:
    """Put gradients by name where the parameters are in the pytree; constants have none."""
    names = {id(array): name for name, array in step.parameters().items()}

    def gradient(leaf: Array) -> Array:
        if id(leaf) in names:
            return gradients[names[id(leaf)]]
        real = jax.numpy.issubdtype(leaf.dtype, jax.numpy.floating)
        return np.zeros(leaf.shape, leaf.dtype if real else jax.dtypes.float0)

    tree: InvertibleConv = jax.tree.map(gradient, step)
    return tree


def _alike(steps: Steps) -> bool:
    """Tell whether a scan can run the steps: XLA frees what an iteration of a loop has used."""
    kinds = {
        (jax.tree.structure(s), tuple((a.shape, str(a.dtype)) for a in jax.tree.leaves(s)))
        for s in steps
    }
    return len(kinds) == 1 and len(steps) > 1


def _stacked(steps: Steps) -> InvertibleConv:
    stacked: InvertibleConv = jax.tree.map(lambda *arrays: jax.numpy.stack(arrays), *steps)
    return stacked
