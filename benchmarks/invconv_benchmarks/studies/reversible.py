"""Memory and time of backpropagation with and without stored activations.

``python -m invconv_benchmarks.studies.reversible`` takes the gradient of the likelihood of
16x12x32x32 images under a chain of emerging convolutions, with one thread. Memory is what a
gradient needs at its peak beyond images and parameters: in PyTorch as Linux counts it, of a second
gradient in a process of its own; in JAX as XLA's compiler plans it. Times are medians of calls that
take turns; JAX's compile time stands apart.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from rich.table import Table

from invconv_benchmarks.measure import memory, processes, timing
from invconv_conformance import printing
from invconv_conformance.libraries.environment import environment

SHAPE = (16, 12, 32, 32)
IMAGE_BYTES = 4 * SHAPE[0] * SHAPE[1] * SHAPE[2] * SHAPE[3]
ROUNDS = 5
VERSIONS = ("stored", "reversible")
LIBRARIES = ("torch", "jax")
_ONE_THREAD = {"OMP_NUM_THREADS": "1"}


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


@dataclass(frozen=True)
class Cost:
    """Memory and time of a gradient in one version.

    Attributes
    ----------
    version : {"stored", "reversible"}
    peak : int or None
        Bytes, None where nothing can tell.
    seconds : float
    compile : float or None
        Seconds of compiling, None in PyTorch.
    """

    version: str
    peak: int | None
    seconds: float
    compile: float | None = None


def _torch_peak(version: str, depth: int) -> int | None:
    """Return the peak bytes of a second gradient."""
    step = _torch_steps(depth)[version]
    step()  # layers are judged, oneDNN plans
    return memory.peak_of(step)[0]


def _torch(depth: int) -> list[Cost]:
    with environment(_ONE_THREAD | memory.ENVIRONMENT):
        peaks = {version: processes.call(_torch_peak, version, depth) for version in VERSIONS}
    seconds = timing.medians(_torch_steps(depth), ROUNDS)
    return [Cost(version, peaks[version], seconds[version]) for version in VERSIONS]


def _jax(depth: int) -> list[Cost]:
    steps, compiled = _jax_steps(depth)
    seconds = timing.medians(steps, ROUNDS)
    return [Cost(v, compiled[v][0], seconds[v], compiled[v][1]) for v in VERSIONS]


def measure(library: str, depth: int) -> list[Cost]:
    """Return what both versions cost in a library, from a process of its own."""
    with environment(_ONE_THREAD):
        return processes.call({"torch": _torch, "jax": _jax}[library], depth)


def table(title: str, costs: Sequence[Cost]) -> Table:
    """Return a line for each version, and one for their ratio."""
    shown = Table("version", "peak, in images", "seconds", "compile, s", title=title)
    for cost in costs:
        images = "unknown" if cost.peak is None else f"{cost.peak / IMAGE_BYTES:.1f}"
        compiled = "" if cost.compile is None else f"{cost.compile:.1f}"
        shown.add_row(cost.version, images, f"{cost.seconds:.3f}", compiled)
    stored, ours = costs
    share = f"1/{stored.peak / ours.peak:.1f}" if stored.peak and ours.peak else "unknown"
    shown.add_row("ratio", share, f"{ours.seconds / stored.seconds:.2f}", "")
    return shown


def main(argv: Sequence[str] | None = None) -> None:
    """Print a table for each library."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--depth", type=int, default=64)
    parser.add_argument("--library", choices=LIBRARIES, help="instead of both")
    arguments = parser.parse_args(argv)
    for library in [arguments.library] if arguments.library else LIBRARIES:
        costs = measure(library, arguments.depth)
        printing.console().print(table(f"{library}, {arguments.depth} layers", costs))


if __name__ == "__main__":
    main()
