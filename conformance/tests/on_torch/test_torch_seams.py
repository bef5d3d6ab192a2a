"""Every layer and function where PyTorch traces, observes its operations, or wraps tensors."""

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
import torch
from functorch.compile import aot_function, nop  # type: ignore[import-untyped]
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx
from torch.testing._internal.two_tensor import TwoTensor
from torch.utils._python_dispatch import TorchDispatchMode

import invconv as ic
from tests.conftest import TORCH_LAYERS
from tests.on_torch.test_torch_autodiff import as_function, directions
from tests.selected import slow

# PyTorch's own
pytestmark = [
    pytest.mark.filterwarnings("ignore:`torch.jit.script:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore:Attempted to insert a get_attr Node"),
]
Call = Callable[..., tuple[Any, ...]]  # of the tensors that are wrapped


class Observing(TorchDispatchMode):  # type: ignore[misc]
    """Sees every operation, and changes none."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return func(*args, **kwargs or {})


class Own(torch.Tensor):  # type: ignore[misc]
    """A user's own class of tensors, in memory of its own."""


def linearized(call: Call, given: list[Any], others: list[Any]) -> None:
    """Expect of a derivative at one place, run elsewhere, that of differences."""
    dots, h = [o - t for o, t in zip(others, given, strict=True)], 1e-5
    found = torch.func.linearize(call, *given)[1](*dots)
    ends = [call(*(t + s * h * d for t, d in zip(given, dots, strict=True))) for s in (1, -1)]
    wanted = tuple((a - b) / (2 * h) for a, b in zip(*ends, strict=True))
    torch.testing.assert_close(found, wanted, rtol=1e-6, atol=1e-8)


def traced(call: Call, given: list[Any], others: list[Any]) -> None:
    """Expect a graph of one place to compute another."""
    graph = make_fx(call)(*given)
    torch.testing.assert_close(graph(*others), call(*others), rtol=1e-9, atol=1e-9)


def symbolic(call: Call, given: list[Any], others: list[Any]) -> None:
    """Expect a graph with symbols for sizes to compute another number of images, if made again.

    PyTorch takes the batch's size for the channels' if they are equal. A graph is of one grid if it
    has that grid's log-determinant, and then raises on others.
    """
    images, values = others[0], others[1:]
    for count in (11, images.shape[1]):
        start = given[0].repeat(7, *[1] * (images.ndim - 1))[:count]
        made = make_fx(call, tracing_mode="symbolic", _allow_non_fake_inputs=True)
        graph = made(start, *given[1:])
        for several in (images[:1], torch.cat([images] * 5)):
            found, wanted = graph(several, *values), call(several, *values)
            torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-9)
        if images.ndim > 2:
            wider = torch.cat([images, images], -1)
            with suppress(RuntimeError):
                found, wanted = graph(wider, *values), call(wider, *values)
                torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-9)


def compiled(call: Call, given: list[Any], others: list[Any]) -> None:
    """Expect a graph of values and gradients to compute another place."""
    function = aot_function(call, fw_compiler=nop)
    function(*(t.clone().requires_grad_() for t in given))
    results = []
    for run in (function, call):
        leaves = [t.clone().requires_grad_() for t in others]
        values = run(*leaves)
        total = sum((v * v).sum() for v in values)
        gradients = torch.autograd.grad(total, leaves, materialize_grads=True)
        results.append([*(v.detach() for v in values), *gradients])
    torch.testing.assert_close(*results, rtol=1e-9, atol=1e-9)


def fake(call: Call, given: list[Any], others: list[Any]) -> None:
    wanted = [(v.shape, v.dtype) for v in call(*given)]
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        for wrapped in (len(given), 1):
            fakes = [mode.from_tensor(t) for t in given[:wrapped]]
            found = call(*fakes, *given[wrapped:])
            assert [(v.shape, v.dtype) for v in found] == wanted


def observed(call: Call, given: list[Any], others: list[Any]) -> None:
    results: list[Any] = []
    for recorded in (False, True):
        with Observing():
            found = call(*(t.clone().requires_grad_(recorded) for t in given))
        results.append([v.detach() for v in found])
    for result in results:
        torch.testing.assert_close(result, list(call(*given)), rtol=1e-9, atol=1e-9)


def doubled(call: Call, given: list[Any], others: list[Any]) -> None:
    """Expect of two tensors in one, which has no memory of its own, the results of each."""
    for wrapped in (len(given), 1):
        pairs = [TwoTensor(*pair) for pair in zip(given[:wrapped], others, strict=False)]
        for recorded in (False, True):
            with torch.set_grad_enabled(recorded):
                found = call(*pairs, *given[wrapped:])
            for half, start in (("a", given), ("b", others)):
                wanted = call(*start[:wrapped], *given[wrapped:])
                for got, want in zip(found, wanted, strict=True):
                    got = getattr(got, half) if isinstance(got, TwoTensor) else got
                    torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-9)


def subclassed(call: Call, given: list[Any], others: list[Any]) -> None:
    found = call(*(t.as_subclass(Own) for t in given))
    assert {type(v) for v in found} == {Own}
    plain = tuple(v.as_subclass(torch.Tensor) for v in found)
    torch.testing.assert_close(plain, call(*given), rtol=1e-9, atol=1e-9)


# of each kind of map: the laws have the gradients of all
DAILY = "autoregressive-2d", "emerging-2d", "periodic-2d", "exponential-2d", "plu", "householder"
SEAMS = linearized, traced, compiled, fake, observed, doubled, subclassed
seams = pytest.mark.parametrize("seam", SEAMS, ids=[seam.__name__ for seam in SEAMS])


@pytest.mark.parametrize("seam", [*SEAMS, symbolic], ids=lambda seam: seam.__name__)
@directions
@pytest.mark.parametrize("name", [n if n in DAILY else slow(n) for n in TORCH_LAYERS])
def test_layers(seam: Any, name: str, direction: str, torch_layer: Any) -> None:
    if (name, seam) == ("plu", compiled):
        pytest.skip("aot_function takes no buffers")
    layer, x = torch_layer(name)
    call, parameters = as_function(layer.eval(), direction)
    given = [x, *(p.detach() for p in parameters.values())]
    seam(call, given, [t + 0.1 * torch.randn_like(t) for t in given])


def _least_squares(y: Any, kernel: Any) -> Any:
    return (ic.PeriodicConv(kernel).least_squares(y, 0.1),)


FUNCTIONS: dict[str, tuple[Call, tuple[tuple[int, ...], ...]]] = {
    "lfilter": (lambda x, b, a: (ic.lfilter(b, a, x),), ((2, 9), (3,), (2,))),
    "sosfilt": (lambda x, sos: (ic.sosfilt(sos, x),), ((2, 9), (1, 6))),
    "least_squares": (_least_squares, ((1, 2, 3, 4), (2, 2, 2, 2))),
    "spline_filter": (lambda x: (ic.spline_filter(x),), ((3, 4),)),
    "propagate": (
        lambda x, taps, gain: (ic.propagate(x, taps, [(-1, 0), (0, -1)], gain),),
        ((1, 2, 3, 4), (1, 1, 2, 3, 4), (1, 2, 3, 4)),
    ),
    "map_coordinates": (lambda x, c: (ic.map_coordinates(x, 2 * c - 1),), ((3, 4), (2, 5))),
    "squeeze": (lambda x: (ic.squeeze(x, basis="haar"),), ((1, 2, 4, 2),)),
    "unsqueeze": (lambda x: (ic.unsqueeze(x, basis="dct"),), ((1, 4, 2, 2),)),
}


@seams
@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions(seam: Any, name: str) -> None:
    call, shapes = FUNCTIONS[name]
    given = [torch.rand(shape, dtype=torch.float64) + 1 for shape in shapes]
    if name == "sosfilt":
        given[1][0, 3] = 1
    seam(call, given, [t * 1.1 for t in given])
