"""The drop-ins for PyTorch's flow libraries, in the real packages, against dense matrices."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

import invconv as ic
import invconv_torch as it
from invconv_conformance.cases.case import Case
from invconv_torch import interop
from tests.interop.peers.flow import Flow
from tests.interop.peers.torch_flows import TORCH as LIBRARIES
from tests.interop.slopes import direction, slope_of_density
from tests.selected import cases_named, installed

Shape = tuple[int, ...]
every_library = pytest.mark.parametrize("library", installed(LIBRARIES))


@pytest.fixture(autouse=True)
def in_float64() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)
    yield
    torch.set_default_dtype(torch.float32)


def in_library(library: str, case: Case) -> tuple[Flow, Any, Shape]:
    layer = it.InvertibleModule(case.conv())
    event = (case.conv().channels, *case.spatial_shape)
    return LIBRARIES[library](layer, event), layer, event


@every_library
@pytest.mark.parametrize("name", ["emerging-biases", "conv1x1-2d", "inverse-emerging-biases"])
def test_gradients_reach_the_parameters(library: str, name: str) -> None:
    (case,) = cases_named(name)
    flow, layer, event = in_library(library, case)
    x, along = torch.randn(3, *event), direction(case)
    flow.log_prob(x).sum().backward()
    gradients = dict(layer.named_parameters())
    slope = sum((gradients[name].grad.numpy() * along[name]).sum() for name in along)
    rows = x.numpy().reshape(len(x), -1)
    assert slope == pytest.approx(slope_of_density(case, rows, along), rel=1e-4, abs=1e-4)


@every_library
def test_an_operator_becomes_a_trainable_layer(library: str) -> None:
    conv = ic.PeriodicConv.init(2, rng=np.random.default_rng(0))
    flow = LIBRARIES[library](conv, (2, 4, 3))
    x = torch.randn(3, 2, 4, 3)
    assert flow.log_prob(x).requires_grad
    z = conv.forward(x.numpy())
    torch.testing.assert_close(flow.to_latent(x)[0].detach().numpy(), z)


@every_library
def test_reversible_chains_and_bounded_layers(library: str) -> None:
    steps = [it.ActNorm(2), it.EmergingConv2d(2, max_gain=3.0)]
    x = torch.randn(3, 2, 4, 4)
    flow = LIBRARIES[library](it.ReversibleChain(steps), (2, 4, 4))
    density = flow.log_prob(x)
    density.sum().backward()
    assert all(p.grad is not None for step in steps for p in step.parameters())
    chain = it.InvertibleModule(ic.Chain([step.operator() for step in steps]))
    torch.testing.assert_close(LIBRARIES[library](chain, (2, 4, 4)).log_prob(x), density)


@every_library
def test_what_is_no_layer_is_refused(library: str) -> None:
    for wrong in (torch.nn.Linear(2, 2), np.eye(2)):
        with pytest.raises(TypeError, match="conv: expected a layer"):
            LIBRARIES[library](wrong, (2, 4, 3))


@pytest.mark.parametrize("library", installed(["nflows", "normflows", "zuko"]))
def test_a_context_that_other_parts_have_is_taken_and_ignored(library: str) -> None:
    layer = it.EmergingConv2d(4)
    x, context = torch.randn(3, 4, 4, 4), torch.zeros(3, 2)
    if library == "zuko":
        z = interop.ZukoTransform(layer)(context)(x)
    elif library == "nflows":
        z, _ = interop.NflowsTransform(layer)(x, context)
    else:
        z, _ = interop.NormflowsFlow(layer).inverse(x, context=context)
    torch.testing.assert_close(z, layer(x)[0])


def test_pyro_finds_the_parameters_of_a_transform() -> None:
    pyro = pytest.importorskip("pyro")
    transform = interop.PyroTransform(it.EmergingConv2d(2), ndim=2)
    assert isinstance(transform, pyro.distributions.TransformModule)
    assert len(list(transform.parameters())) == 3
