"""The drop-ins in their libraries against dense matrices; the adapters import none unasked."""

import itertools
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
import pytest
import torch
from jax import numpy as jnp

import invconv as ic
from invconv_conformance.cases.case import with_bias
from invconv_conformance.truth import oracle
from tests.interop.peers import JAX, TORCH, Flow
from tests.programs import python
from tests.selected import installed

EVENT, RNG = (2, 3), np.random.default_rng(0)
NORM = ic.ActNorm(np.asarray([0.5, -0.3]), np.ones(2), ndim=1)
MIXED = ic.PLUConv1x1, ic.AutoregressiveConv
OPERATORS: dict[str, Callable[[], ic.InvertibleConv]] = {
    "periodic": lambda: with_bias(ic.PeriodicConv.init(2, ndim=1, rng=RNG), RNG),
    "chain": lambda: ic.Chain([NORM, *(cls.init(2, ndim=1, rng=RNG) for cls in MIXED)]),
}


@dataclass(frozen=True)
class Subject:
    """A flow of one operator, with the arrays of its library."""

    flow: Flow
    normal: Callable[[tuple[int, ...]], Any]  # of a batch shape: N(0, 1), shape (*batch, *EVENT)
    jacobian: Callable[[Callable[[Any], Any], Any], Any]  # the library's, of a function at an array
    batch: tuple[int, ...]  # the batch axes that the library's flow takes
    gradients: Callable[[Any], dict[str, Any]]  # of the sum of log_prob(x), by the parameters


@contextmanager
def float64() -> Iterator[None]:
    """Have both libraries make float64 arrays inside this context, from the same seeds."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        with torch.random.fork_rng(), jax.enable_x64(True):
            torch.manual_seed(0)
            yield
    finally:
        torch.set_default_dtype(before)


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
    """Raise AssertionError unless arrays of any library are the same to rounding."""
    np.testing.assert_allclose(host(found), host(expected), rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("library", installed((*TORCH, *JAX)))
@pytest.mark.parametrize("operator", OPERATORS)
def test_a_drop_in_keeps_its_librarys_rules_and_goes_our_way(operator: str, library: str) -> None:
    with float64():
        conv = OPERATORS[operator]()
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


def test_adapters_import_no_flow_library_and_no_compiler() -> None:
    code = "import sys, invconv_torch.interop, invconv_jax.interop; print(*sys.modules)"
    loaded = set(python("-c", code).stdout.split())
    assert {"torch", "jax"} <= loaded
    late = {"equinox", "sympy", "tensorflow_probability", "torch._dynamo", "torch._inductor"}
    assert loaded & (FLOW_LIBRARIES | late | {"llvmlite"}) == set()


def test_a_missing_library_is_named() -> None:
    code = """
import sys
sys.modules |= dict.fromkeys(("nflows", "pyro", "distrax"))  # None: not to be imported
import invconv_torch.interop as of_torch
import invconv_jax.interop as of_jax
for name in sys.argv[1:]:
    try: getattr(of_torch if name in of_torch.__all__ else of_jax, name)
    except ImportError as error: print(error)
"""
    pips = {"NflowsTransform": "nflows", "PyroTransform": "pyro-ppl", "DistraxBijector": "distrax"}
    messages = python("-c", code, *pips).stdout.splitlines()
    for message, (name, pip) in zip(messages, pips.items(), strict=True):
        assert message.startswith(f"{name} needs {pip}, which cannot be imported (")
        assert f"pip install {pip}, or 'invconv[interop]'" in message
