"""With no adapter: torch and JAX differentiate, compile and vectorise the core as it is."""

from __future__ import annotations

import math
from typing import Any

import array_api_strict as strict
import jax
import numpy as np
import pytest
import torch
from jax import numpy as jnp

import invconv as ic
from invconv.arrays.namespaces import to_numpy
from invconv_conformance.cases.case import Case, perturbed
from tests.selected import cases_named, of_each_class

jax.config.update("jax_enable_x64", True)

NAMES = (
    "corner-2d+-",
    "corner-3d-dilated",
    "corner-ill-conditioned-at-the-pixel",
    "raster-k3",
    "raster-1d-1",
    "emerging-biases",
    "periodic-even-dilated",
    "periodic-3d",
    "conv1x1-2d",
    "pluconv1x1-2d",
    "qrconv1x1-2d",
    "qrconv1x1-m6",
    "actnorm-2d",
    "chain-flow-step",
    "chain-inverses",
)
EVERY = of_each_class(*NAMES)
some_cases = pytest.mark.parametrize("case", EVERY)
# a case of each family, which JAX compiles; with the others one sees its options again
FAMILIES = {
    *("corner-2d+-", "raster-k3", "emerging-biases", "periodic-even-dilated", "pluconv1x1-2d"),
    *("qrconv1x1-2d", "actnorm-2d", "chain-inverses"),
}
compiled_cases = pytest.mark.parametrize(
    "case",
    [
        pytest.param(*c.values, id=c.id, marks=[pytest.mark.slow] * (c.id not in FAMILIES))
        for c in EVERY
    ],
)


def cotangents(case: Case) -> tuple[Any, Any, Any]:
    x, bar = case.images(2)
    return (
        x,
        bar,
        np.linspace(-1.0, 2.0, max(1, math.prod(case.batch_shape))).reshape(case.batch_shape),
    )


def own_vjp(case: Case, direction: str) -> tuple[dict[str, Any], Any]:
    x, bar, log_det_bar = cotangents(case)
    gradients: tuple[dict[str, Any], Any] = getattr(case.conv(), f"{direction}_vjp")(
        x, bar, log_det_bar
    )
    return gradients


def assert_same(case: Case, got: dict[str, Any], got_x: Any, direction: str) -> None:
    gradients, x_bar = own_vjp(case, direction)
    scale = max(1.0, case.conv().condition(case.spatial_shape)) ** 2
    for name, expected in (gradients | {"x": x_bar}).items():
        value = to_numpy(got_x if name == "x" else got[name])
        np.testing.assert_allclose(
            value, expected, rtol=0, atol=1e-11 * scale * max(1.0, np.abs(expected).max())
        )


def jitted_vmap(run: Any) -> Any:
    """Compile one program: eagerly JAX would compile one an operation."""
    return jax.jit(jax.vmap(run))


@some_cases
@pytest.mark.parametrize("direction", ["forward", "inverse"])
def test_torch_autograd(case: Case, direction: str) -> None:
    x, bar, log_det_bar = (torch.as_tensor(a) for a in cotangents(case))
    conv = case.conv().asarrays(x)
    leaves = {n: p.clone().requires_grad_() for n, p in conv.parameters().items()}
    x = x.requires_grad_()
    value, log_det = getattr(conv.replace(**leaves), f"{direction}_and_log_det")(x)
    ((value * bar).sum() + (log_det * log_det_bar).sum()).backward()
    # autograd gives None where an array is not used, as the biases of a transpose
    found = {n: torch.zeros_like(p) if p.grad is None else p.grad for n, p in leaves.items()}
    assert_same(case, found, x.grad, direction)


@compiled_cases
@pytest.mark.parametrize("direction", ["forward", "inverse"])
def test_jax_jit_and_grad(case: Case, direction: str) -> None:
    x, bar, log_det_bar = (jnp.asarray(a) for a in cotangents(case))
    conv = case.conv().asarrays(x)

    def loss(parameters: dict[str, Any], x: Any) -> Any:
        value, log_det = getattr(conv.replace(**parameters), f"{direction}_and_log_det")(x)
        return (value * bar).sum() + (log_det * log_det_bar).sum()

    gradients, x_bar = jax.jit(jax.grad(loss, argnums=(0, 1)))(conv.parameters(), x)
    assert_same(case, gradients, x_bar, direction)


@compiled_cases
def test_vmap_over_data_and_over_parameters(case: Case) -> None:
    host = case.conv()
    parameters = host.parameters()
    copies = {n: np.stack([p, 0.9 * p, 1.1 * p]) for n, p in parameters.items()}
    images = np.stack(case.images(3))
    expected = [
        host.replace(**{n: p[i] for n, p in copies.items()})
        .prepare(case.spatial_shape, check=False)
        .inverse(images[i])
        for i in range(3)
    ]
    for vmap, convert in ((jitted_vmap, jnp.asarray), (torch.func.vmap, torch.as_tensor)):
        conv = host.asarrays(convert(images))

        def solve(parameters: dict[str, Any], x: Any, conv: Any = conv) -> Any:
            return conv.replace(**parameters).inverse(x)

        stacked = {n: convert(p) for n, p in copies.items()}
        got = vmap(solve)(stacked, convert(images))
        scale = max(float(np.abs(e).max()) for e in expected)
        np.testing.assert_allclose(to_numpy(got), np.stack(expected), rtol=1e-9, atol=1e-9 * scale)
        over_data = vmap(conv.forward)(convert(images))
        wanted = np.stack([host.forward(x) for x in images])
        np.testing.assert_allclose(to_numpy(over_data), wanted, rtol=1e-11, atol=1e-11)


def test_a_singular_operator_inside_jit_gives_no_finite_value() -> None:
    kernel = jnp.zeros((1, 1, 2, 2)).at[0, 0, 0, 1].set(1.0)
    conv = ic.AutoregressiveConv(kernel)
    x, log_det = jax.jit(conv.inverse_and_log_det)(jnp.ones((1, 1, 3, 3)))
    assert not np.isfinite(np.asarray(x)).all()
    assert float(log_det[0]) == math.inf


def test_the_condition_is_not_looked_at_inside_jit() -> None:
    kernel = jnp.asarray([[[1.0, -30.0]]])
    jax.jit(ic.AutoregressiveConv(kernel).inverse)(jnp.ones((1, 1, 64)))
    with pytest.warns(ic.IllConditionedWarning):
        ic.AutoregressiveConv(kernel).inverse(jnp.ones((1, 1, 64)))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_is_solved_in_float32(dtype: str) -> None:
    """The result is that of float32 arithmetic, rounded once at the end."""
    rng = np.random.default_rng(0)
    host = perturbed(ic.EmergingConv.init(3, rng=rng), rng, 0.05)
    half = getattr(torch, dtype)
    conv = host.asarrays(torch.zeros((), dtype=half))
    single = conv.asarrays(torch.zeros((), dtype=torch.float32))
    y = torch.as_tensor(rng.standard_normal((2, 3, 6, 5))).to(half)
    x, log_det = conv.inverse_and_log_det(y)
    expected, expected_log_det = single.inverse_and_log_det(y.float())
    assert x.dtype == half
    assert log_det.dtype == torch.float32
    assert torch.equal(x, expected.to(half))
    assert torch.equal(log_det, expected_log_det)
    gradients, y_bar = conv.inverse_vjp(y, y, log_det)
    assert {g.dtype for g in gradients.values()} == {half} == {y_bar.dtype}


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_torch_memory_formats(layout: Any) -> None:
    rng = np.random.default_rng(0)
    x = torch.as_tensor(rng.standard_normal((2, 3, 6, 5)))
    conv = ic.EmergingConv.init(3, rng=rng, like=x)
    y = conv.forward(x.to(memory_format=layout))
    torch.testing.assert_close(y, conv.forward(x), rtol=1e-14, atol=1e-14)
    torch.testing.assert_close(conv.inverse(y.to(memory_format=layout)), x, rtol=1e-12, atol=1e-12)


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
    """Traced by jit, by torch's vmap, and on a device: not finite, and nothing is raised."""
    host = SINGULAR[name]
    y = np.ones((3, 1, 2, 5))
    device = strict.Device("device1")
    conv = host.asarrays(strict.zeros((), dtype=strict.float64, device=device))
    with np.errstate(invalid="ignore"):  # NumPy's, of which that library is made
        on_device = conv.inverse(strict.asarray(y[0], device=device))
    assert not np.isfinite(to_numpy(on_device)).any()
    parameters = {n: np.stack([p] * 3) for n, p in host.parameters().items()}
    for vmap, convert in ((jitted_vmap, jnp.asarray), (torch.func.vmap, torch.as_tensor)):
        there = host.asarrays(convert(y))

        def solve(values: dict[str, Any], y: Any, there: Any = there) -> Any:
            return there.replace(**values).inverse(y)

        got = vmap(solve)({n: convert(p) for n, p in parameters.items()}, convert(y))
        assert not np.isfinite(to_numpy(got)).any()
    jitted = jax.jit(host.asarrays(jnp.asarray(y)).inverse)(jnp.asarray(y[0]))
    assert not np.isfinite(np.asarray(jitted)).any()


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


@pytest.mark.parametrize("name", ["pluconv1x1-2d", "qrconv1x1-2d"])
def test_torch_func_grad_with_respect_to_one_parameter(name: str) -> None:
    (case,) = cases_named(name)
    x = torch.as_tensor(case.images(1)[0])
    conv = case.conv().asarrays(x)

    def loss(upper: Any) -> Any:
        return (conv.replace(upper=upper).inverse(x) ** 2).sum()

    got = torch.func.grad(loss)(conv.parameters()["upper"])
    host_x = case.images(1)[0]
    expected, _ = case.conv().inverse_vjp(host_x, 2 * case.conv().inverse(host_x))
    np.testing.assert_allclose(got.numpy(), expected["upper"], rtol=1e-9, atol=1e-9)
