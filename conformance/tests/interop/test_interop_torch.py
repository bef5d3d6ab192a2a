"""What PyTorch's flow libraries and torch.distributions ask of a layer; `test_peers` has values."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch.distributions import AffineTransform, ComposeTransform, Normal, TransformedDistribution

import invconv as ic
import invconv_torch as it
from invconv_torch import interop
from tests.interop.peers import TORCH as LIBRARIES
from tests.selected import installed

every_library = pytest.mark.parametrize("library", installed(LIBRARIES))


@pytest.fixture(autouse=True)
def in_float64() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


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


def test_freia_refuses_other_inputs() -> None:
    framework = pytest.importorskip("FrEIA.framework")
    layer = it.EmergingConv2d(4)
    with pytest.raises(ValueError, match=r"dims_in: expected one input .* with 2 spatial axes"):
        framework.SequenceINN(4).append(interop.FreiaModule, conv=layer)
    with pytest.raises(ValueError, match="dims_in: expected 4 channels"):
        framework.SequenceINN(3, 4, 4).append(interop.FreiaModule, conv=layer)
    given = {"cond": 0, "cond_shape": (2,), "conv": layer}
    with pytest.raises(ValueError, match="dims_c: expected no conditions"):
        framework.SequenceINN(4, 4, 4).append(interop.FreiaModule, **given)


def test_a_transform_keeps_the_rules_of_torch_distributions() -> None:
    transform = interop.TorchTransform(it.EmergingConv2d(2))
    assert transform.bijective
    assert transform.event_dim == transform.domain.event_dim == transform.codomain.event_dim == 3
    assert transform.inv.inv is transform
    assert transform == transform
    assert transform != interop.TorchTransform(transform.layer)
    assert len({transform, transform.inv.inv}) == 1
    assert ComposeTransform([transform, AffineTransform(0.0, 2.0)]).event_dim == 3
    assert transform.forward_shape((5, 2, 3, 3)) == (5, 2, 3, 3)
    assert "EmergingConv2d" in repr(transform)
    with pytest.raises(ValueError, match=r"expected shape \(\*batch, C, \*spatial\)"):
        transform(torch.zeros(3, 3))
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
    again = TransformedDistribution(flow.base_dist, [plain])
    torch.testing.assert_close(flow.log_prob(x), again.log_prob(x))


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
