"""JAX's native primitives: derivatives, vectorisation and cost."""

from __future__ import annotations

import re
from typing import Any

import jax
import jax.export
import numpy as np
import pytest
from jax import numpy as jnp
from jax.test_util import check_grads

import invconv as ic
import invconv_jax  # noqa: F401 - makes operators pytrees
from invconv_conformance.cases import CASES
from invconv_conformance.truth import oracle
from tests.selected import of_each_class

jax.config.update("jax_enable_x64", True)
pytestmark = pytest.mark.usefixtures("quick_compilation")

Floats = np.ndarray[Any, Any]

NAMES = (
    "corner-2d+-",
    "corner-3d-dilated",
    "corner-ill-conditioned-at-the-pixel",
    "raster-k2x3-dilated",
    "periodic-even-dilated",
    "periodic-4d",
    "conv1x1-batch-axes",
    "chain-inverses",
)
some_cases = pytest.mark.parametrize("case", of_each_class(*NAMES))


def dense_inverse(case: Any) -> tuple[Floats, Floats]:
    """Return K^-1 and the solution K^-1 (y - b) for y = 0."""
    matrix, shift = oracle.affine(case.conv(), case.spatial_shape)
    inverse = np.linalg.inv(matrix)
    return inverse, -inverse @ shift


@some_cases
def test_jacobians_of_the_inverse_are_the_dense_inverse(case: Any) -> None:
    inverse, shift = dense_inverse(case)
    y = jnp.asarray(case.images(1)[0])
    sample = y.shape[len(case.batch_shape) :]
    conv = case.conv().asarrays(y)

    def solve(row: Any) -> Any:
        one = row.reshape((*(1 for _ in case.batch_shape), *sample))
        return conv.inverse(one).reshape(-1)

    row = y.reshape(-1, inverse.shape[0])[0]
    tolerance = 1e-11 * max(1.0, float(np.linalg.cond(inverse)))
    found = jax.jit(lambda row: (solve(row), jax.jacfwd(solve)(row), jax.jacrev(solve)(row)))(row)
    for got, wanted in zip(found, (inverse @ row + shift, inverse, inverse), strict=True):
        np.testing.assert_allclose(got, wanted, rtol=0, atol=tolerance)


@some_cases
def test_gradients_of_the_inverse_are_the_cores_own(case: Any) -> None:
    y, bar = case.images(2)
    conv = case.conv().asarrays(jnp.asarray(y))

    @jax.jit  # type: ignore[untyped-decorator]
    def pull(parameters: dict[str, Any], y: Any) -> Any:
        return jax.vjp(lambda p, y: conv.replace(**p).inverse(y), parameters, y)[1](bar)

    gradients, y_bar = pull(conv.parameters(), jnp.asarray(y))
    expected, expected_y_bar = case.conv().inverse_vjp(y, bar)
    scale = max(1.0, case.conv().condition(case.spatial_shape)) ** 2
    for name, wanted in (expected | {"y": expected_y_bar}).items():
        got = y_bar if name == "y" else gradients[name]
        tolerance = 1e-12 * scale * max(1.0, np.abs(wanted).max())
        np.testing.assert_allclose(got, wanted, rtol=0, atol=tolerance)


@pytest.mark.parametrize("name", ["corner-2d+-", "periodic-1d", "symmetric-1d"])
def test_second_derivatives_agree_with_finite_differences(name: str) -> None:
    case = next(case for case in CASES if case.name == name)
    y = jnp.asarray(case.images(1)[0])
    conv = case.conv().asarrays(y)

    @jax.jit  # type: ignore[untyped-decorator]
    def loss(kernel: Any, y: Any) -> Any:
        return jnp.tanh(conv.replace(kernel=kernel).inverse(y)).sum()

    check_grads(
        loss, (conv.parameters()["kernel"], y), order=2, modes=("rev",), atol=1e-4, rtol=1e-4
    )


@pytest.mark.parametrize("cls", [ic.EmergingConv, ic.PeriodicConv, ic.QRConv1x1])
def test_products_on_images_are_asked_for_at_full_precision(cls: Any) -> None:
    """Else an accelerator computes them in TensorFloat-32 or bfloat16."""
    conv = cls.init(4, rng=np.random.default_rng(0), like=jnp.zeros((), "float32"))
    x = jax.ShapeDtypeStruct((2, 4, 6, 6), "float32")
    for function in (conv.forward, conv.inverse):
        text = jax.export.export(jax.jit(function), platforms=["cuda"])(x).mlir_module()
        products = re.findall(r"stablehlo\.(?:dot_general|convolution).*", text)
        assert products
        assert all("HIGHEST" in product for product in products), products


def test_the_program_does_not_grow_with_the_image() -> None:
    conv = ic.EmergingConv.init(3, kernel_size=5, rng=np.random.default_rng(0), like=jnp.zeros(()))
    sizes = []
    for n in (8, 128):
        text = jax.jit(conv.inverse).lower(jax.ShapeDtypeStruct((2, 3, n, n), float)).as_text()
        sizes.append(len(text.splitlines()))
    assert sizes[0] == sizes[1] < 2000


def test_the_gradient_of_an_inverse_stores_one_image() -> None:
    """What the forward pass of x = K^-1 y keeps is x and things of the kernel's size."""
    x = jnp.zeros((16, 3, 32, 32))
    conv = ic.AutoregressiveConv.init(3, rng=np.random.default_rng(0), like=x)

    def kept(y: Any, kernel: Any) -> Any:
        return jax.vjp(lambda k, y: conv.replace(kernel=k).inverse(y), kernel, y)[1]

    residuals = jax.tree.leaves(jax.eval_shape(kept, x, conv.kernel))
    images = [r for r in residuals if np.prod(r.shape) >= x.size]
    assert len(images) == 1
    assert sum(int(np.prod(r.shape)) for r in residuals) < 1.05 * x.size


@pytest.mark.parametrize("mask", ["corner", "raster"])
def test_an_inverse_is_exported_for_any_batch(mask: str) -> None:
    conv = ic.AutoregressiveConv.init(3, mask=mask, rng=np.random.default_rng(0))
    conv = conv.asarrays(jnp.zeros(0))
    (batch,) = jax.export.symbolic_shape("b")
    shape = jax.ShapeDtypeStruct((batch, 3, 4, 5), jnp.zeros(0).dtype)
    exported = jax.export.export(jax.jit(conv.inverse))(shape)
    for count in (1, 3):
        y = jnp.asarray(np.random.default_rng(count).standard_normal((count, 3, 4, 5)))
        np.testing.assert_allclose(exported.call(y), conv.inverse(y), rtol=1e-12)
