"""Seconds that 100 samples of a whole Glow take, beside those that FInC Flow's authors publish.

``python -m invconv_benchmarks.density.evaluation.beside_finc [--device cuda:0]`` prints the table.
Not yet run on a GPU.

The flow is that of the paper's CIFAR-10 at initialisation, in float32 without TF32: with emerging
convolutions (kept inverses, in eval mode) and with plain 1x1s in their place, called and as one
captured graph. The published numbers are of FInC Flow's repository, of other hardware, about 38.5 M
parameters and a batch that is not stated: what can be compared are orders of magnitude.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

import torch
from rich.table import Table

from invconv_benchmarks.measure import environment, timing
from invconv_benchmarks.measure.contender import wait
from invconv_benchmarks.measure.gpu import full_precision, with_graphs
from invconv_benchmarks.report.tables import new
from invconv_conformance import printing
from invconv_conformance.libraries.table import KNOWN, Target
from invconv_torch.flows import Glow

SIZES = (8, 16, 32, 64)
GLOW: dict[str, Any] = {"levels": 3, "depth": 32, "width": 512}
PUBLISHED = {
    "FInC": (0.175, 0.253, 0.528, 1.77),
    "MaCow": (1.67, 2.66, 4.76, 9.38),
    "CInC": (0.359, 3.35, 9.20, 34.1),
    "Emerging, their authors' code": (1.17, 4.42, 17.8, 72.3),
}
_ROUNDS = 5

Seconds = dict[str, dict[int, float]]


@torch.no_grad()  # type: ignore[untyped-decorator]
def measure(target: Target, sizes: Sequence[int] = SIZES, count: int = 100, **glow: int) -> Seconds:
    """Return the median seconds of all ways to sample, by way and size; they take turns."""
    full_precision(target)
    seconds: Seconds = {}
    for size in sizes:
        calls = {}
        for mixing in ("emerging", "plain"):
            model = Glow((3, size, size), mixing=mixing, **GLOW | glow).to(target.device).eval()
            first, *others = model.draw_latents(count, torch.Generator().manual_seed(0))

            def decode(z: Any, model: Any = model, others: Any = others) -> Any:
                return model.decode([z, *others])

            for way in with_graphs([target]):
                name = mixing if way is target else f"{mixing}, captured graph"
                run = way.compile(decode)
                calls[name] = lambda run=run, z=first: wait(target, run(z))
        for name, median in timing.medians(calls, _ROUNDS).items():
            seconds.setdefault(name, {})[size] = median
    return seconds


def table(ours: Seconds, where: str) -> Table:
    """Return our seconds and the published ones."""
    shown = new(f"seconds for 100 samples of a Glow on {where}", ("",), tuple(map(str, SIZES)))
    for way, of in ours.items():
        shown.add_row(f"invconv, {way}", *(f"{of[n]:.3g}" if n in of else "-" for n in SIZES))
    for name, numbers in PUBLISHED.items():
        shown.add_row(f"{name} (published, other hardware)", *(f"{n:.3g}" for n in numbers))
    return shown


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--device", default="cuda:0", help="default: %(default)s")
    device = parser.parse_args(argv).device
    if device.startswith("cuda") and not torch.cuda.is_available():
        parser.error(f"--device {device}: needs an NVIDIA GPU and a build of PyTorch for CUDA")
    target, here = Target(KNOWN["torch"], device), environment.environment()
    where = next(iter(here["gpus"]), device) if target.on_cuda else here["cpu"]
    printing.console().print(table(measure(target), f"{where}, {device}"))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
