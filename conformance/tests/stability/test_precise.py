"""Inverses with float64 inside, against extended precision."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import jax
import numpy as np
import pytest
import torch

import invconv as ic
from invconv_conformance.truth.substitution import substitute

jax.config.update("jax_enable_x64", True)

GRID = (24, 24)


def hard() -> tuple[ic.AutoregressiveConv, Any, Any]:
    """Return a convolution, a y that float32 holds exactly, and the solution."""
    rng = np.random.default_rng(0)
    kernel = (0.25 * rng.standard_normal((4, 4, 2, 2))).astype(np.float32).astype(np.float64)
    kernel[:, :, 0, 0] = np.tril(kernel[:, :, 0, 0], -1) + np.diag([1.0, 0.5, 1.0, 4.0])
    conv = ic.AutoregressiveConv(kernel.astype(np.float32))
    y = rng.standard_normal((4, *GRID)).astype(np.float32)
    host = conv.asarrays(np.empty(0))
    return conv, y, substitute(host, y.astype(np.float64))


def test_the_plan_says_float64_where_that_is_wider() -> None:
    conv, _, _ = hard()
    assert conv.prepare(GRID, precision="float64").plan["precision"] == "float64"
    wide = conv.asarrays(np.empty(0))
    assert "precision" not in wide.prepare(GRID, precision="float64").plan


def test_gradients_pass_through() -> None:
    conv, y, _ = hard()
    wide = conv.asarrays(torch.empty(0, dtype=torch.float64))
    results = []
    for there, settings in (
        (conv.asarrays(torch.empty(0)), {"precision": "float64"}),
        (wide, {}),
    ):
        weights = {n: p.clone().requires_grad_() for n, p in there.parameters().items()}
        data = torch.as_tensor(y, dtype=there.kernel.dtype).requires_grad_()
        x = there.replace(**weights).prepare(GRID, check=False, **settings).inverse(data)
        (x / x.detach().abs().max()).square().sum().backward()
        results.append((data.grad.double(), weights["kernel"].grad.double()))
    for got, expected in zip(*results, strict=True):
        assert (got - expected).norm() < 1e-4 * expected.norm()


@pytest.mark.parametrize("precision", ["auto", "float32"])
def test_what_is_no_setting_is_refused(precision: str) -> None:
    conv, _, _ = hard()
    with pytest.raises(ValueError, match=f"precision: expected 'float64', got '{precision}'"):
        conv.prepare(GRID, precision=precision)


def test_jax_without_float64_says_so() -> None:
    code = """if True:
        import jax, invconv, invconv_jax
        conv = invconv_jax.init(jax.random.key(0), invconv.EmergingConv, 2)
        try:
            conv.prepare((4, 4), precision="float64")
        except ValueError as error:
            assert "jax_enable_x64" in str(error)
            print("refused")
    """
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "refused\n"
