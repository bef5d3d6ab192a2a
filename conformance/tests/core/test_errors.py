"""Odd input: NaN, empty batches, foreign byte orders, masks, views, and what is refused of them."""

from __future__ import annotations

import math
import re
from typing import Any

import jax
import numpy as np
import pytest
import torch

import invconv as ic
import invconv_jax  # noqa: F401 - makes operators pytrees
import invconv_torch as it

jax.config.update("jax_enable_x64", True)

RNG = np.random.default_rng(0)
CORNER = ic.AutoregressiveConv.init(3, rng=RNG)
PERIODIC = ic.PeriodicConv.init(3, rng=RNG)
ONE = ic.Conv1x1.init(3, rng=RNG)
X = RNG.standard_normal((2, 3, 4, 5))
KERNEL = CORNER.kernel
EYE = np.eye(3)
LAYER = it.ActNorm(3)


class Flip(torch.nn.Module):  # type: ignore[misc]
    """A step of a reversible chain that is no operator."""

    inverse = forward = lambda self, x: (x.flip(-1), x.new_zeros(len(x)))


def test_a_pointwise_layer_of_torch_takes_ndim() -> None:
    x = torch.as_tensor(X)
    for layer in (it.Conv1x1(3, ndim=2), it.Conv1x1(3, "plu", ndim=2), it.ActNorm(3, ndim=2)):
        layer.double()
        for whole, alone in zip(layer(x), layer(x[0]), strict=True):  # without a batch axis
            torch.testing.assert_close(whole[0], alone)


def test_float_direction_is_refused() -> None:
    with pytest.raises(TypeError, match=r"direction: expected an integer"):
        ic.AutoregressiveConv(KERNEL, direction=1.0)  # type: ignore[arg-type]


def test_numpy_integers_are_settings() -> None:
    conv = ic.AutoregressiveConv(KERNEL, direction=np.int8(-1), dilation=(np.int64(2), 1))  # type: ignore[arg-type]
    assert conv.direction == (-1, -1)
    assert conv.dilation == (2, 1)


OPERATORS: dict[str, ic.InvertibleConv] = {
    "1x1": ONE,
    "plu": ic.PLUConv1x1.init(3, rng=RNG),
    "qr": ic.QRConv1x1.init(3, rng=RNG),
    "actnorm": ic.ActNorm.init(3),
    "corner": CORNER,
    "raster": ic.AutoregressiveConv.init(3, mask="raster", direction=-1, rng=RNG),
    "emerging": ic.EmergingConv.init(3, rng=RNG),
    "periodic": PERIODIC,
    "symmetric": ic.SymmetricConv.init(3, rng=RNG),
    "exponential": ic.ExponentialConv.init(3, rng=RNG),
    "circular exponential": ic.ExponentialConv.init(3, padding="circular", rng=RNG),
    "orthogonal": ic.OrthogonalConv1x1.init(3, rng=RNG),
    "circulant": ic.CirculantConv1x1.init(3, rng=RNG),
    "chain": ic.Chain([ONE, PERIODIC, CORNER]),
}


@pytest.mark.parametrize("name", OPERATORS)
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_bad_sample_stays_alone(name: str, bad: float) -> None:
    conv = OPERATORS[name]
    x = RNG.standard_normal((3, 3, 4, 5))
    y = x.copy()
    y[1, 0, 0, 0] = bad
    with np.errstate(invalid="ignore"):
        for function in (conv.forward, conv.inverse):
            good, got = function(x), function(y)
            np.testing.assert_array_equal(got[[0, 2]], good[[0, 2]])
            assert not np.isfinite(got[1]).all()
        assert np.isfinite(conv.forward_and_log_det(y)[1]).all()


@pytest.mark.parametrize("name", OPERATORS)
def test_empty_batch_and_odd_memory(name: str) -> None:
    conv = OPERATORS[name]
    empty = np.empty((0, 3, 4, 5))
    for function in (conv.forward_and_log_det, conv.inverse_and_log_det):
        value, log_det = function(empty)
        assert value.shape == (0, 3, 4, 5)
        assert log_det.shape == (0,)
    gradients, x_bar = conv.forward_vjp(empty, empty, np.empty(0))
    assert x_bar.shape == empty.shape
    assert all((g == 0).all() for g in gradients.values())
    x = RNG.standard_normal((2, 3, 4, 5))
    odd = np.asfortranarray(np.repeat(x, 2, axis=3))[..., ::2]
    odd.flags.writeable = False
    before = {k: v.copy() for k, v in conv.parameters().items()}
    for function in (conv.forward, conv.inverse):
        np.testing.assert_allclose(function(odd), function(x), rtol=1e-12, atol=1e-13)
    np.testing.assert_array_equal(odd, x)
    for key, array in conv.parameters().items():
        np.testing.assert_array_equal(array, before[key])


@pytest.mark.parametrize("name", OPERATORS)
def test_stacked_operators_are_not_taken_for_one(name: str) -> None:
    """Three of 3 channels look like one of a further axis in many ways."""
    conv = ic.Inverse(OPERATORS[name]).asarrays(jax.numpy.zeros(()))
    x = jax.numpy.asarray(X)
    for count in (2,) if name == "symmetric" else (2, 3):  # of whose kernel that is true
        stacked = jax.tree.map(lambda a, n=count: jax.numpy.stack([a] * n), conv)
        for call in (stacked, stacked.conv):
            for function, argument in (
                (call.forward, x),
                (call.inverse, x),
                (call.log_det, (4, 5)),
                (call.prepare, (4, 5)),
            ):
                with pytest.raises(ValueError, match=r"one axis more, .* call it under jax.vmap"):
                    function(argument)


def test_none_is_no_array() -> None:
    for build in (
        lambda: ic.Conv1x1(None),
        lambda: ic.PeriodicConv(None),
        lambda: ic.ActNorm(None, None),
        lambda: ic.PLUConv1x1(np.arange(3), EYE, EYE, np.ones(3), None),
        lambda: CORNER.replace(kernel=None),
    ):
        with pytest.raises(TypeError, match=r"expected an array .* got NoneType"):
            build()


def test_settings_may_be_numpy_arrays() -> None:
    conv = ic.AutoregressiveConv(KERNEL, direction=np.asarray([1, -1]))  # type: ignore[arg-type]
    assert conv.direction == (1, -1)


def test_a_generator_is_asked_for() -> None:
    for cls in (ic.Conv1x1, ic.QRConv1x1, ic.EmergingConv, ic.PeriodicConv):
        with pytest.raises(TypeError, match=r"rng: expected a numpy.random.Generator .* got int"):
            cls.init(3, rng=0)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "cls", [c for c in vars(ic).values() if isinstance(c, type) and hasattr(c, "init")]
)
def test_without_a_generator_init_draws_anew(cls: Any) -> None:
    one, other = (cls.init(3).parameters() for _ in range(2))
    assert all(np.isfinite(a).all() for a in one.values())
    drawn = [n for n in one if not np.array_equal(one[n], other[n])]
    assert drawn or cls is ic.ActNorm  # which begins at the identity


def test_foreign_byte_order() -> None:
    foreign = X.astype(">f8")
    with pytest.raises(TypeError, match=r'in foreign byte order; .*: cast x with x.astype\("f8"\)'):
        CORNER.forward(foreign)
    with pytest.raises(TypeError, match=r'cast x with x.astype\(">f8"\)'):
        CORNER.asarrays(foreign).forward(X)
    conv = ic.Conv1x1(EYE.astype(">f8")).asarrays(torch.zeros((), dtype=torch.float64))
    assert torch.equal(conv.weight, torch.eye(3, dtype=torch.float64))


@pytest.mark.parametrize("kind", [ic.EmergingConv, ic.PeriodicConv, ic.QRConv1x1, ic.PLUConv1x1])
def test_foreign_byte_order_is_kept(kind: Any) -> None:
    conv = kind.init(3, rng=np.random.default_rng(0))
    foreign = conv.asarrays(np.empty(0, ">f8"))
    y = np.random.default_rng(1).standard_normal((2, 3, 4, 5))
    x = foreign.prepare((4, 5)).inverse(y.astype(">f8"))
    assert x.dtype == np.dtype(">f8")
    np.testing.assert_allclose(x, conv.inverse(y), rtol=1e-9, atol=1e-9)
    both = ic.Chain([ic.Conv1x1(np.eye(3).astype(">f8")), foreign]).transpose()
    assert {p.dtype for p in both.parameters().values()} == {np.dtype(">f8")}


def test_tensors_that_are_not_dense_are_named() -> None:
    conv = ic.Conv1x1(torch.eye(3))
    x = torch.ones(2, 3, 4, 4)
    with pytest.raises(TypeError, match=r"x: expected a dense tensor, got one of layout .*coo"):
        conv.forward(x.to_sparse())
    with pytest.raises(TypeError, match="x: expected a dense tensor, got a nested tensor"):
        conv.forward(torch.nested.nested_tensor([*x], layout=torch.jagged))


def test_records_and_grids_in_no_order_are_named() -> None:
    conv = ic.Conv1x1(np.eye(3))
    with pytest.raises(TypeError, match="x: expected a real floating dtype"):
        conv.forward(np.rec.array(np.zeros((2, 3, 4), [("a", "f8")])))
    for grid in ({4, 5}, {4: 1, 5: 2}):
        with pytest.raises(TypeError, match="spatial_shape: expected a tuple of integers"):
            conv.log_det(grid)  # type: ignore[arg-type]


def test_a_mask_is_not_dropped() -> None:
    conv = ic.EmergingConv.init(3, rng=np.random.default_rng(0))
    hidden = np.ma.masked_invalid(np.full((1, 3, 4, 4), np.nan))
    for function in (conv.forward, conv.inverse, conv.prepare((4, 4)).inverse):
        with pytest.raises(TypeError, match=r"without a mask.*filled"):
            function(hidden)
    with pytest.raises(TypeError, match="without a mask"):
        ic.Conv1x1(np.ma.masked_equal(np.eye(3), 1))


@pytest.mark.parametrize("scale", [1e200, 1e-200])
def test_a_kernel_of_any_scale_makes_no_noise(scale: float) -> None:
    conv = ic.PeriodicConv(scale * np.eye(3)[:, :, None, None])
    x = conv.inverse(np.ones((1, 3, 8, 8)))
    np.testing.assert_allclose(x, 1 / scale, rtol=1e-14)


def test_parameters_may_be_views_that_torch_negates_lazily() -> None:
    rng = np.random.default_rng(0)
    pairs = torch.as_tensor(0.02 * rng.standard_normal((3, 3, 2, 2, 2)))
    pairs[:, :, 0, 0, 1] -= torch.eye(3)
    kernel = torch.view_as_complex(pairs).conj().imag
    assert kernel.is_neg()
    conv = ic.AutoregressiveConv(kernel)
    x = torch.as_tensor(rng.standard_normal((2, 3, 5, 4)))
    torch.testing.assert_close(conv.inverse(conv.forward(x)), x, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("call", "hint"),
    [
        (lambda: ic.PeriodicConv(np.ones((5, 5))), "of one channel it is kernel[None, None]"),
        (lambda: ic.PeriodicConv.init(2, (3, 3, 3), rng=RNG), "ndim=3 makes it so many axes"),
        (lambda: ONE.forward(X[0]), "of one image it is x[None], or say ndim=2 when it is made"),
        (lambda: ic.EmergingConv.init(2, rng=jax.random.key(0)), "invconv_jax.init takes a key"),
        (lambda: PERIODIC.forward(np.moveaxis(X, 1, -1)), "by moveaxis(x, -1, -3)"),
        (lambda: it.EmergingConv2d(2, (3, 3, 3)), "got 3: (3, 3, 3); EmergingConv3d takes so many"),
        (lambda: it.PeriodicConv2d(2, (3, 3, 3, 3)), "got 4: (3, 3, 3, 3)"),
        (lambda: it.PeriodicConv2d(2, padding=1), "PeriodicConv2d.__init__() got an unexpected"),  # type: ignore[call-arg]
        (
            lambda: LAYER(torch.as_tensor(X)),
            "cast x with x.float(), or the layer with layer.double()",
        ),
        (
            lambda: LAYER.inverse(torch.as_tensor(X)),
            "cast z with z.float(), or the layer with layer",
        ),
        (lambda: ic.save(it.ReversibleChain([LAYER]), "f"), "pass layer.operator()"),
        (lambda: ic.save([LAYER], "f"), "Chain([layer.operator() for layer in ...])"),  # type: ignore[arg-type]
        (lambda: it.ReversibleChain([Flip()]).operator(), "got Flip at 0, which is no operator"),
        (lambda: torch.fx.symbolic_trace(LAYER), "symbolic_trace, which sees no shapes; torch.exp"),
        pytest.param(
            lambda: torch.jit.script(LAYER),
            "jit.script cannot compile ActNorm; torch.export.export",
            marks=pytest.mark.filterwarnings("ignore:`torch.jit.script`:DeprecationWarning"),
        ),
    ],
)
def test_an_error_says_what_to_do(call: Any, hint: str) -> None:
    with pytest.raises((TypeError, ValueError), match=re.escape(hint)):
        call()
