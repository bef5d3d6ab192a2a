"""Transforms of torch.distributions: a flow that trains, rules, caches, copies, autocast."""

from __future__ import annotations

import math

import pytest
import torch
from torch.distributions import AffineTransform, ComposeTransform, Normal, TransformedDistribution

import invconv_torch as it
from invconv_torch import interop


def test_a_flow_trains() -> None:
    """On sums along a row of noise, whose entropy is that of the noise: most is learned."""
    torch.manual_seed(0)
    x = torch.randn(256, 4, 4, 4).cumsum(-1)
    entropy = 0.5 * math.log(2 * math.pi * math.e) * x[0].numel()
    layers = it.PeriodicConv2d(4, bias=False), it.EmergingConv2d(4, mixing="qr"), it.ActNorm(4)
    transforms = [interop.TorchTransform(layer, ndim=2) for layer in layers]
    scale = torch.nn.Parameter(torch.ones(4, 1, 1))
    parameters = [scale, *torch.nn.ModuleList(transforms).parameters()]
    optimizer, losses = torch.optim.Adamax(parameters, lr=0.05), []
    for _ in range(50):
        steps = [*transforms, AffineTransform(0.0, scale)]
        base = Normal(torch.zeros(x.shape[1:]), 1.0)
        loss = -TransformedDistribution(base, steps, validate_args=True).log_prob(x).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[0] > entropy + 30  # nats a sample
    assert entropy - 5 < losses[-1] < losses[0] - 0.7 * (losses[0] - entropy)


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
