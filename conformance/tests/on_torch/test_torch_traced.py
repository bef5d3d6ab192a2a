"""Code that PyTorch traces: torch.compile, torch.export, and tensors without memory."""

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.func import functional_call
from torch.utils._python_dispatch import TorchDispatchMode

import invconv_torch as it
from invconv.arrays.namespaces import constant
from tests.conftest import TORCH_LAYERS, Method
from tests.on_torch.test_torch_autodiff import directions, scalar
from tests.programs import python
from tests.selected import slow

# PyTorch's own: dynamo makes an instance of Function, export of a deprecated node
pytestmark = [pytest.mark.filterwarnings("ignore:<class 'torch.autograd.function.Function'>")]
COMPILED = ("emerging-2d", "periodic-2d")
# of less or of the same code; one or three axes make no difference, but 1-D exponentials close
SLOW = [name for name in TORCH_LAYERS if name not in COMPILED and not name.endswith(("1d", "3d"))]
SLOW += ["exponential-1d"]
compiled_layers = pytest.mark.parametrize("name", [*COMPILED, *map(slow, SLOW)])


def gradients(function: Callable[..., Any], layer: Any, x: Any) -> list[Any]:
    x = x.clone().requires_grad_()
    results = function(x)
    grads = torch.autograd.grad(scalar(*results), (x, *layer.parameters()))
    return [*(result.detach() for result in results), *grads]


@compiled_layers
@directions
def test_compile_without_graph_breaks(name: str, direction: str, torch_layer: Any) -> None:
    layer, x = torch_layer(name)
    torch._dynamo.reset()
    function = getattr(layer, direction)
    compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
    got, wanted = (gradients(run, layer, x) for run in (compiled, function))
    torch.testing.assert_close(got, wanted, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", COMPILED)
def test_a_prepared_inverse_of_the_core_is_compiled(name: str, torch_layer: Any) -> None:
    layer, x = torch_layer(name)
    prepared = layer.requires_grad_(False).operator().prepare(tuple(x.shape[2:]))
    torch._dynamo.reset()
    compiled = torch.compile(prepared.inverse, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x), prepared.inverse(x), rtol=1e-10, atol=1e-10)


BEGIN = """
import torch, invconv_torch
layer = invconv_torch.EmergingConv2d(2, mixing="qr").eval()
x = torch.randn(2, 2, 4, 5)
run = RUN
got = torch.compile(run, fullgraph=True, backend="aot_eager")(x)
torch.testing.assert_close(got, run(x))
"""


@pytest.mark.slow
@pytest.mark.parametrize("run", ["layer.inverse", "lambda x: layer.operator().inverse(x)"])
def test_a_process_may_begin_with_a_compiled_call(run: str) -> None:
    """What is loaded and remembered lazily cannot be traced; in eval mode."""
    python("-W", "error:Dynamo detected:UserWarning", "-c", BEGIN.replace("RUN", run))


BEFORE = """
import torch, invconv
x = torch.randn(2, 2, 4, 6)
run = lambda x: invconv.lfilter(x[0, 0, 0], x[0, 0, 1], x)
got = torch.compile(run, backend="eager")(x)
torch.testing.assert_close(got, run(x))
"""


def test_compiling_a_call_of_the_core_does_not_trace_the_import_of_the_adapter() -> None:
    done = python("-W", "error:Dynamo detected:UserWarning", "-c", BEFORE)
    assert done.stderr == "", "what Dynamo warns of"


class Everything(Method):
    """A direction, and its gradients by the core's rule."""

    def forward(self, x: Any) -> Any:
        y, log_det = super().forward(x)
        conv = self.layer.operator()
        gradients, x_bar = getattr(conv, f"{self.direction}_vjp")(x, y, log_det)
        return [y, x_bar, log_det, *gradients.values()]


class WithoutWaits(TorchDispatchMode):  # type: ignore[misc]
    """Raises where an operation would make the host wait for a device.

    Fake tensors raise where a value is read; these are what they run, and what
    PyTorch's sync debug mode warns of on a device.
    """

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, name = kwargs or {}, func.overloadpacket.__name__
        given = kwargs.get("device") if name == "_to_copy" else None
        here = args[0].device if args and isinstance(args[0], torch.Tensor) else None
        away = (name == "copy_" and args[1].device != here) or given not in (None, here)
        checks = name in ("_linalg_check_errors", "_linalg_slogdet", "equal", "is_nonzero")
        if checks or kwargs.get("check_errors") or (away and not self._of_a_constant()):
            raise AssertionError(f"{func} waits for the device")
        return func(*args, **kwargs)

    def _of_a_constant(self) -> bool:
        """Tell whether `constant` copies, which it does once on a device that has memory."""
        frame: Any = sys._getframe()
        while frame is not None and frame.f_code is not constant.__code__:
            frame = frame.f_back
        return frame is not None


@directions
def test_it_runs_without_waiting(layer_name: str, direction: str, torch_layer: Any) -> None:
    """No constant stays on the CPU, no value is read by the host, and nothing else waits.

    The tensors have no memory; as "lazy" ones they need no driver, as those of "cuda" do.
    """
    layer, x = torch_layer(layer_name, dtype=torch.float16)  # what float32 runs, and casts
    module = Everything(layer, direction)
    state = module.state_dict()
    with FakeTensorMode(), WithoutWaits(), torch.no_grad():
        fake = {n: torch.empty(t.shape, dtype=t.dtype, device="lazy") for n, t in state.items()}
        image = torch.empty(x.shape, dtype=x.dtype, device="lazy")
        results: list[Any] = functional_call(module, fake, (image,))
    assert {r.device.type for r in results} == {"lazy"}
    assert results[0].shape == results[1].shape == x.shape
    assert (results[0].dtype, results[2].dtype) == (torch.float16, torch.float32)


@pytest.mark.slow
@directions
def test_a_periodic_layer_compiles_with_dynamic_shapes(direction: str) -> None:
    layer = it.PeriodicConv2d(3, 2, max_gain=20.0)
    run = getattr(layer, direction)
    compiled = torch.compile(run, backend="aot_eager", fullgraph=True, dynamic=True)
    for grid in ((8, 8), (6, 10)):
        x = torch.randn(2, 3, *grid)
        torch.testing.assert_close(compiled(x), run(x))


def test_a_constant_is_copied_to_a_device_once() -> None:
    """As on CUDA, which waits for each copy; device "meta" stands for it."""
    values, there = np.arange(6.0).reshape(2, 3), torch.zeros(1, device="meta")
    with FakeTensorMode():  # what is traced leaves no constant behind
        constant(values, there)
    torch.func.vmap(lambda x: constant(values, x) + x)(torch.zeros(2, 1, device="meta"))
    with torch.inference_mode():
        first = constant(values, there)
    assert type(first) is torch.Tensor
    assert not first.is_inference()
    assert (first.shape, first.dtype, first.device.type) == ((2, 3), torch.float64, "meta")
    assert constant(values.copy(), there) is first
    for other in (values.T, values.astype(np.float32), values + 1):
        assert constant(other, there) is not first
    assert constant(values, there, torch.complex64).dtype == torch.complex64
