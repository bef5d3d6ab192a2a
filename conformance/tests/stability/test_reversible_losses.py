"""Reversible chains whose inverse is lost after they were judged: no gradient, or a right one.

The law "isolation.gradients" has an image that is lost beside a large one.
"""

from __future__ import annotations

import math
from typing import Any

import jax
import numpy as np
import pytest
import torch
from jax import numpy as jnp

import invconv as ic
import invconv_jax as ij
import invconv_torch as it

jax.config.update("jax_enable_x64", True)


def before_and_after_training(how: str) -> tuple[list[Any], list[Any], Any]:
    """Return steps, the same after training, where float32 loses their inverse, and images."""
    step = ic.AutoregressiveConv(np.asarray([[[1.0, 0.0]]]))
    images = np.random.default_rng(0).standard_normal((2, 1, 12))
    if how == "beside a large pixel, by all steps together":
        images[..., -1] = 1e6
        return [step] * 4, [step.replace(kernel=np.asarray([[[1.0, -2.5]]]))] * 4, images
    images = np.repeat(images, 2, axis=1)
    if how == "of a channel beside one that was large":
        images = images[..., :8] * [[1e6], [1.0]]
        two = ic.AutoregressiveConv(np.eye(2)[:, :, None] * [1.0, 0.0])
        kernel = np.stack([np.eye(2), np.diag([0.0, -20.0])], axis=-1)
        scale = ic.ActNorm(np.zeros(2), np.zeros(2))
        fitted = scale.replace(log_scale=np.asarray([-math.log(1e6), 0.0]))
        return [scale, two], [fitted, two.replace(kernel=kernel)], images
    turned = np.asarray([[0.8, -0.6], [0.6, 0.8]])  # by a gain, which makes the output large
    matrix = turned @ np.diag([3e6, 1.0]) @ turned.T
    return [ic.Conv1x1(np.eye(2))], [ic.Conv1x1(matrix)], images


def recomputed(library: str, steps: list[Any], trained: list[Any], x: Any, bar: Any) -> list[Any]:
    """Return the gradients, by weights and images, of a chain that was judged before it trained."""
    if library == "torch":
        like = torch.empty(0)
        image, z_bar = (torch.as_tensor(a, dtype=torch.float32) for a in (x, bar))
        chain = it.ReversibleChain([it.InvertibleModule(s.asarrays(like)) for s in steps])
        chain(image)
        for layer, step in zip(chain, trained, strict=True):
            layer.load_state_dict(it.InvertibleModule(step.asarrays(like)).state_dict())
        image.requires_grad_()
        return list(torch.autograd.grad(chain(image)[0], [*chain.parameters(), image], z_bar))
    like = jnp.empty(0, "float32")
    flow = ij.reversible(ic.Chain(steps).asarrays(like), x.shape[2:])
    flow = type(flow)(ic.Chain(trained).asarrays(like), flow.spatial_shape)
    image, z_bar = jnp.asarray(x, "float32"), jnp.asarray(bar, "float32")

    def loss(flow: Any, x: Any) -> Any:
        return (z_bar * flow.forward_and_log_det(x)[0]).sum()

    run = jax.grad(loss, (0, 1))
    gradients, x_bar = (jax.jit(run) if library == "jit" else run)(flow, image)
    return [*gradients.chain.parameters().values(), x_bar]


@pytest.mark.parametrize("library", ["torch", "jax", "jit"])
@pytest.mark.parametrize(
    "how",
    [
        "beside a large pixel, by all steps together",
        "of a channel beside one that was large",
        "by a gain",
    ],
)
def test_an_inverse_that_training_loses_gives_no_gradient(library: str, how: str) -> None:
    steps, trained, images = before_and_after_training(how)
    if library == "torch":
        with pytest.raises(RuntimeError, match="so the gradient would be wrong"):
            recomputed(library, steps, trained, images, np.ones_like(images))
    else:
        *found, _ = recomputed(library, steps, trained, images, np.ones_like(images))
        assert all(jnp.isnan(g).all() for g in found)
