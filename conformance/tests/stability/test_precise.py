"""Inverses with float64 inside: plans, settings, gradients; the law "precision" has values."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import invconv as ic
from tests.programs import python

RNG = np.random.default_rng(0)
CONV: Any = ic.AutoregressiveConv.init(4, rng=RNG, like=np.empty(0, np.float32))


def test_the_plan_says_float64_where_that_is_wider() -> None:
    assert CONV.prepare((4, 5), precision="float64").plan.precision == "float64"
    wide = CONV.asarrays(np.empty(0))
    assert wide.prepare((4, 5), precision="float64").plan.precision is None
    for setting in ("auto", "float32"):
        with pytest.raises(ValueError, match=f"precision: expected 'float64', got '{setting}'"):
            CONV.prepare((4, 5), precision=setting)


def test_gradients_pass_through() -> None:
    y, gradients = RNG.standard_normal((2, 4, 6, 7)).astype(np.float32), []
    for dtype in (torch.float32, torch.float64):
        there = CONV.asarrays(torch.empty(0, dtype=dtype))
        kernel = there.kernel.clone().requires_grad_()
        data = torch.as_tensor(y, dtype=dtype).requires_grad_()
        prepared = there.replace(kernel=kernel).prepare((6, 7), precision="float64")
        prepared.inverse(data).square().sum().backward()
        gradients.append((data.grad, kernel.grad))
    for single, double in zip(*gradients, strict=True):
        torch.testing.assert_close(single.double(), double, rtol=1e-5, atol=1e-5)


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
    assert python("-c", code).stdout == "refused\n"
