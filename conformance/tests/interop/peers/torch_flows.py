"""One layer as a flow of each of PyTorch's libraries."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch

from invconv_torch import interop
from tests.interop.peers import Flow

Shape = tuple[int, ...]


def _in_torch(layer: Any, event: Shape, of: Any = torch.distributions, kind: Any = None) -> Flow:
    transform = (kind or interop.TorchTransform)(layer, ndim=len(event) - 1)
    base = of.Normal(torch.zeros(event), 1.0, validate_args=True)
    flow = of.TransformedDistribution(base, [transform], validate_args=True)

    def run(t: Any, a: Any) -> tuple[Any, Any]:
        b = t(a)
        return b, t.log_abs_det_jacobian(a, b)

    there, back = lambda x: run(transform.inv, x), lambda z: run(transform, z)
    return Flow(transform, flow.log_prob, there, back)


def _in_pyro(layer: Any, event: Shape) -> Flow:
    from pyro import distributions

    return _in_torch(layer, event, distributions, interop.PyroTransform)


def _in_zuko(layer: Any, event: Shape) -> Flow:
    import zuko

    normal = zuko.distributions.DiagNormal
    base = zuko.lazy.UnconditionalDistribution(
        normal, torch.zeros(event), torch.ones(event), ndims=len(event), buffer=True
    )
    transform = interop.ZukoTransform(layer, ndim=len(event) - 1)
    flow = zuko.lazy.Flow([transform], base)
    return Flow(
        transform,
        lambda x: flow().log_prob(x),
        lambda x: transform().call_and_ladj(x),
        lambda z: transform.inv().call_and_ladj(z),
    )


def _in_nflows(layer: Any, event: Shape) -> Flow:
    from nflows.distributions import StandardNormal
    from nflows.flows import base as flows

    transform = interop.NflowsTransform(layer)
    flow = flows.Flow(transform, StandardNormal(event))
    return Flow(transform, flow.log_prob, transform, transform.inverse)


def _in_normflows(layer: Any, event: Shape) -> Flow:
    import normflows

    step = interop.NormflowsFlow(layer)
    base = normflows.distributions.DiagGaussian(event, trainable=False)
    flow = normflows.NormalizingFlow(base, [step])
    return Flow(step, flow.log_prob, step.inverse, step)


def _in_freia(layer: Any, event: Shape) -> Flow:
    from FrEIA import framework

    flow = framework.SequenceINN(*event)
    flow.append(interop.FreiaModule, conv=layer)

    def log_prob(x: Any) -> Any:
        z, log_det = flow(x)
        return -(z**2 + math.log(2 * math.pi)).sum(tuple(range(1, z.ndim))) / 2 + log_det

    return Flow(flow, log_prob, flow, lambda z: flow(z, rev=True))


TORCH: dict[str, Callable[[Any, Shape], Flow]] = {
    "torch": _in_torch,
    "pyro": _in_pyro,
    "zuko": _in_zuko,
    "nflows": _in_nflows,
    "normflows": _in_normflows,
    "FrEIA": _in_freia,
}
