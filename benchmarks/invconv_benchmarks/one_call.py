"""What it gains to make all products of a solve in one native call (`invconv.replay`).

``OMP_NUM_THREADS=2 python -m invconv_benchmarks.one_call --threads 2`` times prepared inverses in
NumPy and in PyTorch, with calls one by one and all in one, in turns, and prints the ratios of the
medians. Two threads are PyTorch's, which share out a batch; NumPy's inverse uses one.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any
from unittest import mock

import numpy as np
import torch
from rich.console import Console

import invconv as ic
from invconv import numpy_primitives, replay, team
from invconv.numpy_primitives import STRIDED
from invconv_benchmarks import memory
from invconv_benchmarks.gemm_share import seconds
from invconv_benchmarks.suites import LIMIT_SHAPES, Shape, as_text
from invconv_benchmarks.tables import new
from invconv_torch import in_memory, solvers

SECONDS = 0.5  # for each row, about
_NUMPY, _TORCH = replace(STRIDED), replace(in_memory.IN_MEMORY)


@contextmanager
def one_by_one() -> Iterator[None]:
    """Let solves make their calls one by one, in buffers of their own."""
    with ExitStack() as stack:
        for module in (replay, team, in_memory, numpy_primitives):
            stack.enter_context(mock.patch.object(module, "loops", return_value=None))
        stack.enter_context(mock.patch.object(numpy_primitives.Solver, "library", _NUMPY))
        for module in (in_memory, solvers):
            stack.enter_context(mock.patch.object(module, "IN_MEMORY", _TORCH))
        yield


def gain(conv: ic.InvertibleConv, y: Any) -> float:
    """Return how many times as long a solve takes with calls one by one."""
    with one_by_one():
        prepared = conv.prepare(y.shape[2:], check=False)
        prepared.inverse(y)
    in_one = conv.prepare(y.shape[2:], check=False)
    in_one.inverse(y)

    def apart() -> float:
        with one_by_one():
            return seconds(lambda: prepared.inverse(y))

    def together() -> float:
        return seconds(lambda: in_one.inverse(y))

    return ratio(apart, together)


def ratio(first: Callable[[], float], second: Callable[[], float]) -> float:
    """Return the ratio of the medians of what two take, made in turns."""
    rounds = int(np.clip(SECONDS / (first() + second()), 5, 301))
    samples = [(first(), second()) for _ in range(rounds)]
    a, b = (statistics.median(taken) for taken in zip(*samples, strict=True))
    return float(a / b)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=1, help="of PyTorch (default: 1)")
    torch.set_num_threads(parser.parse_args().threads)
    console = Console()
    taken, found = memory.peak_of(lambda: (seconds(replay.loops), replay.loops()))
    if found[1] is None:
        raise SystemExit('llvmlite is not installed: pip install "invconv[fast]"')
    console.print(
        f"loading llvmlite and compiling, once a process: {1e3 * found[0]:.0f} ms"
        + ("" if taken is None else f", {taken / 1e6:.0f} MB")
    )
    table = new("", ("images",), ("NumPy", "PyTorch"))
    with console.status("measuring"):
        for shape in LIMIT_SHAPES:
            for dtype in ("float32", "float64"):
                table.add_row(
                    f"{as_text(shape)} {dtype.replace('float', 'f')}", *_row(shape, dtype)
                )
    console.print(table)
    console.print("time with one call each / time with all in one, one 2 x 2 corner")


def _row(shape: Shape, dtype: str) -> Iterator[str]:
    rng = np.random.default_rng(0)
    y = rng.standard_normal(shape).astype(dtype)
    for like in (y, torch.from_numpy(y)):
        conv = ic.AutoregressiveConv.init(shape[1], kernel_size=2, rng=rng, like=like)
        yield f"{gain(conv, like):.2f}"


if __name__ == "__main__":
    main()
