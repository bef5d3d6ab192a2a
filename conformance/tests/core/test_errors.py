"""Odd input: stacked operators, foreign byte orders, views; errors that say what to do."""

from __future__ import annotations

import re
from typing import Any

import jax
import numpy as np
import pytest
import torch

import invconv as ic
import invconv_jax  # noqa: F401 - makes operators pytrees
import invconv_torch as it
from invconv_conformance.cases.case import Case
from tests.selected import ONE_OF_EACH, cases_named

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


def test_numpy_integers_are_settings() -> None:
    conv = ic.AutoregressiveConv(KERNEL, direction=np.int8(-1), dilation=(np.int64(2), 1))  # type: ignore[arg-type]
    assert conv.direction == (-1, -1)
    assert conv.dilation == (2, 1)


@pytest.mark.parametrize("case", cases_named(*ONE_OF_EACH), ids=lambda case: case.name)
def test_stacked_operators_are_not_taken_for_one(case: Case) -> None:
    """Three of 3 channels look like one of a further axis in many ways."""
    x, grid = jax.numpy.asarray(case.images(1)[0]), case.spatial_shape
    conv = ic.Inverse(case.conv()).asarrays(x)
    for count in (2,) if "symmetric" in case.name else (2, 3):  # of whose kernel that is true
        stacked = jax.tree.map(lambda a, n=count: jax.numpy.stack([a] * n), conv)
        for one in (stacked, stacked.conv):
            calls = (one.forward, x), (one.inverse, x), (one.log_det, grid), (one.prepare, grid)
            for function, argument in calls:
                with pytest.raises(ValueError, match=r"one axis more, .* call it under jax.vmap"):
                    function(argument)


@pytest.mark.parametrize(
    "cls", [c for c in vars(ic).values() if isinstance(c, type) and hasattr(c, "init")]
)
def test_without_a_generator_init_draws_anew(cls: Any) -> None:
    one, other = (cls.init(3).parameters() for _ in range(2))
    assert all(np.isfinite(a).all() for a in one.values())
    drawn = [n for n in one if not np.array_equal(one[n], other[n])]
    assert drawn or cls is ic.ActNorm  # which begins at the identity


@pytest.mark.parametrize("kind", [ic.EmergingConv, ic.PeriodicConv, ic.QRConv1x1, ic.PLUConv1x1])
def test_foreign_byte_order_is_kept(kind: Any) -> None:
    conv = kind.init(3, rng=np.random.default_rng(0))
    foreign = conv.asarrays(np.empty(0, ">f8"))
    y = np.random.default_rng(1).standard_normal((2, 3, 4, 5))
    x = foreign.prepare((4, 5)).inverse(y.astype(">f8"))
    assert x.dtype == np.dtype(">f8")
    np.testing.assert_allclose(x, conv.inverse(y), rtol=1e-9, atol=1e-9)
    tensors = foreign.asarrays(torch.zeros((), dtype=torch.float64)).parameters()
    assert {p.dtype for p in tensors.values()} == {torch.float64}
    both = ic.Chain([ic.Conv1x1(np.eye(3).astype(">f8")), foreign]).transpose()
    assert {p.dtype for p in both.parameters().values()} == {np.dtype(">f8")}


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
            "cast it with x.to(torch.float32), or the layer with layer.to(torch.float64)",
        ),
        (
            lambda: LAYER.inverse(torch.as_tensor(X)),
            "cast it with z.to(torch.float32), or the layer with layer",
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
