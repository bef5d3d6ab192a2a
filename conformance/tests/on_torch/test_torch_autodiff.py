"""PyTorch's derivatives of every layer, against differences and the dense matrix."""

import gc
import math
import weakref
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import scipy.linalg
import torch
from torch.autograd import gradcheck, gradgradcheck
from torch.autograd.functional import hessian, jacobian
from torch.func import functional_call

import invconv as ic
import invconv_torch as it
from invconv.families.convolutions import Causal
from invconv_conformance.truth.oracle import affine
from invconv_torch.native.nodes import APPLY, GRAM, MATMUL, SOLVE, run
from invconv_torch.primitives import LOG_ABS_DET
from tests.conftest import Method

# what PyTorch's own forward mode imports
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script:DeprecationWarning")

directions = pytest.mark.parametrize("direction", ["forward", "inverse"])


def as_function(layer: Any, direction: str) -> tuple[Callable[..., Any], dict[str, Any]]:
    module = Method(layer, direction)
    parameters = dict(module.named_parameters())

    def function(x: Any, *values: Any) -> Any:
        return functional_call(module, dict(zip(parameters, values, strict=True)), (x,))

    return function, parameters


@directions
def test_gradcheck(layer_name: str, torch_layer: Any, direction: str) -> None:
    """The Jacobian in random directions, in which any wrong entry shows."""
    layer, x = torch_layer(layer_name)
    function, parameters = as_function(layer, direction)
    inputs = (x.requires_grad_(), *parameters.values())
    settings: Any = {"rtol": 1e-5, "atol": 1e-6, "check_forward_ad": True, "fast_mode": True}
    assert gradcheck(function, inputs, **settings, check_batched_grad=True)
    assert gradgradcheck(function, inputs, atol=1e-4, fast_mode=True)


@pytest.mark.parametrize("direction", ["forward", "inverse", "forward of the inverse"])
def test_gradients_by_some_are_right(layer_name: str, torch_layer: Any, direction: str) -> None:
    """By the image of a layer that is frozen, and by the parameters alone."""
    layer, x = torch_layer(layer_name)
    if " " in direction:
        layer = it.InvertibleModule(ic.Inverse(layer.operator()))
    function, parameters = as_function(layer, direction.partition(" ")[0])
    tensors = x, *parameters.values()
    places = range(len(tensors))

    def pulled_back(wanted: range) -> list[Any]:
        given = [tensors[i].detach().requires_grad_(i in wanted) for i in places]
        return list(torch.autograd.grad(scalar(*function(*given)), [given[i] for i in wanted]))

    some = [*pulled_back(places[:1]), *pulled_back(places[1:])]
    torch.testing.assert_close(some, pulled_back(places), rtol=1e-12, atol=1e-12)


def test_operations_alone_have_the_derivatives_of_differences() -> None:
    family = Causal.of((2, 3), (0, 1), (-1, -1), (1, 2), False)
    w = 0.3 * torch.randn(2, 2, 2, 3, dtype=torch.float64)
    w[..., 0, 1] += 2 * torch.eye(2)  # the tap at the pixel itself
    x, y = torch.randn(2, 3, 2, 3, 4, dtype=torch.float64)
    calls: tuple[Any, ...] = (
        (APPLY, family, (w, x)),
        (GRAM, family, (x, y)),
        (SOLVE, (family, None), (w, x)),
        (MATMUL, None, (w[..., 0, 0], x.flatten(2))),
        (LOG_ABS_DET, None, (w[..., 0, 1].clone(),)),
    )
    for rule, settings, tensors in calls:
        leaves = [t.detach().requires_grad_() for t in tensors]
        function = partial(run, rule, settings)
        assert gradcheck(function, leaves, fast_mode=True, check_forward_ad=True), rule.name
    kernel = torch.tensor([[1.0, 100.0], [0.0, 1.0]], dtype=torch.float64)[..., None]
    kernel.requires_grad_()  # of which LU factors are kept, turned there and back
    assert gradgradcheck(lambda k: ic.PeriodicConv(k).inverse(x[..., 0]), kernel, fast_mode=True)


def test_gradient_through_a_remembered_inverse(layer_name: str, torch_layer: Any) -> None:
    layer, x = torch_layer(layer_name)
    layer.eval()
    function, parameters = as_function(layer, "inverse")
    layer.inverse(x)
    assert layer._inverses is not None
    inputs = (x.requires_grad_(), *parameters.values())
    expected = torch.autograd.grad(scalar(*layer.train().inverse(x)), inputs)
    layer.eval().inverse(x)
    got = torch.autograd.grad(scalar(*layer.inverse(x)), inputs)
    torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-9)
    if layer_name == "emerging-2d":
        assert gradgradcheck(function, inputs, atol=1e-4, fast_mode=True)


def scalar(x: Any, log_det: Any) -> Any:
    weights = torch.linspace(-1, 2, x.numel(), dtype=x.dtype).reshape(x.shape)
    return (weights * x * x).sum() + (log_det * torch.arange(len(log_det))).sum()


@directions
def test_func_grad_jvp_vmap(layer_name: str, torch_layer: Any, direction: str) -> None:
    layer, x = torch_layer(layer_name)
    function, parameters = as_function(layer, direction)
    primals = (x, *(p.detach() for p in parameters.values()))

    def total(*primals: Any) -> Any:
        return scalar(*function(*primals))

    leaves = [p.clone().requires_grad_() for p in primals]
    grads = torch.func.grad(total, argnums=tuple(range(len(primals))))(*primals)
    expected = torch.autograd.grad(total(*leaves), leaves)
    torch.testing.assert_close(grads, expected, rtol=1e-10, atol=1e-10)
    dots = tuple(map(torch.randn_like, primals))
    _, slope = torch.func.jvp(total, primals, dots)
    pairing = sum((g * d).sum() for g, d in zip(grads, dots, strict=True))
    torch.testing.assert_close(slope, pairing, rtol=1e-8, atol=1e-8)
    stacks = [torch.stack([p, 0.9 * p, 1.1 * p]) for p in primals]
    for mapped in (len(stacks), 1):  # all, or the images alone
        given = (*stacks[:mapped], *primals[mapped:])
        in_dims = tuple(0 if i < mapped else None for i in range(len(given)))
        found = torch.func.vmap(function, in_dims)(*given)
        each = [function(*(s[i] for s in stacks[:mapped]), *primals[mapped:]) for i in range(3)]
        wanted = tuple(map(torch.stack, zip(*each, strict=True)))
        torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-9)


# layers that keep two images for the backward pass: of several maps, or of a linear solve's rows
TWO = {
    "forward": ("emerging",),
    "inverse": ("exponential", "plu", "qr", "circulant", "householder"),
}


@pytest.fixture(scope="module")
def few_objects() -> None:
    """Have the collector, and a search among its objects, leave out all that is there."""
    gc.collect()
    gc.freeze()


@pytest.mark.usefixtures("few_objects")
@directions
def test_hooks_see_all_that_is_kept(layer_name: str, direction: str, torch_layer: Any) -> None:
    """As those of checkpoints and of offloading do: images, spectra, and matrices of weights.

    They are few: autograd through a solve would keep an image for every wavefront.
    """
    layer, x = torch_layer(layer_name)
    x = x.repeat(20, *[1] * (x.ndim - 1))
    function, parameters = as_function(layer, direction)
    leaves = [x.requires_grad_(), *parameters.values()]
    wanted = torch.autograd.grad(scalar(*function(*leaves)), leaves)
    gc.collect()
    before = {id(t) for t in gc.get_objects() if isinstance(t, torch.Tensor)}
    kept: list[Any] = []

    def pack(t: Any) -> Any:
        kept.append(t.detach().numpy().copy())
        return kept[-1]

    with torch.autograd.graph.saved_tensors_hooks(pack, torch.tensor):
        results = function(*leaves)
    most = 2.3 if layer_name.startswith(TWO[direction]) else 1.3
    assert sum(values.size for values in kept) < most * x.numel()
    held = [t for t in gc.get_objects() if isinstance(t, torch.Tensor) and id(t) not in before]
    held = [t for t in held if t.is_floating_point()]  # a permutation is no weight
    assert not [t.shape for t in held if t.shape != x.shape[:1] and t is not results[0]]
    torch.testing.assert_close(torch.autograd.grad(scalar(*results), leaves), wanted)


def test_a_result_is_freed_without_the_garbage_collector() -> None:
    layer = it.InvertibleModule(ic.Inverse(ic.PeriodicConv(torch.randn(2, 2, 3, 3))))
    z, _ = layer(torch.randn(1, 2, 4, 4))
    gone = weakref.ref(z)
    gc.disable()
    try:
        del z
        assert gone() is None
    finally:
        gc.enable()


@pytest.mark.parametrize("name", ["plain", "periodic-2d"])
def test_second_derivatives_are_the_same_in_all_modes(name: str, torch_layer: Any) -> None:
    """PyTorch's slogdet gives zero for reverse over forward mode."""
    layer, x = torch_layer(name)
    key, weight = next((n, p.detach()) for n, p in layer.named_parameters() if n != "bias")
    v = torch.randn_like(weight)

    def total(w: Any) -> Any:
        return scalar(*functional_call(layer, {key: w}, (x,)))

    expected = (hessian(total, weight) * v).sum(tuple(range(weight.ndim, 2 * weight.ndim)))
    found = torch.func.grad(lambda w: torch.func.jvp(total, (w,), (v,))[1])(weight)
    torch.testing.assert_close(found, expected)
    found = torch.func.jvp(torch.func.grad(total), (weight,), (v,))[1]
    torch.testing.assert_close(found, expected)


@directions
@pytest.mark.parametrize("name", ["autoregressive-2d", "qr"])
def test_forward_of_forward_mode_is_refused(name: str, direction: str, torch_layer: Any) -> None:
    """PyTorch would drop derivatives without a word."""
    layer, x = torch_layer(name)
    f, _ = as_function(layer, direction)

    def once(x: Any) -> Any:
        return torch.func.jvp(lambda x: f(x, *layer.parameters())[0], (x,), (x,))[1]

    with pytest.raises(NotImplementedError, match="use jacfwd of jacrev"):
        torch.func.jvp(once, (x,), (x,))


@pytest.mark.parametrize(("direction", "pixels"), [("forward", 9), ("inverse", -9)])
def test_an_infinite_image_spoils_no_log_determinant(direction: str, pixels: int) -> None:
    """Nor its gradient."""
    layer = it.EmergingConv2d(2)
    x = torch.full((1, 2, 3, 3), torch.inf)
    getattr(layer, direction)(x)[1].sum().backward()
    expected = pixels / layer.first.kernel.detach()[..., 0, 0].diagonal()
    found = layer.first.kernel.grad
    torch.testing.assert_close(found[..., 0, 0].diagonal(), expected)
    assert torch.count_nonzero(found) == 2


@directions
@pytest.mark.parametrize("layer_name", ["autoregressive-1d", "periodic-1d", "plain", "qr", "plu"])
def test_vectorized_jacobians(direction: str, layer_name: str, torch_layer: Any) -> None:
    layer, x = torch_layer(layer_name)
    x = x[:1]

    def cubes(z: Any) -> Any:
        return (getattr(layer, direction)(z)[0] ** 3).flatten()

    def slope(z: Any, vectorize: bool) -> Any:
        return jacobian(cubes, z, create_graph=True, vectorize=vectorize)

    forwards = jacobian(cubes, x, vectorize=True, strategy="forward-mode")
    torch.testing.assert_close(forwards, slope(x, False).detach())
    # one level of vmap inside another
    nested = [jacobian(lambda z, v=v: slope(z, v)[:2], x, vectorize=v) for v in (True, False)]
    torch.testing.assert_close(*nested)
    assert nested[1].abs().max() > 1e-3  # there is something to compare


@directions
@pytest.mark.parametrize(
    "layer_name", ["autoregressive-1d", "exponential-1d", "bordered-2d", "plu"]
)
def test_vectorized_hessians(direction: str, layer_name: str, torch_layer: Any) -> None:
    layer, x = torch_layer(layer_name)
    function, parameters = as_function(layer, direction)
    weight, *others = (p.detach() for p in parameters.values())

    def total(w: Any) -> Any:
        return sum((part**3).sum() for part in function(x[:1], w, *others))

    plain = hessian(total, weight)
    for outer in ("reverse-mode", "forward-mode"):
        found = hessian(total, weight, vectorize=True, outer_jacobian_strategy=outer)
        torch.testing.assert_close(found, plain)


def test_every_order_of_an_exponential() -> None:
    """Of e^(s^2 M) x at s = 1; an operation has a tensor more for each order, up to five."""
    rng = np.random.default_rng(0)
    conv = ic.ExponentialConv(0.3 * rng.standard_normal((2, 2, 3)))
    x, scale = rng.standard_normal(8), torch.ones((), dtype=torch.float64, requires_grad=True)
    moved = conv.replace(kernel=scale * scale * torch.tensor(conv.kernel))
    value = moved.forward(torch.tensor(x.reshape(1, 2, 4)))[0, 0, 1]
    generator = scipy.linalg.logm(affine(conv, (4,))[0])
    terms: list[Any] = [x]
    for n in range(1, 60):
        terms.append(generator @ terms[-1] / n)
    for order in range(1, 6):
        (value,) = torch.autograd.grad(value, scale, create_graph=True)
        expected = sum(math.perm(2 * n, order) * term[1] for n, term in enumerate(terms))
        assert value.item() == pytest.approx(expected, rel=1e-9)
