"""What a gradient through an inverse costs in PyTorch, beside one through a plain convolution.

Run with ``python -m invconv_benchmarks.torch_inverse``. Both are forward and backward, by input and
kernel, with one thread: the inverse of an autoregressive 2 x 2 convolution, and `conv2d` with a
2 x 2 kernel of an image that is padded already. Times are medians of interleaved runs. Memory is
what autograd keeps for the backward pass, parameters aside, in images.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F

from invconv_benchmarks.suites import LIMIT_SHAPES
from invconv_torch import AutoregressiveConv2d

SHAPES = tuple(shape for shape in LIMIT_SHAPES if shape[0] > 1)

Step = Callable[[], Any]


def inverse_step(shape: tuple[int, ...], dtype: torch.dtype) -> Step:
    """Return a function that runs the inverse and its gradient."""
    layer = AutoregressiveConv2d(shape[1], bias=False, dtype=dtype)
    y = torch.randn(shape, dtype=dtype, requires_grad=True)
    x_bar = torch.randn(shape, dtype=dtype)

    def step() -> None:
        x, _ = layer.inverse(y)
        torch.autograd.grad(x, (y, layer.kernel), x_bar)

    return step


def conv2d_step(shape: tuple[int, ...], dtype: torch.dtype) -> Step:
    """Return a function that runs a convolution and its gradient."""
    batch, channels, height, width = shape
    kernel = torch.randn(channels, channels, 2, 2, dtype=dtype, requires_grad=True)
    x = torch.randn(batch, channels, height + 1, width + 1, dtype=dtype, requires_grad=True)
    y_bar = torch.randn(shape, dtype=dtype)

    def step() -> None:
        torch.autograd.grad(F.conv2d(x, kernel), (x, kernel), y_bar)

    return step


def medians(steps: Sequence[Step], rounds: int) -> list[float]:
    """Return the median seconds of each step; they take turns, so that all meet the same load."""
    samples: list[list[float]] = [[] for _ in steps]
    for turn in range(rounds + 1):
        for step, times in zip(steps, samples, strict=True):
            start = time.perf_counter()
            step()
            if turn:  # the first one makes plans
                times.append(time.perf_counter() - start)
    return [statistics.median(times) for times in samples]


def images_kept(shape: tuple[int, ...]) -> float:
    """Return what autograd keeps of an inverse, in images; each storage counts once."""
    layer = AutoregressiveConv2d(shape[1], bias=False)
    own = {p.untyped_storage().data_ptr() for p in layer.parameters()}
    kept: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    y = torch.randn(shape, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        x, _ = layer.inverse(y)
    del x
    return float(sum(kept.values()) / (y.numel() * y.element_size()))


def main(argv: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--dtype", choices=("float32", "float64"), default="float32")
    arguments = parser.parse_args(argv)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    dtype = getattr(torch, arguments.dtype)
    print(f"torch {torch.__version__}, {arguments.dtype}, one thread, CPU; milliseconds, medians")
    print(f"{'B, C, H, W':>18}  {'inverse':>9}  {'conv2d':>9}  {'ratio':>6}  {'images kept':>11}")
    for shape in SHAPES:
        steps = [inverse_step(shape, dtype), conv2d_step(shape, dtype)]
        ours, theirs = medians(steps, arguments.rounds)
        name = ", ".join(map(str, shape))
        print(
            f"{name:>18}  {1e3 * ours:9.2f}  {1e3 * theirs:9.2f}  {ours / theirs:6.2f}  "
            f"{images_kept(shape):11.2f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
