"""Chains that recompute inputs by inversion for the gradient; the paper: `invconv_torch.chain`."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import numpy as np
from jax import numpy as jnp

from invconv.arrays.namespaces import Array, Shape, describe
from invconv.operators.base.calls import as_batch, grid_of, require_spatial_shape
from invconv.operators.base.judgement import require_invertible
from invconv.operators.base.operator import InvertibleConv
from invconv.operators.chain import Chain
from invconv.trust.round_trip import noise_like, relative_error
from invconv_jax.pytrees import require_values

Steps = tuple[InvertibleConv, ...]


def reversible(chain: Chain, spatial_shape: Shape) -> "Reversible":
    """Return a chain that keeps only its input and output for the gradient, whatever its depth.

    As `invconv_torch.ReversibleChain`, which has the details: about twice the time, gradients up to
    rounding, and a check of every image and of noise in each backward pass. If an inverse was lost
    while training, gradients by the parameters and by the lost images are NaN, since compiled code
    cannot raise.

    Steps that differ only in their values (also chains of such steps) run in a loop: its memory
    does not grow with depth, and it compiles once. For other steps XLA decides how much it keeps
    at a time.

    Parameters
    ----------
    chain : Chain
        A chain of JAX arrays.
    spatial_shape : tuple of int
        The grid, on which each step's inverse is judged once, on the host. `InverseGuard` judges
        while the chain trains, and names the step.

    Returns
    -------
    Reversible
        A pytree of ``chain`` and the static ``spatial_shape``, with ``forward_and_log_det`` on that
        grid alone, and ``inverse_and_log_det``, which stores activations.

    Raises
    ------
    TypeError
        If ``chain`` is no chain of JAX arrays, or is traced, so that its values are not known.
    ValueError
        If the inverse of a step or of the chain cannot be right on this grid; the message has the
        step's number.

    Examples
    --------
    >>> import invconv, invconv_jax, jax
    >>> keys = jax.random.split(jax.random.key(0), 8)
    >>> chain = invconv.Chain([invconv_jax.init(k, invconv.EmergingConv, 3) for k in keys])
    >>> flow = invconv_jax.reversible(chain, (8, 8))
    >>> x = jax.numpy.ones((2, 3, 8, 8))
    >>> loss = lambda flow: flow.forward_and_log_det(x)[0].sum()
    >>> jax.grad(loss)(flow).chain.steps[0].first.kernel.shape
    (3, 3, 2, 2)
    """
    if not isinstance(chain, Chain):
        raise TypeError(f"chain: expected an invconv.Chain, got {type(chain).__name__}")
    for name, array in chain.parameters().items():
        if not isinstance(array, jax.Array):
            raise TypeError(
                f"chain: expected arrays of JAX, got {describe(array)} as {name}; "
                "chain.asarrays(like=...) carries it over"
            )
    require_values("chain", "", chain)
    shape = require_spatial_shape(chain, spatial_shape)
    wide = chain._reference()[1].dtype == np.float64
    host = chain.asarrays(np.empty(0, np.float64 if wide else np.float32))
    for i, step in enumerate(host.steps):
        require_invertible(f"steps[{i}]", step, shape)
    require_invertible("chain", host, shape)
    return Reversible(chain, shape)


@partial(jax.tree_util.register_dataclass, data_fields=["chain"], meta_fields=["spatial_shape"])
@dataclass(frozen=True, eq=False)
class Reversible:
    """The result of `reversible`; inside traced code it is built without checks."""

    chain: Chain
    spatial_shape: Shape

    @property
    def channels(self) -> int:
        """C, the number of channels."""
        return self.chain.channels

    @property
    def ndim(self) -> int:
        """The number of spatial axes."""
        return len(self.spatial_shape)

    def forward_and_log_det(self, x: Array) -> tuple[Array, Array]:
        """See `InvertibleConv.forward_and_log_det`."""
        call = as_batch(self.chain, "x", x)
        if (grid := call.spatial_shape) != self.spatial_shape:
            raise ValueError(
                f"x: expected the grid {self.spatial_shape} on which this chain was judged, got "
                f"{grid}; reversible(flow.chain, {grid}) judges it there"
            )
        assert isinstance(call.conv, Chain)
        z, log_det = _run(tuple(call.conv.steps), call.x)
        return call.restore_shape(z), log_det.reshape(call.batch_shape)

    def inverse_and_log_det(self, y: Array) -> tuple[Array, Array]:
        """See `InvertibleConv.inverse_and_log_det`; activations are stored."""
        return self.chain.inverse_and_log_det(y)


def _forward(steps: Steps, x: Array) -> tuple[Array, Array]:
    z, log_dets = _over(steps, lambda z, step: step.forward_and_log_det(z), x)
    return z, sum(log_dets[1:], start=log_dets[0])


_run = jax.custom_vjp(_forward)


def _remember(steps: Steps, x: Array) -> tuple[tuple[Array, Array], tuple[Steps, Array, Array]]:
    z, total = _forward(steps, x)
    return (z, total), (steps, x, z)


def _backward(kept: tuple[Steps, Array, Array], bars: tuple[Array, Array]) -> tuple[Steps, Array]:
    (steps, x, z), (z_bar, total_bar) = kept, bars
    noise = noise_like(x)
    sent = _forward(steps, noise)[0]

    def pull_back(
        carried: tuple[Array, Array, Array], step: InvertibleConv
    ) -> tuple[tuple[Array, Array, Array], InvertibleConv]:
        z, sent, z_bar = carried
        prepared = step.prepare(grid_of(step, z.shape), check=False)
        x = prepared.inverse(z)
        step_vjp = jax.vjp(lambda step, x: step.forward_and_log_det(x), step, x)[1]
        gradient, x_bar = step_vjp((z_bar, total_bar))
        return (x, prepared.inverse(sent), x_bar), gradient

    carried, gradients = _over(steps, pull_back, (z, sent, z_bar), back=True)
    again, noise_again, x_bar = carried
    lost = ~(relative_error(x, again, z)[1] & relative_error(noise, noise_again, sent)[1])
    each, every = jnp.reshape(lost, (-1, *(1 for _ in x.shape[1:]))), jnp.any(lost)

    def nan_if_lost(g: Array) -> Array:
        return g if g.dtype == jax.dtypes.float0 else jnp.where(every, jnp.nan, g)

    return jax.tree.map(nan_if_lost, tuple(gradients)), jnp.where(each, jnp.nan, x_bar)


_run.defvjp(_remember, _backward)


def _over(
    steps: Steps, run: Callable[[Any, Any], tuple[Any, Any]], carry: Any, *, back: bool = False
) -> tuple[Any, list[Any]]:
    """Run ``run`` over the steps like `jax.lax.scan`, but return a list of its results.

    Steps that are alike do run in a scan: then XLA frees the memory of each iteration.
    """
    kinds = {
        (jax.tree.structure(s), tuple((a.shape, str(a.dtype)) for a in jax.tree.leaves(s)))
        for s in steps
    }
    if len(kinds) == 1:
        stacked = jax.tree.map(lambda *arrays: jnp.stack(arrays), *steps)
        carry, every = jax.lax.scan(run, carry, stacked, reverse=back)
        return carry, [jax.tree.map(lambda a, i=i: a[i], every) for i in range(len(steps))]
    results = []
    for step in reversed(steps) if back else steps:
        carry, result = run(carry, step)
        results.append(result)
    return carry, results[::-1] if back else results
