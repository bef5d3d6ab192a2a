"""`invconv.bounded`: an inverse's gain stays below its promise, whatever the parameters become."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import pytest
import torch

import invconv as ic
import invconv_torch as it
from invconv.arrays.namespaces import to_numpy
from invconv.trust.gains import norm_bound

jax.config.update("jax_enable_x64", True)

Operator = ic.InvertibleConv
MAX_GAIN = 10.0
GRID = (4, 4)

FAMILIES: dict[str, Callable[[np.random.Generator], Operator]] = {
    "actnorm": lambda rng: ic.ActNorm.init(3, ndim=2),
    "corner": lambda rng: ic.AutoregressiveConv.init(2, 2, rng=rng),
    "raster, upper": lambda rng: ic.AutoregressiveConv.init(
        2, 2, mask="raster", channel_order="upper", direction=-1, rng=rng
    ),
    "one channel": lambda rng: ic.AutoregressiveConv.init(1, 3, rng=rng),
    "dilated": lambda rng: ic.AutoregressiveConv.init(2, 2, dilation=2, rng=rng),
    "two directions": lambda rng: ic.AutoregressiveConv.init(2, (2, 3), direction=(1, -1), rng=rng),
    "no other tap": lambda rng: ic.AutoregressiveConv.init(3, 1, rng=rng),
    "emerging": lambda rng: ic.EmergingConv.init(2, 3, rng=rng),
    "emerging, rasters": lambda rng: ic.EmergingConv.init(2, 3, mask="raster", rng=rng),
    "emerging, dilated": lambda rng: ic.EmergingConv.init(1, (5, 3), dilation=(1, 2), rng=rng),
    "periodic": lambda rng: ic.PeriodicConv.init(2, 3, rng=rng),
    "periodic, wide": lambda rng: ic.PeriodicConv.init(2, 6, rng=rng),
    "periodic, dilated": lambda rng: ic.PeriodicConv.init(2, (2, 3), dilation=(2, 1), rng=rng),
    "periodic, one tap": lambda rng: ic.PeriodicConv.init(3, 1, rng=rng),
    "symmetric": lambda rng: ic.SymmetricConv.init(2, 3, rng=rng),
    "plain": lambda rng: ic.Conv1x1.init(4, ndim=2, rng=rng),
    "plu": lambda rng: ic.PLUConv1x1.init(4, ndim=2, rng=rng),
    "qr": lambda rng: ic.QRConv1x1.init(4, ndim=2, rng=rng),
    "circulant": lambda rng: ic.CirculantConv1x1.init(4, ndim=2, rng=rng),
    "qr, one reflector": lambda rng: ic.QRConv1x1(
        rng.standard_normal((1, 4)), np.eye(4), np.ones(4), ndim=2
    ),
    "chain": lambda rng: ic.Chain(
        [ic.QRConv1x1.init(2, rng=rng), ic.AutoregressiveConv.init(2, 2, rng=rng)]
    ),
    "chain of chains": lambda rng: ic.Chain(
        [
            ic.ActNorm.init(2),
            ic.Chain([ic.PLUConv1x1.init(2, rng=rng), ic.PeriodicConv.init(2, rng=rng)]),
            ic.Conv1x1.init(2, rng=rng),
        ]
    ),
}


def gain(conv: Operator) -> torch.Tensor:
    """Return |K^-1|_2 on a small grid, differentiable, from the dense matrix of the forward map."""
    n = conv.channels * GRID[0] * GRID[1]
    unit = torch.eye(n, dtype=torch.float64).reshape(n, conv.channels, *GRID)
    matrix = conv.forward(unit) - conv.forward(torch.zeros_like(unit))  # without the bias
    return 1 / torch.linalg.svdvals(matrix.reshape(n, n))[-1]


def in_torch(conv: Operator) -> tuple[Operator, dict[str, torch.Tensor]]:
    conv = conv.asarrays(torch.empty(0, dtype=torch.float64))
    weights = {n: p.clone().requires_grad_() for n, p in conv.parameters().items()}
    return conv, weights


def attack(
    conv: Operator, wrap: Callable[[Operator], Operator], spread: float, steps: int
) -> list[float]:
    """Let Adam look for parameters with a large gain, from parameters that are spread out."""
    rng = np.random.default_rng(int(1000 * spread))
    start = {n: p + spread * rng.standard_normal(p.shape) for n, p in conv.parameters().items()}
    conv, weights = in_torch(conv.replace(**start))
    search = torch.optim.Adam(weights.values(), lr=0.1 * max(spread, 1.0))
    found = []
    for _ in range(steps):
        size = gain(wrap(conv.replace(**weights)))
        found.append(size.item())
        search.zero_grad()
        (-torch.log(size)).backward()
        assert all(torch.isfinite(w.grad).all() for w in weights.values() if w.grad is not None)
        search.step()
    return found


@pytest.mark.parametrize("steps", [20, pytest.param(60, marks=pytest.mark.slow)])
@pytest.mark.parametrize("family", FAMILIES)
def test_no_search_breaks_the_promise(family: str, steps: int) -> None:
    conv = FAMILIES[family](np.random.default_rng(0))
    gains = [
        size
        for spread in (0.0, 1.0, 300.0)
        for size in attack(conv, lambda c: ic.bounded(c, MAX_GAIN), spread, steps)
    ]
    assert max(gains) <= MAX_GAIN * (1 + 1e-12)
    assert max(gains) > MAX_GAIN ** (1 / 3)  # the search was one


@pytest.mark.parametrize("family", ["corner", "periodic", "qr", "plu", "emerging"])
def test_the_search_breaks_what_has_no_promise(family: str) -> None:
    conv = FAMILIES[family](np.random.default_rng(0))
    assert max(attack(conv, lambda c: c, 0.3, 60)) > 3 * MAX_GAIN


LAYERS: dict[str, Callable[[], it.InvertibleModule]] = {
    "actnorm": lambda: it.ActNorm(3, max_gain=MAX_GAIN),
    "corner": lambda: it.AutoregressiveConv2d(3, max_gain=MAX_GAIN),
    "raster, upper": lambda: it.AutoregressiveConv2d(
        3, mask="raster", channel_order="upper", direction=-1, max_gain=MAX_GAIN
    ),
    "emerging": lambda: it.EmergingConv2d(3, max_gain=MAX_GAIN),
    "emerging, qr": lambda: it.EmergingConv2d(3, mixing="qr", max_gain=MAX_GAIN),
    "emerging, plu": lambda: it.EmergingConv2d(3, mixing="plu", max_gain=MAX_GAIN),
    "emerging, plain": lambda: it.EmergingConv2d(3, mixing="plain", max_gain=MAX_GAIN),
    "periodic": lambda: it.PeriodicConv2d(3, max_gain=MAX_GAIN),
    "plain": lambda: it.Conv1x1(3, "plain", max_gain=MAX_GAIN),
    "plu": lambda: it.Conv1x1(3, "plu", max_gain=MAX_GAIN),
    "qr": lambda: it.Conv1x1(3, "qr", max_gain=MAX_GAIN),
    "circulant": lambda: it.Conv1x1(3, "circulant", max_gain=MAX_GAIN),
    "symmetric": lambda: it.SymmetricConv2d(3, max_gain=MAX_GAIN),
    "exponential": lambda: it.ExponentialConv2d(3, max_gain=MAX_GAIN),
}


@pytest.mark.slow
@pytest.mark.parametrize("family", LAYERS)
def test_a_layer_trained_against_its_bound_inverts_large_images(family: str) -> None:
    torch.manual_seed(0)
    layer = LAYERS[family]()
    y = torch.randn(4, 3, 8, 8)
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.03)
    for _ in range(1000):
        x, log_det = layer.inverse(y)
        optimizer.zero_grad()
        (-x.square().mean().log() - 0.01 * log_det.mean() / 192).backward()
        optimizer.step()
    assert x.square().mean() > 2  # it grew as it was asked to
    image = torch.randn(1, 3, 256, 256, dtype=torch.float64)
    with torch.no_grad():
        conv = layer.operator()
        far = conv.asarrays(image).forward(image)  # in float64, so that the rounding is known
        size = float(far.norm() / image.norm())
        error = conv.inverse(far.float()).double() - image
    assert error.norm() / image.norm() < 100 * torch.finfo(torch.float32).eps * MAX_GAIN * size


def test_the_norm_is_never_underestimated() -> None:
    rng = np.random.default_rng(0)
    for c in (1, 2, 5, 48, 96):
        kinds = {
            "random": rng.standard_normal((3, c, c)),
            "identity": np.eye(c)[None],
            "rank one": rng.standard_normal((3, c, 1)) * rng.standard_normal((3, 1, c)),
            "huge": 1e200 * rng.standard_normal((3, c, c)),
            "tiny": 1e-200 * rng.standard_normal((3, c, c)),
            "triangular": np.tril(rng.standard_normal((3, c, c)), -1),
        }
        for kind, matrices in kinds.items():
            truth = np.linalg.norm(matrices, 2, axis=(1, 2))
            found = norm_bound(matrices)
            assert (found >= truth * (1 - 1e-13)).all(), kind
            assert (found <= truth * c ** (1 / 32) * (1 + 1e-13)).all(), kind


def test_the_initialisation_is_hardly_changed() -> None:
    rng = np.random.default_rng(0)
    for conv in (ic.EmergingConv.init(12, rng=rng), ic.QRConv1x1.init(12, rng=rng)):
        for name, array in ic.bounded(conv, 100.0).parameters().items():
            assert np.abs(array - conv.parameters()[name]).max() < 0.002
    corner = ic.AutoregressiveConv.init(
        48, rng=rng
    )  # sum |taps| = 0.9, nearly all there is room for
    there = ic.bounded(corner, 100.0).kernel
    assert np.linalg.norm(there - corner.kernel) < 0.25 * np.linalg.norm(corner.kernel)


def test_gradients_exist_where_there_is_nothing() -> None:
    zero = ic.AutoregressiveConv(np.eye(2)[:, :, None, None] * np.eye(1, 4).reshape(2, 2))
    for conv in (
        zero,
        ic.PeriodicConv(zero.kernel),
        ic.QRConv1x1.init(2, rng=np.random.default_rng(0)),
    ):
        there, weights = in_torch(conv)
        there = ic.bounded(there.replace(**weights), 5.0)
        there.inverse(torch.ones(1, 2, *GRID, dtype=torch.float64)).sum().backward()
        assert all(torch.isfinite(w.grad).all() for w in weights.values())


@pytest.mark.parametrize("family", FAMILIES)
def test_every_library_keeps_the_same_promise(family: str) -> None:
    conv = FAMILIES[family](np.random.default_rng(0))
    expected = ic.bounded(conv, 3).parameters()

    def kept(conv: Operator) -> Any:
        return ic.bounded(conv, 3).parameters()

    ways: list[Any] = [
        (torch.empty(0, dtype=torch.float64), kept),
        (jax.numpy.empty(0, "float64"), jax.jit(kept)),
    ]
    for like, run in ways:
        there = run(conv.asarrays(like))
        assert there.keys() == expected.keys()
        for name, array in there.items():
            np.testing.assert_allclose(to_numpy(array), expected[name], atol=1e-13)


@pytest.mark.slow
def test_jax_trains_through_it() -> None:
    conv = FAMILIES["emerging"](np.random.default_rng(0)).asarrays(jax.numpy.empty(0, "float32"))
    y = jax.random.normal(jax.random.key(0), (4, 2, 8, 8), "float32")

    def step(conv: Operator) -> tuple[Any, Operator]:
        def loss(conv: Operator) -> Any:
            x, _ = ic.bounded(conv, MAX_GAIN).inverse_and_log_det(y)
            return -jax.numpy.log((x**2).mean())

        value, slope = jax.value_and_grad(loss)(conv)
        return value, jax.tree.map(lambda w, g: w - 0.3 * g, conv, slope)

    step = jax.jit(step)
    first, _ = step(conv)
    for _ in range(1000):
        last, conv = step(conv)
    assert last < first - 1
    host = ic.bounded(conv.asarrays(torch.empty(0, dtype=torch.float64)), MAX_GAIN)
    assert gain(host) <= MAX_GAIN * (1 + 1e-5)
    there = ic.bounded(conv, MAX_GAIN)
    image = np.random.default_rng(1).standard_normal((1, 2, 256, 256))
    far = there.asarrays(image).forward(image)  # in float64, so that the rounding is known
    back = np.asarray(there.inverse(jax.numpy.asarray(far, "float32")), np.float64)
    size = float(np.linalg.norm(far) / np.linalg.norm(image))
    error = np.linalg.norm(back - image) / np.linalg.norm(image)
    assert error < 100 * np.finfo(np.float32).eps * MAX_GAIN * size


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("family", FAMILIES)
def test_half_types_keep_the_promise_to_rounding(family: str, dtype: str) -> None:
    rng = np.random.default_rng(0)
    conv = FAMILIES[family](rng)
    wild = {n: p + 3 * rng.standard_normal(p.shape) for n, p in conv.parameters().items()}
    half = conv.replace(**wild).asarrays(torch.empty(0, dtype=getattr(torch, dtype)))
    bounded = ic.bounded(half, MAX_GAIN)
    assert {p.dtype for p in bounded.parameters().values()} == {getattr(torch, dtype)}
    host = bounded.asarrays(torch.empty(0, dtype=torch.float64))
    assert gain(host) <= MAX_GAIN * (1 + 0.1)


@pytest.mark.parametrize("padding", ["zeros", "circular"])
def test_an_exponential_keeps_its_promise_at_any_size(padding: str) -> None:
    kernel = torch.as_tensor(1e30 * np.random.default_rng(0).standard_normal((3, 3, 3, 1)))
    kernel = kernel.repeat(4, 4, 1, 1).requires_grad_()  # 12 channels
    conv = ic.bounded(ic.ExponentialConv(kernel, padding=padding), MAX_GAIN)
    assert gain(conv) <= MAX_GAIN * (1 + 1e-9)
    conv.forward(torch.ones(1, 12, *GRID, dtype=torch.float64)).square().sum().backward()
    assert kernel.grad.isfinite().all()


def test_what_cannot_be_promised_is_refused() -> None:
    conv = ic.ActNorm.init(2)
    single = np.float32(1), np.float32("inf")  # would turn limits that they meet into their type
    for wrong in (1.0, 1 + 1e-12, 0.5, float("inf"), float("nan"), "10", 10**400, *single):
        with pytest.raises(ValueError, match="max_gain: expected a finite number above 1"):
            ic.bounded(conv, wrong)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="whose class bounds its inverse, got Inverse; bound"):
        ic.bounded(ic.Inverse(conv), 10.0)
    with pytest.raises(ValueError, match="max_gain"):
        it.Conv1x1(3, max_gain=0.1)
