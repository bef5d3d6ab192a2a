"""Drop-ins for flow libraries as flows of those libraries, in each library's own terms."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import torch
from jax import numpy as jnp

import invconv_jax
import invconv_torch

Shape = tuple[int, ...]


class Flow(NamedTuple):
    """What a library makes of a layer or an operator, in the library's own terms."""

    part: Any  # the drop-in
    log_prob: Callable[[Any], Any]
    to_latent: Callable[[Any], tuple[Any, Any]]
    to_data: Callable[[Any], tuple[Any, Any]]


def _with_log_det(transform: Any, a: Any) -> tuple[Any, Any]:
    b = transform(a)
    return b, transform.log_abs_det_jacobian(a, b)


def _in_bijx(conv: Any, event: Shape) -> Flow:
    import bijx

    part = invconv_jax.interop.BijxBijection(conv, ndim=len(event) - 1)
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

    part = invconv_jax.interop.DistraxBijector(conv, ndim=len(event) - 1)
    normal = distrax.Normal(jnp.zeros(event), jnp.ones(event))
    flow = distrax.Transformed(distrax.Independent(normal, len(event)), part)
    return Flow(part, flow.log_prob, part.inverse_and_log_det, part.forward_and_log_det)


def _in_flowjax(conv: Any, event: Shape) -> Flow:
    from flowjax import distributions

    part = invconv_jax.interop.FlowjaxBijection(conv, event)
    flow = distributions.Transformed(distributions.StandardNormal(event), part)
    ways = part.inverse_and_log_det, part.transform_and_log_det
    return Flow(part, flow.log_prob, *(jax.vmap(jax.vmap(way)) for way in ways))


def _in_numpyro(conv: Any, event: Shape) -> Flow:
    from numpyro import distributions

    part = invconv_jax.interop.NumpyroTransform(conv, ndim=len(event) - 1)
    base = distributions.Normal(0, 1).expand(event)
    flow = distributions.TransformedDistribution(base, part, validate_args=True)
    return Flow(part, flow.log_prob, partial(_with_log_det, part.inv), partial(_with_log_det, part))


_IN_JAX = (_in_bijx, _in_distrax, _in_flowjax, _in_numpyro)
JAX = {of.__name__.removeprefix("_in_"): of for of in _IN_JAX}


def _in_torch(layer: Any, event: Shape, of: Any = torch.distributions, kind: Any = None) -> Flow:
    transform = (kind or invconv_torch.interop.TorchTransform)(layer, ndim=len(event) - 1)
    base = of.Normal(torch.zeros(event), 1.0, validate_args=True)
    flow = of.TransformedDistribution(base, [transform], validate_args=True)
    ways = (partial(_with_log_det, one) for one in (transform.inv, transform))
    return Flow(transform, flow.log_prob, *ways)


def _in_pyro(layer: Any, event: Shape) -> Flow:
    from pyro import distributions

    return _in_torch(layer, event, distributions, invconv_torch.interop.PyroTransform)


def _in_zuko(layer: Any, event: Shape) -> Flow:
    import zuko

    normal = zuko.distributions.DiagNormal
    moments = torch.zeros(event), torch.ones(event)
    settings = {"ndims": len(event), "buffer": True}
    base = zuko.lazy.UnconditionalDistribution(normal, *moments, **settings)
    transform = invconv_torch.interop.ZukoTransform(layer, ndim=len(event) - 1)
    flow = zuko.lazy.Flow([transform], base)
    ways = (lambda x: transform().call_and_ladj(x), lambda z: transform.inv().call_and_ladj(z))
    return Flow(transform, lambda x: flow().log_prob(x), *ways)


def _in_nflows(layer: Any, event: Shape) -> Flow:
    from nflows.distributions import StandardNormal
    from nflows.flows import base as flows

    transform = invconv_torch.interop.NflowsTransform(layer)
    flow = flows.Flow(transform, StandardNormal(event))
    return Flow(transform, flow.log_prob, transform, transform.inverse)


def _in_normflows(layer: Any, event: Shape) -> Flow:
    import normflows

    step = invconv_torch.interop.NormflowsFlow(layer)
    base = normflows.distributions.DiagGaussian(event, trainable=False)
    flow = normflows.NormalizingFlow(base, [step])
    return Flow(step, flow.log_prob, step.inverse, step)


def _in_FrEIA(layer: Any, event: Shape) -> Flow:
    from FrEIA import framework

    flow = framework.SequenceINN(*event)
    flow.append(invconv_torch.interop.FreiaModule, conv=layer)

    def log_prob(x: Any) -> Any:
        z, log_det = flow(x)
        return -(z**2 + math.log(2 * math.pi)).sum(tuple(range(1, z.ndim))) / 2 + log_det

    return Flow(flow, log_prob, flow, lambda z: flow(z, rev=True))


_IN_TORCH = (_in_torch, _in_pyro, _in_zuko, _in_nflows, _in_normflows, _in_FrEIA)
TORCH: dict[str, Callable[[Any, Shape], Flow]]
TORCH = {of.__name__.removeprefix("_in_"): of for of in _IN_TORCH}
