"""The drop-ins in their libraries against dense matrices, and what PyTorch's ask of a layer."""

import copy
import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
import pytest
import torch
from jax import numpy as jnp
from torch.distributions import AffineTransform, ComposeTransform, Normal, TransformedDistribution

import invconv as ic
import invconv_torch as it
from invconv_conformance.cases.table import with_bias
from invconv_conformance.truth import oracle
from invconv_torch import interop
from invconv_torch.flows import AffineCoupling
from tests.interop.peers import JAX, TORCH, Flow
from tests.programs import python
from tests.selected import installed, slow

EVENT = (2, 3)
NORM = ic.ActNorm(np.asarray([0.5, -0.3]), np.ones(2), ndim=1)
MIXED = ic.PLUConv1x1, ic.AutoregressiveConv
OPERATORS: dict[str, Callable[[Any], ic.InvertibleConv]] = {
    "periodic": lambda rng: with_bias(ic.PeriodicConv.init(2, ndim=1, rng=rng), rng),
    "chain": lambda rng: ic.Chain([NORM, *(cls.init(2, ndim=1, rng=rng) for cls in MIXED)]),
}


@dataclass(frozen=True)
class Subject:
    """A flow of one operator, with the arrays of its library."""

    flow: Flow
    normal: Callable[[tuple[int, ...]], Any]  # of a batch shape: N(0, 1), shape (*batch, *EVENT)
    jacobian: Callable[[Callable[[Any], Any], Any], Any]  # the library's, of a function at an array
    batch: tuple[int, ...]  # the batch axes that the library's flow takes
    gradients: Callable[[Any], dict[str, Any]]  # of the sum of log_prob(x), by the parameters


@pytest.fixture(autouse=True)
def in_float64() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def in_torch(library: str, conv: ic.InvertibleConv) -> Subject:
    flow = TORCH[library](conv, EVENT)

    def gradients(x: Any) -> dict[str, Any]:
        flow.log_prob(x).sum().backward()
        return {n.rpartition("layer.")[2]: p.grad for n, p in flow.part.named_parameters()}

    jacobian = torch.autograd.functional.jacobian
    return Subject(flow, lambda batch: torch.randn(*batch, *EVENT), jacobian, (4,), gradients)


def in_jax(library: str, conv: ic.InvertibleConv) -> Subject:
    keys = (jax.random.key(seed) for seed in itertools.count())
    conv = conv.asarrays(jnp.zeros(1))
    flow = JAX[library](conv, EVENT)
    compiled = {what: jax.jit(getattr(flow, what)) for what in ("log_prob", "to_latent", "to_data")}

    def gradients(x: Any) -> dict[str, Any]:
        def density(parameters: dict[str, Any]) -> Any:
            return JAX[library](conv.replace(**parameters), EVENT).log_prob(x).sum()

        found: dict[str, Any] = jax.jit(jax.grad(density))(conv.parameters())
        return found

    return Subject(
        flow._replace(**compiled),
        lambda batch: jax.random.normal(next(keys), (*batch, *EVENT)),
        lambda function, z: jax.jit(jax.jacobian(function))(z),
        (2, 3),
        gradients,
    )


def host(array: Any) -> Any:
    return np.asarray(array.detach() if hasattr(array, "detach") else array)


def close(found: Any, expected: Any) -> None:
    np.testing.assert_allclose(host(found), host(expected), rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("library", installed((*TORCH, *JAX)))
@pytest.mark.parametrize("operator", ["chain", slow("periodic")])
def test_a_drop_in_keeps_its_librarys_rules_and_goes_our_way(operator: str, library: str) -> None:
    conv = OPERATORS[operator](np.random.default_rng(0))
    s = (in_torch if library in TORCH else in_jax)(library, conv)
    matrix, shift = oracle.affine(conv, EVENT[1:])
    x = s.normal(s.batch)
    latent, log_det = s.flow.to_latent(x)  # K x + b, whatever a library calls forward
    z, rows = host(latent), host(x).reshape(-1, len(matrix))
    close(z, (rows @ matrix.T + shift).reshape(x.shape))
    close(log_det, np.full(s.batch, np.linalg.slogdet(matrix)[1]))
    normal = -0.5 * (z**2 + math.log(2 * math.pi)).sum(tuple(range(len(s.batch), z.ndim)))
    close(s.flow.log_prob(x), host(log_det) + normal)
    back, inverse_log_det = s.flow.to_data(latent)
    close(back, x)
    close(inverse_log_det, -log_det)
    one = s.normal(tuple(1 for _ in s.batch))
    dense = s.jacobian(lambda z: s.flow.to_data(z)[0].reshape(len(matrix)), one)
    close(np.asarray(dense).reshape(matrix.shape), np.linalg.inv(matrix))
    gradients = s.gradients(x)
    for name, gradient in conv.forward_vjp(host(x), -z, np.ones(s.batch))[0].items():
        close(gradients[name], gradient)


FLOW_LIBRARIES = {*TORCH, *JAX} - {"torch"}


@pytest.mark.slow
def test_adapters_import_no_flow_library_and_no_compiler_and_name_what_is_missing() -> None:
    code = """
import sys
import invconv_torch.interop as of_torch
import invconv_jax.interop as of_jax
print(*sys.modules)
sys.modules |= dict.fromkeys(("nflows", "pyro", "distrax"))  # None: not to be imported
for name in sys.argv[1:]:
    try: getattr(of_torch if name in of_torch.__all__ else of_jax, name)
    except ImportError as error: print(error)
"""
    pips = {"NflowsTransform": "nflows", "PyroTransform": "pyro-ppl", "DistraxBijector": "distrax"}
    modules, *messages = python("-c", code, *pips).stdout.splitlines()
    late = {"equinox", "sympy", "tensorflow_probability", "torch._dynamo", "torch._inductor"}
    assert {"torch", "jax"} <= {*modules.split()}
    assert {*modules.split()} & (FLOW_LIBRARIES | late | {"llvmlite"}) == set()
    for message, (name, pip) in zip(messages, pips.items(), strict=True):
        assert message.startswith(f"{name} needs {pip}, which cannot be imported (")
        assert f"pip install {pip}, or 'invconv[interop]'" in message


every_library = pytest.mark.parametrize("library", installed(TORCH))


@every_library
def test_reversible_chains_and_bounded_layers(library: str) -> None:
    steps = [it.ActNorm(2), it.EmergingConv2d(2, max_gain=3.0)]
    x = torch.randn(3, 2, 4, 4)
    flow = TORCH[library](it.ReversibleChain(steps), (2, 4, 4))
    density = flow.log_prob(x)
    density.sum().backward()
    assert all(p.grad is not None for step in steps for p in step.parameters())
    chain = it.InvertibleModule(ic.Chain([step.operator() for step in steps]))
    torch.testing.assert_close(TORCH[library](chain, (2, 4, 4)).log_prob(x), density)


@every_library
def test_what_is_no_layer_is_refused(library: str) -> None:
    for wrong in (torch.nn.Linear(2, 2), np.eye(2)):
        with pytest.raises(TypeError, match="conv: expected a layer"):
            TORCH[library](wrong, (2, 4, 3))


CONTEXTS: dict[str, Callable[[Any, Any, Any], Any]] = {
    "nflows": lambda layer, x, context: interop.NflowsTransform(layer)(x, context)[0],
    "normflows": lambda layer, x, c: interop.NormflowsFlow(layer).inverse(x, context=c)[0],
    "zuko": lambda layer, x, context: interop.ZukoTransform(layer)(context)(x),
}


@pytest.mark.parametrize("library", installed(CONTEXTS))
def test_a_context_that_other_parts_have_is_taken_and_ignored(library: str) -> None:
    layer, x = it.EmergingConv2d(4), torch.randn(3, 4, 4, 4)
    z = CONTEXTS[library](layer, x, torch.zeros(3, 2))
    torch.testing.assert_close(z, layer(x)[0])


def test_pyro_finds_the_parameters_of_a_transform() -> None:
    pyro = pytest.importorskip("pyro")
    transform = interop.PyroTransform(it.EmergingConv2d(2), ndim=2)
    assert isinstance(transform, pyro.distributions.TransformModule)
    assert len(list(transform.parameters())) == 3


def test_a_part_of_freia_may_edit_what_an_inverse_returns() -> None:
    """As HaarDownsampling does: the inverse's derivative needs its own result."""
    flow = pytest.importorskip("FrEIA.framework").SequenceINN(1, 4, 4)
    flow.append(pytest.importorskip("FrEIA.modules").HaarDownsampling)
    flow.append(interop.FreiaModule, conv=it.EmergingConv2d(4))
    flow(torch.randn(2, 4, 2, 2), rev=True)[0].sum().backward()


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
    flow = framework.SequenceINN(4, 4, 4)
    flow.append(interop.FreiaModule, conv=it.Chain([it.Squeeze(), it.EmergingConv2d(16)]))
    with pytest.raises(ValueError, match="conv: expected a layer that keeps the shape of a sample"):
        flow(torch.zeros(2, 4, 4, 4))


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
    torch.testing.assert_close(copy.deepcopy(cached)(z), x)
    flow = TransformedDistribution(Normal(torch.zeros(2, 4, 4), 1.0), [cached])
    x = flow.rsample((3,))
    again = TransformedDistribution(flow.base_dist, [plain])
    torch.testing.assert_close(flow.log_prob(x), again.log_prob(x))


def test_the_number_of_axes() -> None:
    open_ended = it.Conv1x1(3)
    vectors = interop.TorchTransform(open_ended, ndim=0).with_cache()
    assert vectors(torch.randn(4, 5, 3)).shape == (4, 5, 3)
    assert vectors(torch.randn(0, 3)).shape == (0, 3)
    chain = it.ReversibleChain([open_ended, it.PeriodicConv1d(3)])
    assert interop.TorchTransform(chain).event_dim == 2
    coupled = it.Chain([AffineCoupling(2, 4), it.PeriodicConv2d(2)])  # no operator
    x, log_det = coupled.inverse(z := torch.randn(3, 2, 4, 4))
    found = interop.TorchTransform(coupled).log_abs_det_jacobian(z, x)
    torch.testing.assert_close(found, log_det)
