"""What a `ConditionGuard` costs while a flow trains, in PyTorch and in JAX.

``python -m invconv_benchmarks.guard_cost`` trains a chain of emerging convolutions on random
16x12x32x32 images with a guard of the default budget, one thread, for some seconds. The share is
the time spent in ``guard.step()``, and in the hooks by which PyTorch's guard follows the model,
over the time of training; a single look at a layer, which costs much more than a step, and how
often each layer was looked at, stand beside it.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

SHAPE = (16, 12, 32, 32)


@dataclass
class Seconds:
    """How long the steps of a training took, and the guard after each of them."""

    steps: list[float] = field(default_factory=list)
    guard: list[float] = field(default_factory=list)

    @property
    def share(self) -> float:
        """The guard's time over all."""
        return sum(self.guard) / (sum(self.steps) + sum(self.guard))

    @property
    def looks(self) -> list[float]:
        """The guard's times that were no mere glance at the clock."""
        return [seconds for seconds in self.guard if seconds > 1e-3]


def _torch(depth: int) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """Return a training step with the guard's hooks, and the guard's step."""
    import torch

    import invconv_torch as it

    torch.set_num_threads(1)
    flow = torch.nn.ModuleList([it.EmergingConv2d(SHAPE[1]) for _ in range(depth)])
    guard = it.ConditionGuard(flow)
    optimizer = torch.optim.Adamax(flow.parameters(), lr=1e-3)
    x = torch.randn(SHAPE)

    def step() -> None:
        z: Any = x
        total: Any = 0.0
        for layer in flow:
            z, log_det = layer(z)
            total = total + log_det
        loss = (z.square().sum((1, 2, 3)) / 2 - total).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step, guard.step


def _jax(depth: int) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """Return a training step, and the guard's."""
    import jax

    import invconv as ic
    import invconv_jax as ij

    keys = jax.random.split(jax.random.key(0), depth)
    flow = [ic.Chain([ij.init(key, ic.EmergingConv, SHAPE[1]) for key in keys])]
    guard = ij.ConditionGuard(SHAPE[2:])
    x = jax.random.normal(jax.random.key(1), SHAPE, "float32")

    @jax.jit  # type: ignore[untyped-decorator]
    def descend(flow: Any) -> Any:
        def loss(flow: Any) -> Any:
            z, log_det = flow.forward_and_log_det(x)
            return ((z**2).sum((1, 2, 3)) / 2 - log_det).mean() / x[0].size

        return jax.tree.map(lambda p, g: p - 1e-3 * g, flow, jax.grad(loss)(flow))

    def step() -> None:
        flow[0] = jax.block_until_ready(descend(flow[0]))

    return step, lambda: guard.step(flow[0])


LIBRARIES = {"torch": _torch, "jax": _jax}


def train(library: str, depth: int, seconds: float) -> Seconds:
    """Train with a guard, and return what took how long."""
    step, look = LIBRARIES[library](depth)
    step()  # compiles
    found, start = Seconds(), time.perf_counter()
    with Progress(console=Console(stderr=True), transient=True) as progress:
        bar = progress.add_task(library, total=seconds)
        while (passed := time.perf_counter() - start) < seconds:
            progress.update(bar, completed=passed)
            begin = time.perf_counter()
            step()
            between = time.perf_counter()
            look()
            found.steps.append(between - begin)
            found.guard.append(time.perf_counter() - between)
    return found


def hook_cost(depth: int) -> float:
    """Return the seconds a step that the hooks of PyTorch's guard take."""
    import torch

    import invconv_torch as it

    x = torch.zeros(1, 2, 4)
    layer = it.ActNorm(2)

    def seconds() -> float:
        times = []
        for _ in range(2000):
            start = time.perf_counter()
            layer(x)
            times.append(time.perf_counter() - start)
        return statistics.median(times)

    plain = seconds()
    guard = it.ConditionGuard(layer)
    hooked = seconds()
    guard.remove()
    return depth * max(0.0, hooked - plain)


def main(argv: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, prog="invconv_benchmarks.guard_cost")
    parser.add_argument("--depth", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=60.0, help="of training, each library")
    arguments = parser.parse_args(argv)
    table = Table(title=f"{arguments.depth} layers, {arguments.seconds:g} s of training")
    for column in ("library", "a step, ms", "the guard's share", "a look, ms", "looks", "hooks"):
        table.add_column(column, justify="left" if column == "library" else "right")
    for library in LIBRARIES:
        found = train(library, arguments.depth, arguments.seconds)
        step = statistics.median(found.steps)
        hooks = hook_cost(arguments.depth) / step if library == "torch" else 0.0
        look = f"{1e3 * statistics.median(found.looks):.0f}" if found.looks else "-"
        table.add_row(
            library,
            f"{1e3 * step:.0f}",
            f"{found.share:.2%}",
            look,
            str(len(found.looks)),
            f"{hooks:.3%}",
        )
    Console().print(table)


if __name__ == "__main__":
    main()
