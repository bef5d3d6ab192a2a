"""Flows of PyTorch's libraries that train, and what each library asks of its parts."""

from __future__ import annotations

import copy
import io
import math
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch.distributions import AffineTransform, ComposeTransform, Normal, TransformedDistribution

import invconv as ic
import invconv_torch as it
from invconv_torch import interop

EVENT = (4, 4, 4)
ENTROPY = 0.5 * math.log(2 * math.pi * math.e) * math.prod(EVENT)


def data() -> Any:
    """Draw from a distribution of known entropy: sums along a row, a map of determinant 1."""
    torch.manual_seed(0)
    return torch.randn(256, *EVENT).cumsum(-1)


def layers() -> list[Any]:
    torch.manual_seed(0)
    return [it.ActNorm(4), it.EmergingConv2d(4, mixing="qr"), it.PeriodicConv2d(4, bias=False)]


def require_that_it_learns(parameters: Any, nll: Callable[[], Any]) -> None:
    """Train, and hold that most of what the density lacks is learned."""
    parameters = list(parameters)
    assert len(parameters) >= 7
    optimizer = torch.optim.Adamax(parameters, lr=0.05)
    losses = []
    for _ in range(50):
        optimizer.zero_grad()
        loss = nll()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[0] > ENTROPY + 30  # nats a sample
    assert ENTROPY - 5 < losses[-1] < losses[0] - 0.7 * (losses[0] - ENTROPY)


def test_torch_distributions_train() -> None:
    x, transforms = data(), [interop.TorchTransform(layer, ndim=2) for layer in layers()]
    scale = torch.nn.Parameter(torch.ones(4, 1, 1))

    def nll() -> Any:
        steps = [*transforms[::-1], AffineTransform(0.0, scale)]
        flow = TransformedDistribution(Normal(torch.zeros(EVENT), 1.0), steps, validate_args=True)
        return -flow.log_prob(x).mean()

    require_that_it_learns([scale, *torch.nn.ModuleList(transforms).parameters()], nll)


@pytest.mark.slow
def test_nflows_trains() -> None:
    flows = pytest.importorskip("nflows.flows.base")
    from nflows.distributions import StandardNormal
    from nflows.transforms import CompositeTransform, SqueezeTransform

    actnorm, emerging, periodic = (interop.NflowsTransform(layer) for layer in layers())
    mixing = interop.NflowsTransform(it.Conv1x1(16))
    steps = CompositeTransform([actnorm, emerging, periodic, SqueezeTransform(), mixing])
    x, flow = data(), flows.Flow(steps, StandardNormal((16, 2, 2)))
    require_that_it_learns(flow.parameters(), lambda: -flow.log_prob(x).mean())
    samples, density = flow.sample_and_log_prob(3)
    torch.testing.assert_close(flow.log_prob(samples), density, rtol=1e-3, atol=1e-3)
    context = torch.zeros(3, 2)  # others in the flow may have one
    z, log_det = emerging(x[:3], context)
    back, inverse_log_det = emerging.inverse(z, context)
    torch.testing.assert_close(back, x[:3], rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(inverse_log_det, -log_det)


@pytest.mark.slow
def test_normflows_trains() -> None:
    normflows = pytest.importorskip("normflows")
    from normflows.flows.flow_test import FlowTest

    actnorm, emerging, periodic = (interop.NormflowsFlow(layer) for layer in layers())
    mixing = interop.NormflowsFlow(it.Conv1x1(16))
    steps = [mixing, normflows.flows.Squeeze(), periodic, emerging, actnorm]
    base = normflows.distributions.DiagGaussian((16, 2, 2), trainable=False)
    x, flow = data(), normflows.NormalizingFlow(base, steps)
    require_that_it_learns(flow.parameters(), lambda: flow.forward_kld(x))
    for step in (periodic, emerging, actnorm):
        FlowTest().checkForwardInverse(step, x, atol=1e-3, rtol=1e-3)
    samples, density = flow.sample(3)
    torch.testing.assert_close(flow.log_prob(samples), density, rtol=1e-3, atol=1e-3)
    conditional = normflows.ConditionalNormalizingFlow(base, [emerging])
    context = torch.zeros(256, 2)
    torch.testing.assert_close(conditional.forward(x, context), emerging(x)[0])
    torch.testing.assert_close(conditional.inverse(x, context), emerging.inverse(x)[0])


@pytest.mark.slow
def test_zuko_trains() -> None:
    zuko = pytest.importorskip("zuko")
    from zuko.lazy import UnconditionalDistribution, UnconditionalTransform

    actnorm, emerging, periodic = layers()
    affine = UnconditionalTransform(zuko.transforms.MonotonicAffineTransform, *torch.zeros(2, 1))
    base = UnconditionalDistribution(
        zuko.distributions.DiagNormal, torch.zeros(EVENT), torch.ones(EVENT), ndims=3, buffer=True
    )
    steps = [
        interop.ZukoTransform(actnorm, ndim=2),
        affine,
        UnconditionalTransform(interop.TorchTransform, emerging).inv,
        interop.ZukoTransform(periodic),
    ]
    x, flow = data(), zuko.lazy.Flow(steps, base)
    require_that_it_learns(flow.parameters(), lambda: -flow().log_prob(x).mean())
    samples, density = flow().rsample_and_log_prob((3, 2))
    assert samples.shape == (3, 2, *EVENT)
    torch.testing.assert_close(flow().log_prob(samples), density, rtol=1e-3, atol=1e-3)
    assert flow(torch.zeros(5, 7)).sample().shape == (5, *EVENT)  # of a context, which is ignored


@pytest.mark.slow
def test_freia_trains() -> None:
    framework = pytest.importorskip("FrEIA.framework")
    from FrEIA.modules import IRevNetDownsampling

    actnorm, emerging, periodic = layers()
    nodes = [framework.InputNode(*EVENT)]
    for kind, settings in (
        (interop.FreiaModule, {"conv": actnorm}),
        (interop.FreiaModule, {"conv": emerging}),
        (interop.FreiaModule, {"conv": periodic}),
        (IRevNetDownsampling, {}),
        (interop.FreiaModule, {"conv": it.Conv1x1(16)}),
    ):
        nodes.append(framework.Node(nodes[-1], kind, settings))
    nodes.append(framework.OutputNode(nodes[-1]))
    x, flow = data(), framework.GraphINN(nodes)

    def nll() -> Any:
        z, log_det = flow(x)
        return (0.5 * (z**2 + math.log(2 * math.pi)).sum((1, 2, 3)) - log_det).mean()

    require_that_it_learns(flow.parameters(), nll)
    z, log_det = flow(x[:2])
    back, inverse_log_det = flow(z, rev=True)
    torch.testing.assert_close(back, x[:2], rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(inverse_log_det, -log_det)
    numerical = flow.log_jacobian_numerical(x[:2], h=1e-2)  # FrEIA's own, by differences
    torch.testing.assert_close(log_det, numerical, rtol=0, atol=0.05)
    numerical = flow.log_jacobian_numerical(z, rev=True, h=1e-2)
    torch.testing.assert_close(inverse_log_det, numerical, rtol=0, atol=0.05)
    torch.testing.assert_close(flow(x[:2], jac=False)[0], z)


def test_freia_refuses_other_inputs() -> None:
    framework = pytest.importorskip("FrEIA.framework")
    layer = it.EmergingConv2d(4)
    with pytest.raises(ValueError, match=r"dims_in: expected one input .* with 2 spatial axes"):
        framework.SequenceINN(4).append(interop.FreiaModule, conv=layer)
    with pytest.raises(ValueError, match="dims_in: expected 4 channels"):
        framework.SequenceINN(3, 4, 4).append(interop.FreiaModule, conv=layer)
    with pytest.raises(ValueError, match="dims_c: expected no conditions"):
        framework.SequenceINN(4, 4, 4).append(
            interop.FreiaModule, cond=0, cond_shape=(2,), conv=layer
        )


@pytest.mark.slow
def test_pyro_trains() -> None:
    pyro = pytest.importorskip("pyro")
    from pyro.distributions import ComposeTransformModule, TransformModule
    from pyro.distributions import TransformedDistribution as Transformed
    from pyro.infer import SVI, Trace_ELBO

    x, transforms = data(), [interop.PyroTransform(layer, ndim=2) for layer in layers()[::-1]]
    assert all(isinstance(t, TransformModule) for t in transforms)
    flow = ComposeTransformModule(transforms)

    def model(x: Any) -> None:
        pyro.module("flow", flow)
        base = pyro.distributions.Normal(torch.zeros(EVENT), 1.0).to_event(3)
        with pyro.plate("samples", len(x)):
            pyro.sample("x", Transformed(base, [flow]), obs=x)

    pyro.clear_param_store()
    pyro.set_rng_seed(0)
    svi = SVI(model, lambda x: None, pyro.optim.Adamax({"lr": 0.05}), Trace_ELBO())
    losses = [svi.step(x) / len(x) for _ in range(50)]
    assert len(list(pyro.get_param_store())) == len(list(flow.parameters()))
    assert losses[0] > ENTROPY + 30
    assert ENTROPY - 5 < losses[-1] < losses[0] - 0.7 * (losses[0] - ENTROPY)
    trace = pyro.poutine.trace(pyro.poutine.uncondition(model)).get_trace(x[:3])
    assert trace.nodes["x"]["value"].shape == (3, *EVENT)


def test_a_transform_keeps_the_rules_of_torch_distributions() -> None:
    transform = interop.TorchTransform(it.EmergingConv2d(2, dtype=torch.float64))
    assert transform.bijective
    assert transform.event_dim == transform.domain.event_dim == transform.codomain.event_dim == 3
    assert transform.inv.inv is transform
    assert transform == transform
    assert transform != interop.TorchTransform(transform.layer)
    assert len({transform, transform.inv.inv}) == 1
    assert ComposeTransform([transform, AffineTransform(0.0, 2.0)]).event_dim == 3
    assert transform.forward_shape((5, 2, 3, 3)) == (5, 2, 3, 3)
    assert "EmergingConv2d" in repr(transform)
    z = torch.randn(2, 3, 3, dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(transform, z).reshape(18, 18)
    torch.testing.assert_close(
        transform.log_abs_det_jacobian(z, transform(z)), torch.linalg.slogdet(jacobian)[1]
    )
    with pytest.raises(ValueError, match=r"expected shape \(\*batch, C, \*spatial\)"):
        transform(z[0])
    with pytest.raises(ValueError, match="cache_size must be 0 or 1"):
        interop.TorchTransform(transform.layer, cache_size=2)


def test_a_cache_remembers_the_last_pair() -> None:
    plain = interop.TorchTransform(it.EmergingConv2d(2))
    cached = plain.with_cache()
    assert cached.with_cache() is cached
    assert cached.layer is plain.layer
    assert plain.inv.with_cache().inv.layer is plain.layer
    z = torch.randn(3, 2, 4, 4)
    x = cached(z)
    assert cached.inv(x) is z
    assert plain.inv(x) is not z
    flow = TransformedDistribution(Normal(torch.zeros(2, 4, 4), 1.0), [cached])
    x = flow.rsample((3,))
    torch.testing.assert_close(
        flow.log_prob(x), TransformedDistribution(flow.base_dist, [plain]).log_prob(x)
    )


def test_the_number_of_axes() -> None:
    open_ended = it.Conv1x1(3)
    with pytest.raises(ValueError, match="ndim: expected the number of spatial axes"):
        interop.TorchTransform(open_ended)
    with pytest.raises(ValueError, match="ndim: expected the operator's, 2, got 1"):
        interop.TorchTransform(it.EmergingConv2d(3), ndim=1)
    with pytest.raises(ValueError, match="ndim: expected 0 or more"):
        interop.TorchTransform(open_ended, ndim=-1)
    with pytest.raises(TypeError, match=r"ndim: expected a number of spatial axes, got 2\.0"):
        interop.TorchTransform(open_ended, ndim=2.0)  # type: ignore[arg-type]
    vectors = interop.TorchTransform(open_ended, ndim=0)
    assert vectors(torch.randn(4, 5, 3)).shape == (4, 5, 3)
    assert vectors(torch.randn(0, 3)).shape == (0, 3)
    chain = it.ReversibleChain([open_ended, it.PeriodicConv1d(3)])
    assert interop.TorchTransform(chain).event_dim == 2


def test_copies_and_files() -> None:
    transform = interop.TorchTransform(it.EmergingConv2d(2))
    x = torch.randn(3, 2, 4, 4)
    expected = transform.inv(x)
    for other in (pickle.loads(pickle.dumps(transform)), copy.deepcopy(transform)):
        assert torch.equal(other.inv(x), expected)
    stream = io.BytesIO()
    torch.save(transform.state_dict(), stream)
    stream.seek(0)
    other = interop.TorchTransform(it.EmergingConv2d(2))
    other.load_state_dict(torch.load(stream))
    assert torch.equal(other.inv(x), expected)
    assert transform.double().inv(x.double()).dtype == torch.float64


def test_autocast_leaves_the_density_as_it_is() -> None:
    conv = ic.Chain([ic.QRConv1x1.init(3, rng=np.random.default_rng(0)), ic.ActNorm.init(3)])
    conv = conv.asarrays(torch.zeros(1))
    transform = interop.TorchTransform(conv, ndim=2)
    flow = TransformedDistribution(Normal(torch.zeros(3, 4, 4), 1.0), [transform])
    x = torch.randn(2, 3, 4, 4)
    expected = transform.log_abs_det_jacobian(x, x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(transform.log_abs_det_jacobian(x, x), expected)
        torch.testing.assert_close(flow.log_prob(x).float(), flow.log_prob(x))


@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # dynamo's
def test_a_density_compiles() -> None:
    transform = interop.TorchTransform(it.EmergingConv2d(2))
    base = Normal(torch.zeros(2, 4, 4), 1.0, validate_args=False)
    flow = TransformedDistribution(base, [transform], validate_args=False)
    x = torch.randn(3, 2, 4, 4)
    compiled = torch.compile(flow.log_prob, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(x), flow.log_prob(x))
