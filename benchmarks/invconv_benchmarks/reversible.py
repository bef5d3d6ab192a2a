"""What backpropagation without stored activations costs, beside the stored version.

``python -m invconv_benchmarks.reversible`` takes the gradient of the likelihood of 16x12x32x32
images under a chain of emerging convolutions, with one thread. Memory is what a gradient needs
at its peak beyond images and parameters: in PyTorch as Linux counts it, of a second gradient in a
process of its own, in JAX as XLA's compiler plans it (its compile time is given apart). Times are
medians of interleaved calls.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from invconv_benchmarks import memory

SHAPE = (16, 12, 32, 32)
IMAGE_BYTES = 4 * SHAPE[0] * SHAPE[1] * SHAPE[2] * SHAPE[3]
ROUNDS = 5
VERSIONS = ("stored", "reversible")


def _torch_steps(depth: int) -> dict[str, Callable[[], Any]]:
    import torch

    import invconv_torch as it

    torch.set_num_threads(1)
    torch.manual_seed(0)
    layers = [it.EmergingConv2d(SHAPE[1]) for _ in range(depth)]
    weights = [p for layer in layers for p in layer.parameters()]
    x = torch.randn(SHAPE)

    def stored(x: Any) -> tuple[Any, Any]:
        total = 0.0
        for layer in layers:
            x, log_det = layer(x)
            total = total + log_det
        return x, total

    def gradient(flow: Callable[[Any], tuple[Any, Any]]) -> Callable[[], Any]:
        def step() -> Any:
            z, log_det = flow(x)
            loss = (z.square().sum((1, 2, 3)) / 2 - log_det).mean()
            return torch.autograd.grad(loss, weights)

        return step

    return {"stored": gradient(stored), "reversible": gradient(it.ReversibleChain(layers))}


def _jax_steps(depth: int) -> tuple[dict[str, Callable[[], Any]], dict[str, tuple[int, float]]]:
    import jax

    import invconv as ic
    import invconv_jax as ij

    keys = jax.random.split(jax.random.key(0), depth)
    chain = ic.Chain([ij.init(key, ic.EmergingConv, SHAPE[1]) for key in keys])
    x = jax.random.normal(jax.random.key(1), SHAPE, "float32")

    def loss(flow: Any, x: Any) -> Any:
        z, log_det = flow.forward_and_log_det(x)
        return ((z**2).sum((1, 2, 3)) / 2 - log_det).mean()

    steps: dict[str, Callable[[], Any]] = {}
    planned: dict[str, tuple[int, float]] = {}
    for name, flow in (("stored", chain), ("reversible", ij.reversible(chain, SHAPE[2:]))):
        start = time.perf_counter()
        run = jax.jit(jax.grad(loss)).lower(flow, x).compile()
        seconds = time.perf_counter() - start
        planned[name] = int(run.memory_analysis().temp_size_in_bytes), seconds
        steps[name] = lambda run=run, flow=flow: jax.block_until_ready(run(flow, x))  # type: ignore[misc]
    return steps, planned


def medians(steps: dict[str, Callable[[], Any]]) -> dict[str, float]:
    """Return the median seconds of each, taken in turns."""
    samples: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(ROUNDS):
        for name, step in steps.items():
            start = time.perf_counter()
            step()
            samples[name].append(time.perf_counter() - start)
    return {name: statistics.median(s) for name, s in samples.items()}


def _torch_peak(version: str, depth: int) -> int | None:
    """Return the peak bytes of a gradient, measured in a process of its own."""
    environment = os.environ | memory.ENVIRONMENT
    command = [sys.executable, "-m", "invconv_benchmarks.reversible", "--depth", str(depth)]
    done = subprocess.run(
        [*command, "--peak-of", version], env=environment, check=True, capture_output=True
    )
    peak = int(done.stdout)
    return peak if peak >= 0 else None


def _print_peak(version: str, depth: int) -> None:
    """Print the peak bytes of a second gradient, -1 where nothing can tell."""
    step = _torch_steps(depth)[version]
    step()  # layers are judged, oneDNN plans
    peak, _ = memory.peak_of(step)
    print(-1 if peak is None else peak)


def measure(library: str, depth: int) -> Table:
    """Return memory and time of both versions."""
    peaks: dict[str, int | None] = {}
    compiled: dict[str, tuple[int, float]] = {}
    if library == "jax":
        steps, compiled = _jax_steps(depth)
        peaks |= {name: size for name, (size, _) in compiled.items()}
    else:
        peaks |= {version: _torch_peak(version, depth) for version in VERSIONS}
        steps = _torch_steps(depth)
    for step in steps.values():
        step()
    seconds = medians(steps)
    table = Table(
        "version", "peak, in images", "seconds", "compile, s", title=f"{library}, {depth} layers"
    )
    for name in steps:
        peak = peaks[name]
        images = "unknown" if peak is None else f"{peak / IMAGE_BYTES:.1f}"
        compile_seconds = f"{compiled[name][1]:.1f}" if compiled else ""
        table.add_row(name, images, f"{seconds[name]:.3f}", compile_seconds)
    stored, ours = (peaks[version] for version in VERSIONS)
    share = "unknown" if not (stored and ours) else f"1/{stored / ours:.1f}"
    table.add_row("ratio", share, f"{seconds['reversible'] / seconds['stored']:.2f}", "")
    return table


def main(argv: Sequence[str] | None = None) -> None:
    """Measure each library in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__, prog="invconv_benchmarks.reversible")
    parser.add_argument("--depth", type=int, default=64)
    parser.add_argument("--library", choices=("torch", "jax"), help="instead of both")
    parser.add_argument("--peak-of", choices=VERSIONS, help="print PyTorch's bytes, nothing else")
    arguments = parser.parse_args(argv)
    if arguments.peak_of:
        _print_peak(arguments.peak_of, arguments.depth)
        return
    if arguments.library:
        Console().print(measure(arguments.library, arguments.depth))
        return
    for library in ("torch", "jax"):
        command = [sys.executable, "-m", "invconv_benchmarks.reversible", "--library", library]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        depth = ["--depth", str(arguments.depth)]
        subprocess.run([*command, *depth], env=environment, check=True)


if __name__ == "__main__":
    main()
