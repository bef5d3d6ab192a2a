"""JAX on devices that are not here: eight virtual CPUs, and programs lowered for CUDA."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from jax import export
from jax import numpy as jnp

import invconv as ic
import invconv_jax
from invconv.operators.base.register import own_operators
from invconv_jax import primitives
from tests.selected import of_each_class

HERE = Path(__file__).parent

NAMES = (
    "actnorm-2d",
    "conv1x1-2d",
    "pluconv1x1-2d",
    "qrconv1x1-2d",
    "corner-4d-++-",
    "raster-k2x3-dilated",
    "emerging-biases",
    "periodic-3d",
    "symmetric-2d",
    "exponential-zeros-2d",
    "chain-inverses",
)


def run(*argv: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *argv],
        capture_output=True,
        text=True,
        timeout=900,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)} | environment,
    )


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["automatic", "explicit"])
def test_a_batch_on_eight_devices_is_not_gathered(mode: str) -> None:
    """All values and gradients, checked in the compiled programs; the program is beside this."""
    if mode == "explicit" and not hasattr(jax, "set_mesh"):
        pytest.skip(f"JAX {jax.__version__} has no explicit sharding")
    done = run(str(HERE / "jax_on_eight_devices.py"), mode)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout == "no gather\n"


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
    done = run(str(HERE / "jax_shardings.py"), *arguments)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout == "the same\n"


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


@pytest.mark.parametrize("case", of_each_class(*NAMES))
def test_every_operator_is_lowered_for_cuda(case: Any) -> None:
    """Values, log-determinants and gradients of both directions, in one program."""
    x = jnp.asarray(case.images(1)[0], "float32")
    conv = case.conv().asarrays(x)
    assert "stablehlo" in lower_for_cuda(value_and_gradients, conv, x)


def on_the_host(matrix: Any, rhs: Any, *, lower: bool) -> Any:
    kind = jax.ShapeDtypeStruct(rhs.shape, rhs.dtype)
    return jax.pure_callback(np.linalg.solve, kind, matrix, rhs)


def by_lapack(matrix: Any, rhs: Any, *, lower: bool) -> Any:
    kind = jax.ShapeDtypeStruct(matrix.shape, matrix.dtype)
    return jax.ffi.ffi_call("lapack_strtri_ffi", kind)(matrix) @ rhs


@pytest.mark.parametrize("planted", [on_the_host, by_lapack])
def test_a_planted_fault_is_seen_when_lowering_for_cuda(
    planted: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A primitive that calls the host, or a library that is there on a CPU only."""
    x = jnp.ones((1, 2, 3), "float32")
    conv = ic.PLUConv1x1.init(2, rng=np.random.default_rng(0), like=x)
    lower_for_cuda(conv.inverse, x)
    monkeypatch.setattr(primitives, "triangular_solve", planted)
    with pytest.raises((AssertionError, ValueError), match=r"lapack|platform"):
        lower_for_cuda(conv.replace().inverse, x)  # a copy: what was traced is remembered


def test_without_jax_the_import_says_what_to_install() -> None:
    program = "import sys; sys.modules['jax'] = None; import invconv_jax"
    done = run("-c", program)
    assert done.returncode != 0
    assert "pip install 'invconv[jax]'" in done.stderr


def test_the_core_imports_the_adapter_when_it_sees_a_jax_array() -> None:
    program = (
        "import sys, invconv, numpy as np, jax\n"
        "x = jax.numpy.ones((1, 2, 4, 4))\n"
        "conv = invconv.EmergingConv.init(2, rng=np.random.default_rng(0), like=x)\n"
        "conv.forward(x)\n"
        "print(len(jax.tree.leaves(conv)), 'invconv_jax' in sys.modules)\n"
    )
    done = run("-c", program, JAX_PLATFORMS="cpu")
    assert done.stdout == "2 True\n", done.stderr[-2000:]


def test_all_public_names_are_there() -> None:
    for name in invconv_jax.__all__:
        assert getattr(invconv_jax, name).__doc__
