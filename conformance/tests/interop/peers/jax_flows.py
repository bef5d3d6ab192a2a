"""One operator as a flow of each of JAX's libraries."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
from jax import numpy as jnp

from invconv_jax import interop
from tests.interop.peers import Flow

Shape = tuple[int, ...]


def _in_bijx(conv: Any, event: Shape) -> Flow:
    import bijx

    part = interop.BijxBijection(conv, ndim=len(event) - 1)
    flow = bijx.Transformed(bijx.IndependentNormal(event), part)

    def run(way: Any, axes: int) -> Callable[[Any], tuple[Any, Any]]:
        def both(x: Any) -> tuple[Any, Any]:
            y, density = way(x, jnp.full(x.shape[: x.ndim - axes], 2.0))
            return y, 2.0 - density

        return both

    axes = len(event)
    return Flow(part, flow.log_density, run(part.reverse, axes), run(part.forward, axes))


def _in_distrax(conv: Any, event: Shape) -> Flow:
    import distrax

    part = interop.DistraxBijector(conv, ndim=len(event) - 1)
    normal = distrax.Normal(jnp.zeros(event), jnp.ones(event))
    flow = distrax.Transformed(distrax.Independent(normal, len(event)), part)
    return Flow(part, flow.log_prob, part.inverse_and_log_det, part.forward_and_log_det)


def _in_flowjax(conv: Any, event: Shape) -> Flow:
    from flowjax import distributions

    part = interop.FlowjaxBijection(conv, event)
    flow = distributions.Transformed(distributions.StandardNormal(event), part)

    ways = part.inverse_and_log_det, part.transform_and_log_det
    return Flow(part, flow.log_prob, *(jax.vmap(jax.vmap(way)) for way in ways))


def _in_numpyro(conv: Any, event: Shape) -> Flow:
    from numpyro import distributions

    part = interop.NumpyroTransform(conv, ndim=len(event) - 1)
    base = distributions.Normal(0, 1).expand(event)
    flow = distributions.TransformedDistribution(base, part, validate_args=True)

    def run(t: Any, a: Any) -> tuple[Any, Any]:
        b = t(a)
        return b, t.log_abs_det_jacobian(a, b)

    return Flow(part, flow.log_prob, lambda x: run(part.inv, x), lambda z: run(part, z))


JAX: dict[str, Callable[[Any, Shape], Flow]] = {
    "bijx": _in_bijx,
    "distrax": _in_distrax,
    "flowjax": _in_flowjax,
    "numpyro": _in_numpyro,
}
