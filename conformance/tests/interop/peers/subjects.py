"""A drop-in of each library, with an operator in float64, to be asked."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import invconv as ic
from tests.interop.peers.checks import EVENT, Subject
from tests.interop.peers.jax_flows import JAX
from tests.interop.peers.torch_flows import TORCH

LIBRARIES = (*TORCH, *JAX)


def subject(library: str, conv: ic.InvertibleConv) -> Subject:
    """Return the drop-in of a library for an operator of NumPy arrays."""
    return _of_torch(library, conv) if library in TORCH else _of_jax(library, conv)


@contextmanager
def float64() -> Iterator[None]:
    """Have both libraries make float64 arrays inside this context, from the same seeds."""
    import jax
    import torch

    before, wide = torch.get_default_dtype(), jax.config.jax_enable_x64
    torch.set_default_dtype(torch.float64)
    jax.config.update("jax_enable_x64", True)
    try:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            yield
    finally:
        torch.set_default_dtype(before)
        jax.config.update("jax_enable_x64", wide)


def _of_torch(library: str, conv: ic.InvertibleConv) -> Subject:
    import torch

    import invconv_torch

    flow = TORCH[library](invconv_torch.InvertibleModule(conv), EVENT)
    return Subject(
        flow,
        lambda batch: torch.randn(*batch, *EVENT),
        torch.autograd.functional.jacobian,
        (4,),
    )


def _of_jax(library: str, conv: ic.InvertibleConv) -> Subject:
    import jax
    from jax import numpy as jnp

    keys = (jax.random.key(seed) for seed in itertools.count())
    flow = JAX[library](conv.asarrays(jnp.zeros(1)), EVENT)
    quick = flow._replace(
        log_prob=jax.jit(flow.log_prob),
        to_latent=jax.jit(flow.to_latent),
        to_data=jax.jit(flow.to_data),
    )

    def jacobian(function: Any, z: Any) -> Any:
        return jax.jit(jax.jacobian(function))(z)

    normal = lambda batch: jax.random.normal(next(keys), (*batch, *EVENT))  # noqa: E731
    return Subject(quick, normal, jacobian, (2, 3))
