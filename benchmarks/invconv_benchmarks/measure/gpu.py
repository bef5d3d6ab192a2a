"""Clocks on CUDA devices, and PyTorch's captured graphs. Not yet run on a GPU."""

import functools
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from invconv_benchmarks.measure.contender import Call, wait
from invconv_conformance.libraries.table import Target


def mean_seconds(target: Target, call: Call, count: int) -> float:
    """Return the mean time of so many calls: on CUDA devices, of the device's own clock."""
    if target.library.name == "cupy":
        from cupyx.profiler import benchmark

        return float(benchmark(call, n_repeat=count, n_warmup=0).gpu_times.mean())
    if target.on_cuda and target.library.name == "torch":
        return _torch_events(target, call, count)
    start = time.perf_counter()
    for _ in range(count):
        wait(target, call())  # wait for every call: JAX would run several at a time
    return (time.perf_counter() - start) / count


def _torch_events(target: Target, call: Call, count: int) -> float:
    import torch

    with torch.cuda.device(target.device):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        for _ in range(count):
            call()
        end.record()
        end.synchronize()
    return float(start.elapsed_time(end)) / 1e3 / count


@dataclass(frozen=True)
class GraphTarget(Target):
    """A CUDA device whose calls are captured once in a graph and replayed."""

    def compile(self, function: Callable[[Any], Any]) -> Callable[[Any], Any]:
        """Return a function that replays what ``function`` did with its first argument."""
        captured = functools.cache(functools.partial(_torch_graph, function))
        return lambda x: captured(x)()


def with_graphs(targets: list[Target]) -> list[Target]:
    """Return targets, and each that can capture graphs a second time in mode "graph"."""
    captured = [GraphTarget(t.library, t.device, "graph") for t in targets if t.on_cuda]
    return [*targets, *(t for t in captured if t.library.name == "torch")]


def full_precision(target: Target) -> None:
    """Make a library multiply float32 at full precision in peers too, as ours always does."""
    if target.library.name == "torch":
        import torch

        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    elif target.library.name == "jax":
        import jax

        jax.config.update("jax_default_matmul_precision", "highest")


def _torch_graph(function: Callable[[Any], Any], x: Any) -> Callable[[], Any]:
    import torch

    with torch.cuda.device(x.device):
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            function(x)  # make plans and workspaces outside of the graph
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            result = function(x)

    def replay() -> Any:
        graph.replay()
        return result

    return replay
