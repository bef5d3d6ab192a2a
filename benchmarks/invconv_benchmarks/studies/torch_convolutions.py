"""PyTorch's own convolution and the compiled kernel on the CPU: which is faster, and which runs.

``python -m invconv_benchmarks.studies.torch_convolutions`` times both, forward and gradient by the
kernel, in turns in one process with one thread, and says which of them `native.correlation`
takes. Its rule should take the kernel where that is faster by a fifth, and nowhere where it is
slower.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.progress import track
from rich.table import Table

from invconv_benchmarks.contenders.everyone import targets_of
from invconv_benchmarks.contenders.setup import Setup
from invconv_benchmarks.measure import spread, turns
from invconv_benchmarks.measure.contender import Call, Contender
from invconv_benchmarks.measure.spread import Interval
from invconv_benchmarks.report.tables import new
from invconv_benchmarks.suites.group import LIMIT_SHAPES, Group, as_text
from invconv_conformance import printing

GAIN = 1.2  # from which the kernel should be taken
MAPS = ("corner 2", "corner 3")
SHAPES = (
    *LIMIT_SHAPES,
    (1, 12, 4, 4),
    (1, 12, 8, 8),
    (64, 12, 4, 4),
    (32, 48, 8, 8),
    (32, 96, 8, 8),
    (4, 96, 8, 8),
    (256, 24, 2, 2),
)
_PASSES = 3


@dataclass(frozen=True)
class Found:
    """The speed-up of the kernel over PyTorch's own convolution.

    Attributes
    ----------
    group : Group
    does : {"forward", "gradient by the kernel"}
    gain : Interval
        PyTorch's time / the kernel's.
    taken : bool
        Whether the rule takes the kernel.
    """

    group: Group
    does: str
    gain: Interval
    taken: bool

    @property
    def verdict(self) -> str:
        """Whether that is right: "miss" if it takes the slower one or leaves a gain of a fifth."""
        if self.taken:
            return self.gain.verdict(1.0, least=True)
        return self.gain.verdict(GAIN)


def compare(shapes: Sequence[Any], dtypes: Sequence[str], seconds: float) -> list[Found]:
    """Return the gain of the kernel for each map, shape and dtype; ``seconds`` for each pass."""
    import torch

    jobs = [Group("forward", m, s, (), dtype=d) for d in dtypes for m in MAPS for s in shapes]
    shown = track(jobs, "measuring", console=Console(stderr=True), transient=True)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return [found for group in shown for found in _compare(group, seconds)]
    finally:
        torch.set_num_threads(before)


def _compare(group: Group, seconds: float) -> list[Found]:
    """Time both ways in both directions."""
    import torch

    from invconv.kernels.families import StencilFamily
    from invconv_torch.native import correlation as c

    (target,) = targets_of([("torch", "cpu")])
    setup = Setup(group, target)
    x, y_bar = setup.x, torch.flip(setup.x, (0, 1))
    stencil = setup.conv._causal().stencil()  # type: ignore[attr-defined]
    taps, offsets = stencil.taps.contiguous(), stencil.offsets
    family = StencilFamily(offsets, wrap=False)
    grid = c.grid_of(offsets, False, setup.grid)
    assert grid is not None
    calls: dict[str, tuple[Call, Call, bool]] = {
        "forward": (
            lambda: c.convolution(grid, False, taps, x),
            lambda: c.correlate_compiled(family, taps, x),
            c.prefers_kernel(x),
        ),
        "gradient by the kernel": (
            lambda: c.convolution_vjp(grid, len(offsets), False, x, y_bar),
            lambda: c.compiled_vjp(family, x, y_bar),
            c.prefers_kernel_for_gradient(x, len(offsets)),
        ),
    }
    found = []
    for does, (theirs, ours, taken) in calls.items():
        both = [
            Contender(name, "ours", does, target, lambda call=call: call)  # type: ignore[misc]
            for name, call in (("PyTorch", theirs), ("kernel", ours))
        ]
        passes = [turns.measure(both, seconds) for _ in range(_PASSES)]
        pytorch, kernel = ([timings[i].samples for timings in passes] for i in range(2))
        gain = spread.ratio(pytorch, kernel, spread.between_passes([(pytorch, kernel)]))
        found.append(Found(group, does, gain, taken))
    return found


def table(found: Sequence[Found]) -> Table:
    """Return a line for each comparison."""
    shown = new(
        "one thread: gain = PyTorch's own convolution / the compiled kernel",
        ("B x C x H x W", "", "map", "does"),
        ("gain", "spread", "takes", "verdict"),
    )
    for one in found:
        shown.add_row(
            as_text(one.group.shape),
            one.group.dtype.replace("float", "f"),
            one.group.map,
            one.does,
            f"{one.gain.value:.2f}",
            f"{one.gain.low:.2f}-{one.gain.high:.2f}",
            "kernel" if one.taken else "PyTorch",
            one.verdict,
        )
    return shown


def main(argv: Sequence[str] | None = None) -> None:
    """Print the table and a count of its verdicts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="two shapes, in float32")
    parser.add_argument("--seconds", type=float, default=0.1, help="for each pass")
    arguments = parser.parse_args(argv)
    shapes = LIMIT_SHAPES[:2] if arguments.quick else SHAPES
    dtypes = ("float32",) if arguments.quick else ("float32", "float64")
    found, console = compare(shapes, dtypes, arguments.seconds), printing.console()
    console.print(table(found))
    verdicts = [one.verdict for one in found]
    counts = ", ".join(f"{verdicts.count(v)} {v}" for v in ("pass", "unclear", "miss"))
    console.print(f"the choice: {counts}", highlight=False)


if __name__ == "__main__":
    main()
