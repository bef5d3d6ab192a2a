"""The drop-ins in their libraries, in float64, against dense matrices and automatic Jacobians."""

from __future__ import annotations

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
import invconv_torch
from invconv_conformance.truth import oracle
from tests.interop.peers.flow import Flow
from tests.interop.peers.jax_flows import JAX
from tests.interop.peers.torch_flows import TORCH
from tests.selected import installed

EVENT = (2, 3)
OPERATORS: dict[str, Callable[[], ic.InvertibleConv]] = {
    "periodic": lambda: ic.PeriodicConv.init(2, ndim=1, rng=np.random.default_rng(1)).replace(
        bias=np.ones(2)
    ),
    "chain": lambda: ic.Chain(
        [
            ic.ActNorm(np.asarray([0.5, -0.3]), np.ones(2), ndim=1),
            ic.PLUConv1x1.init(2, ndim=1, rng=np.random.default_rng(3)),
            ic.AutoregressiveConv.init(2, 2, 1, rng=np.random.default_rng(4)),
        ]
    ),
}


@dataclass(frozen=True)
class Subject:
    """A flow of one operator, with the arrays of its library.

    Attributes
    ----------
    flow : Flow
    normal : callable
        Of a batch shape: N(0, 1), shape (*batch, *EVENT).
    jacobian : callable
        The library's: of a function of an array, at one.
    batch : tuple of int
        The batch axes that every library's flow takes.
    """

    flow: Flow
    normal: Callable[[tuple[int, ...]], Any]
    jacobian: Callable[[Callable[[Any], Any], Any], Any]
    batch: tuple[int, ...]


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


def subject(library: str, conv: ic.InvertibleConv) -> Subject:
    """Return the drop-in of a library for an operator of NumPy arrays."""
    if library in TORCH:
        flow = TORCH[library](invconv_torch.InvertibleModule(conv), EVENT)
        jacobian = torch.autograd.functional.jacobian
        return Subject(flow, lambda batch: torch.randn(*batch, *EVENT), jacobian, (4,))
    keys = (jax.random.key(seed) for seed in itertools.count())
    flow = JAX[library](conv.asarrays(jnp.zeros(1)), EVENT)
    return Subject(
        flow._replace(
            log_prob=jax.jit(flow.log_prob),
            to_latent=jax.jit(flow.to_latent),
            to_data=jax.jit(flow.to_data),
        ),
        lambda batch: jax.random.normal(next(keys), (*batch, *EVENT)),
        lambda function, z: jax.jit(jax.jacobian(function))(z),
        (2, 3),
    )


def close(found: Any, expected: Any) -> None:
    """Raise AssertionError unless arrays of any library are the same to rounding."""
    one, other = (np.asarray(a.detach() if hasattr(a, "detach") else a) for a in (found, expected))
    np.testing.assert_allclose(one, other, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("library", installed((*TORCH, *JAX)))
@pytest.mark.parametrize("operator", OPERATORS)
def test_a_drop_in_keeps_its_librarys_rules_and_goes_our_way(operator: str, library: str) -> None:
    with float64():
        conv = OPERATORS[operator]()
        s = subject(library, conv)
        matrix, shift = oracle.affine(conv, EVENT[1:])
        x = s.normal(s.batch)
        z, log_det = s.flow.to_latent(x)  # K x + b, whatever a library calls forward
        rows = np.asarray(x).reshape(-1, len(matrix))
        close(z, (rows @ matrix.T + shift).reshape(x.shape))
        close(log_det, np.full(s.batch, np.linalg.slogdet(matrix)[1]))
        axes = tuple(range(len(s.batch), z.ndim))
        close(s.flow.log_prob(x), log_det - 0.5 * (z**2 + math.log(2 * math.pi)).sum(axes))
        back, inverse_log_det = s.flow.to_data(z)
        close(back, x)
        close(inverse_log_det, -log_det)
        one = s.normal(tuple(1 for _ in s.batch))
        dense = s.jacobian(lambda z: s.flow.to_data(z)[0].reshape(len(matrix)), one)
        close(np.asarray(dense).reshape(matrix.shape), np.linalg.inv(matrix))
