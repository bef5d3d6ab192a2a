"""Singular operators where values are traced or mapped: nothing finite, and no exception."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
import pytest
import torch
from jax import numpy as jnp

import invconv as ic
from invconv.arrays.namespaces import to_numpy

jax.config.update("jax_enable_x64", True)


def test_the_condition_is_not_looked_at_inside_jit() -> None:
    kernel = jnp.asarray([[[1.0, -30.0]]])
    jax.jit(ic.AutoregressiveConv(kernel).inverse)(jnp.ones((1, 1, 64)))
    with pytest.warns(ic.IllConditionedWarning):
        ic.AutoregressiveConv(kernel).inverse(jnp.ones((1, 1, 64)))


def test_asarrays_stays_differentiable_within_a_library() -> None:
    weight = torch.eye(2, requires_grad=True)
    conv = ic.Conv1x1(weight).asarrays(torch.zeros((), dtype=torch.float64))
    conv.log_det((3,)).backward()
    assert weight.grad is not None
    assert torch.equal(weight.grad, 3 * torch.eye(2))


SINGULAR = {
    "1x1": ic.Conv1x1(np.ones((2, 2))),
    "qr": ic.QRConv1x1(np.ones((1, 2)), np.eye(2), np.asarray([0.0, 1.0])),
    "corner": ic.AutoregressiveConv(np.zeros((2, 2, 2))),
    "periodic": ic.PeriodicConv(np.ones((2, 2, 3))),
    "symmetric": ic.SymmetricConv(np.ones((2, 2, 2))),
    "circulant": ic.CirculantConv1x1(np.ones(2), np.ones(2), np.ones(2)),
}


@pytest.mark.parametrize("name", SINGULAR)
def test_a_singular_operator_that_nobody_can_look_at_gives_no_finite_value(name: str) -> None:
    """Mapped by JAX and torch: not finite, and nothing is raised; the laws have jit and devices."""
    host = SINGULAR[name]
    y = np.ones((3, 1, 2, 5))
    parameters = {n: np.stack([p] * 3) for n, p in host.parameters().items()}
    for vmap, convert in (
        (lambda run: jax.jit(jax.vmap(run)), jnp.asarray),
        (torch.func.vmap, torch.as_tensor),
    ):
        there = host.asarrays(convert(y))

        def solve(values: dict[str, Any], y: Any, there: Any = there) -> Any:
            return there.replace(**values).inverse(y)

        got = vmap(solve)({n: convert(p) for n, p in parameters.items()}, convert(y))
        assert not np.isfinite(to_numpy(got)).any()


@pytest.mark.parametrize("name", SINGULAR)
def test_a_jitted_gradient_through_a_singular_operator_is_no_number(name: str) -> None:
    """Of a sum, whose own gradient knows nothing of it; but for entries that are not used."""
    y = jnp.ones((1, 2, 5))
    conv = SINGULAR[name].asarrays(y)

    def total(parameters: dict[str, Any], y: Any) -> Any:
        return conv.replace(**parameters).inverse(y).sum()

    gradients, y_bar = jax.jit(jax.grad(total, argnums=(0, 1)))(conv.parameters(), y)
    assert not np.isfinite(np.asarray(y_bar)).any()
    for gradient in map(np.asarray, gradients.values()):
        assert not np.isfinite(gradient).all()
        assert (gradient[np.isfinite(gradient)] == 0).all()
