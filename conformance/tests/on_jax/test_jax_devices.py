"""JAX on devices that are not here: virtual CPUs, and programs lowered for CUDA."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import jax
import pytest
from jax import export
from jax import numpy as jnp

from invconv.operators.base.register import own_operators
from tests.programs import python
from tests.selected import COMPILED, of_each_class

SHARDINGS = Path(__file__).with_name("jax_shardings.py")
FOUR_DEVICES = {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": "--xla_force_host_platform_device_count=4"}

ALONE = [*(cls.__name__ for cls in own_operators() if hasattr(cls, "init")), "dilated"]


@pytest.mark.parametrize(
    "arguments",
    [
        ["some"],
        ["some", "explicit"],
        *(pytest.param([name], marks=pytest.mark.slow) for name in ALONE),
        *(pytest.param([name, "explicit"], marks=pytest.mark.slow) for name in ALONE),
    ],
    ids=" ".join,
)
def test_images_split_along_any_axes_give_the_same(arguments: list[str]) -> None:
    """Values and gradients of both directions; the program is beside this."""
    assert python(SHARDINGS, *arguments, **FOUR_DEVICES).stdout == "the same\n"


def lower_for_cuda(function: Any, *arguments: Any) -> str:
    """Lower for a GPU; raises where the program calls anything but CUDA's libraries."""
    exported = export.export(jax.jit(function), platforms=["cuda"])(*arguments)
    text: str = exported.mlir_module()
    called = set(re.findall(r"custom_call @(\w+)", text))
    strangers = sorted(name for name in called if not name.startswith("cu"))
    assert not strangers, f"the program for CUDA calls {strangers}"
    return text


def value_and_gradients(conv: Any, x: Any) -> Any:
    def loss(conv: Any, x: Any) -> Any:
        y, log_det = conv.forward_and_log_det(x)
        z, inverse_log_det = conv.inverse_and_log_det(x)
        return (y * y + z * z).sum() + log_det.sum() - 2 * inverse_log_det.sum()

    return jax.value_and_grad(loss, argnums=(0, 1), allow_int=True)(conv, x)


@pytest.mark.parametrize("case", of_each_class(*COMPILED, "periodic-3d"))
def test_every_operator_is_lowered_for_cuda(case: Any) -> None:
    """Values, log-determinants and gradients of both directions, in one program."""
    x = jnp.asarray(case.images(1)[0], "float32")
    conv = case.conv().asarrays(x)
    assert "stablehlo" in lower_for_cuda(value_and_gradients, conv, x)


def test_the_core_imports_the_adapter_when_it_sees_a_jax_array() -> None:
    program = (
        "import sys, invconv, numpy as np, jax\n"
        "x = jax.numpy.ones((1, 2, 4, 4))\n"
        "conv = invconv.EmergingConv.init(2, rng=np.random.default_rng(0), like=x)\n"
        "conv.forward(x)\n"
        "print(len(jax.tree.leaves(conv)), 'invconv_jax' in sys.modules)\n"
    )
    assert python("-c", program, JAX_PLATFORMS="cpu").stdout == "2 True\n"
