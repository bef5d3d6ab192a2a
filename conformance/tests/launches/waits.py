"""Which operations of PyTorch's layers would make the host wait for a CUDA device.

``python -m tests.launches.waits LIBRARY`` loads `cuda_without_gpu` from where it was compiled, and
for each line of its input, ``[NAME ...] [--half] [--launched FOLDER] [--plant]``, runs layers of
`LAYERS` on fake CUDA tensors in all directions with autograd, in a fork. It prints a line for each
operation that waits: its layer, what was done, and the operation; then how many were looked at; and
last the status that the fork ended with.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # before PyTorch asks for its CUDA devices
    ctypes.CDLL(sys.argv[1])

import torch
import torch._dynamo  # seconds, which fake tensors else take in every fork
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    FakeTensor,
    FakeTensorMode,
)
from torch.utils._python_dispatch import TorchDispatchMode

import invconv_torch
from invconv.arrays import namespaces
from invconv.kernels.cuda.launch import DeviceOps
from invconv_torch import remembered
from invconv_torch.native import host, launches, matrices, solvers, terms
from tests.conftest import TORCH_LAYERS

# operators that wait, and that have no tag which says so
_NAMES = {"_linalg_check_errors", "_linalg_slogdet", "equal", "is_nonzero", "item", "slogdet"}
_TAGS = {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape}


def waits(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Tell whether an operation on CUDA tensors ends when they are computed."""
    name = func.overloadpacket.__name__
    if name in ("index", "index_put", "index_put_"):  # tagged, for their masks
        return any(i is not None and i.dtype in (torch.bool, torch.uint8) for i in args[1])
    if name in _NAMES or _TAGS & set(func.tags) or kwargs.get("check_errors"):
        return True
    if name == "copy_":
        return bool(args[0].device != args[1].device)
    return bool(name == "_to_copy" and kwargs.get("device", args[0].device) != args[0].device)


class Looker(TorchDispatchMode):  # type: ignore[misc]
    """Takes note of operations that wait."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.seen = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation."""
        kwargs = kwargs or {}
        self.seen += 1
        if waits(func, args, kwargs) and not _of_a_constant():
            self.found.append(str(func))
        return func(*args, **kwargs)


def _of_a_constant() -> bool:
    """Tell whether `constant` copies, which it does once on a device that has memory."""
    frame: Any = sys._getframe()
    while frame is not None and frame.f_code is not namespaces.constant.__code__:
        frame = frame.f_back
    return frame is not None


def steps(layer: Any, x: Any) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Yield what is done with a layer."""
    leaves = [x, *layer.parameters()]
    for direction in ("forward", "inverse"):
        run = getattr(layer, direction)
        yield f"{direction} and backward", partial(_once, run, x)
        yield f"second derivative of {direction}", partial(_twice, run, x, leaves)
        yield f"{direction}_vjp", partial(_vjp, layer, direction, x)
    layer.eval()
    yield "forward in eval mode", torch.no_grad()(partial(layer.forward, x))
    for again in ("", " again"):
        yield f"inverse in eval mode{again}", torch.no_grad()(partial(layer.inverse, x))
    yield "inverse in eval mode and backward", partial(_once, layer.inverse, x)


def _loss(run: Any, x: Any) -> Any:
    y, log_det = run(x)
    return y.square().sum() + log_det.sum()


def _once(run: Any, x: Any) -> None:
    _loss(run, x).backward()


def _twice(run: Any, x: Any, leaves: list[Any]) -> None:
    first = torch.autograd.grad(_loss(run, x), leaves, create_graph=True, materialize_grads=True)
    sum(g.square().sum() for g in first).backward()


@torch.no_grad()  # type: ignore[untyped-decorator]
def _vjp(layer: Any, direction: str, x: Any) -> Any:
    return getattr(layer.operator(), f"{direction}_vjp")(x, *getattr(layer, direction)(x))


LAYERS = TORCH_LAYERS | {
    "bounded": ("EmergingConv2d", (2,), {"max_gain": 10.0}, (3, 3)),
    "bounded-exponential": ("ExponentialConv2d", (2,), {"max_gain": 10.0}, (3, 3)),
}


def layers(names: list[str], half: bool) -> Iterator[tuple[str, Any, Any]]:
    """Yield layers with images for them."""
    for name in names or LAYERS:
        kind, arguments, settings, grid = LAYERS[name]
        dtype = torch.float16 if half else torch.float32
        options = settings | {"device": "cuda", "dtype": dtype}
        layer = getattr(invconv_torch, kind)(*arguments, **options)
        x = torch.randn(2, arguments[0], *grid, device="cuda", dtype=dtype, requires_grad=True)
        yield f"{name}, {dtype}", layer, x


def main() -> None:
    """Look as each line of the input says, in a process that has imported all."""
    parser = argparse.ArgumentParser()
    parser.add_argument("names", nargs="*")
    parser.add_argument("--half", action="store_true")
    parser.add_argument("--launched", type=Path)
    parser.add_argument("--plant", action="store_true")
    for line in sys.stdin:
        if (child := os.fork()) == 0:
            signal.alarm(600)
            try:
                look(parser.parse_args(line.split()))
                sys.stdout.flush()
                os._exit(0)  # autograd's thread of the device that is not there cannot be joined
            finally:
                traceback.print_exc()
                os._exit(1)
        print(f"ended with {os.waitpid(child, 0)[1]}", flush=True)


def look(given: argparse.Namespace) -> None:
    """Run layers and print what waits."""
    seen = 0
    vars(remembered)["queue_of"] = lambda t: (0, False)
    driver = _launch(given.launched) if given.launched else None
    vars(host)["PLAIN"] = (FakeTensor, torch.nn.Parameter)
    vars(host)["version_of"] = lambda t: (id(t), t._version)
    vars(terms)["_read"] = _norm
    if given.plant:
        vars(matrices)["log_of_pivots"] = _looks
    with FakeTensorMode():
        for name, layer, x in layers(given.names, given.half):
            for what, step in steps(layer, x):
                with Looker() as looker, contextlib.suppress(DataDependentOutputException):
                    step()
                seen += looker.seen
                for operation in looker.found:
                    print(f"{name}: {what}: {operation}")
    launched = f", {len(driver.launches)} launches" if driver else ""
    print(f"{seen} operations looked at{launched}")


def _norm(norm: Any) -> float:
    """Let a fake norm be read, after `Looker` has seen it."""
    with contextlib.suppress(DataDependentOutputException):
        float(norm)
    return 0.5


def _looks(factors: Any) -> Any:
    return torch.as_tensor(factors.diagonal(dim1=-2, dim2=-1).abs().log().sum().item())


def _launch(folder: Path) -> Any:
    """Have solves be launched on the stand-in for the driver, and only recorded."""
    from tests.launches.stand_in_driver import STREAM, Driver

    driver = Driver(folder, runs=False).install()
    ops = DeviceOps(lambda x: 0, lambda x: 0x1000, lambda x: STREAM, launches._contiguous)
    vars(solvers)["CUDA"] = ops
    return driver


if __name__ == "__main__":
    main()
