"""Maximum-likelihood training on real tiles: NumPy through the vjps, torch and JAX by autodiff."""

from __future__ import annotations

import itertools
import math
from typing import Any

import jax
import numpy as np
import pytest
import torch
from jax import numpy as jnp
from skimage.data import hubble_deep_field

import invconv as ic

jax.config.update("jax_enable_x64", True)

STEPS, RATE = 12, 0.05


def tiles() -> np.ndarray[Any, Any]:
    """Return 24 real tiles of 16 x 16, dequantised, squeezed to 12 x 8 x 8."""
    image = hubble_deep_field()[256:320, 256:352].astype(np.float64)
    image = (image + np.random.default_rng(0).random(image.shape)) / 256 - 0.5
    cut = image.reshape(4, 16, 6, 16, 3).transpose(0, 2, 4, 1, 3).reshape(24, 3, 16, 16)
    return ic.squeeze(cut)  # type: ignore[no-any-return]


def chain(x: Any) -> ic.Chain:
    rng = np.random.default_rng(1)
    return ic.Chain(
        [
            ic.ActNorm.init(12),
            ic.QRConv1x1.init(12, rng=rng),
            ic.EmergingConv.init(12, rng=rng),
            ic.PeriodicConv.init(12, rng=rng),
        ]
    ).asarrays(x)


def loss(conv: ic.Chain, x: Any) -> Any:
    """Return the mean negative log-likelihood a dimension under a standard normal prior."""
    z, log_det = conv.forward_and_log_det(x)
    batch, dimensions = x.shape[0], math.prod(x.shape[1:])
    total = 0.5 * (z * z).sum() - log_det.sum()
    return (total / batch + 0.5 * math.log(2 * math.pi) * dimensions) / dimensions


def train_numpy(x: Any) -> tuple[list[float], dict[str, Any]]:
    conv = chain(x)
    losses = []
    count = x.shape[0] * math.prod(x.shape[1:])
    for _ in range(STEPS):
        losses.append(float(loss(conv, x)))
        z, log_det = conv.forward_and_log_det(x)
        gradients, _ = conv.forward_vjp(x, z / count, np.full_like(log_det, -1 / count))
        parameters = conv.parameters()
        conv = conv.replace(**{n: p - RATE * gradients[n] for n, p in parameters.items()})
    return [*losses, float(loss(conv, x))], conv.parameters()


@pytest.fixture(scope="module")
def trained() -> tuple[list[float], dict[str, Any]]:
    return train_numpy(tiles())


def test_numpy_training_lowers_the_loss(trained: tuple[list[float], dict[str, Any]]) -> None:
    losses, _ = trained
    assert losses[-1] < losses[0] - 0.2
    assert all(b < a for a, b in itertools.pairwise(losses))


def test_torch_takes_the_same_steps(trained: tuple[list[float], dict[str, Any]]) -> None:
    x = torch.as_tensor(tiles())
    conv = chain(x)
    for _ in range(STEPS):
        leaves = {n: p.detach().requires_grad_() for n, p in conv.parameters().items()}
        loss(conv.replace(**leaves), x).backward()
        conv = conv.replace(**{n: (p - RATE * p.grad).detach() for n, p in leaves.items()})
    for name, expected in trained[1].items():
        np.testing.assert_allclose(conv.parameters()[name].numpy(), expected, rtol=0, atol=1e-11)


@pytest.mark.slow
def test_jax_takes_the_same_steps(trained: tuple[list[float], dict[str, Any]]) -> None:
    x = jnp.asarray(tiles())
    conv = chain(x)
    gradient = jax.jit(jax.grad(lambda parameters: loss(conv.replace(**parameters), x)))
    parameters = conv.parameters()
    for _ in range(STEPS):
        steps = gradient(parameters)
        parameters = {n: p - RATE * steps[n] for n, p in parameters.items()}
    for name, expected in trained[1].items():
        np.testing.assert_allclose(np.asarray(parameters[name]), expected, rtol=0, atol=1e-11)
