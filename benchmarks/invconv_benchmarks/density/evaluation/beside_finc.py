"""Seconds that 100 samples of a whole Glow take, beside those that FInC Flow's authors publish.

``python -m invconv_benchmarks.density.evaluation.beside_finc [--device cuda:0]`` prints the table.
Not yet run on a GPU.

The flow is that of the paper's CIFAR-10 at initialisation, in float32 without TF32: with emerging
convolutions (kept inverses, in eval mode) and with plain 1x1s in their place, called and as one
captured graph. The published numbers are of FInC Flow's repository, of other hardware, about 38.5 M
parameters and a batch that is not stated: what can be compared are orders of magnitude.
"""

import argparse
from typing import Any

import torch

from invconv_benchmarks.measure import timing
from invconv_benchmarks.measure.contender import wait
from invconv_benchmarks.measure.gpu import full_precision, with_graphs
from invconv_benchmarks.report.tables import new
from invconv_conformance import printing
from invconv_conformance.libraries.table import KNOWN, Target
from invconv_torch.flows import Glow

_SIZES, _SAMPLES, _ROUNDS = (8, 16, 32, 64), 100, 5
_GLOW: dict[str, Any] = {"levels": 3, "depth": 32, "width": 512}
_PUBLISHED = {
    "FInC": (0.175, 0.253, 0.528, 1.77),
    "MaCow": (1.67, 2.66, 4.76, 9.38),
    "CInC": (0.359, 3.35, 9.20, 34.1),
    "Emerging, their authors' code": (1.17, 4.42, 17.8, 72.3),
}


@torch.no_grad()  # type: ignore[untyped-decorator]
def measure(target: Target, size: int) -> dict[str, float]:
    """Return the median seconds of all ways to sample images of a size; they take turns."""
    calls = {}
    for mixing in ("emerging", "plain"):
        model = Glow((3, size, size), mixing=mixing, **_GLOW).to(target.device).eval()
        first, *others = model.draw_latents(_SAMPLES, torch.Generator().manual_seed(0))
        for way in with_graphs([target]):
            run = way.compile(lambda z, model=model, others=others: model.decode([z, *others]))
            name = mixing if way is target else f"{mixing}, captured graph"
            calls[name] = lambda run=run, z=first: wait(target, run(z))
    return timing.medians(calls, _ROUNDS)


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--device", default="cuda:0", help="default: %(default)s")
    target = Target(KNOWN["torch"], parser.parse_args().device)
    full_precision(target)
    shown = new(f"seconds on {target.device}", ("",), tuple(map(str, _SIZES)))
    columns = [measure(target, size) for size in _SIZES]
    rows = {f"invconv, {way}": [column[way] for column in columns] for way in columns[0]}
    for name, published in _PUBLISHED.items():
        rows[f"{name} (published, other hardware)"] = list(published)
    for name, seconds in rows.items():
        shown.add_row(name, *(f"{s:.3g}" for s in seconds))
    printing.console().print(shown)


if __name__ == "__main__":
    main()
