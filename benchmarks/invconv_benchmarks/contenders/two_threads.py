"""A prepared inverse with one thread and with two, in NumPy and in PyTorch."""

from __future__ import annotations

from functools import partial

from invconv_benchmarks.contenders.ours import prepared
from invconv_benchmarks.contenders.setup import Setup
from invconv_benchmarks.measure.contender import Contender
from invconv_benchmarks.measure.threads import set_number


def contenders(setup: Setup) -> list[Contender]:
    """Return the same call twice; each sets the number of threads as its turn comes."""
    library = setup.target.library.name
    if library not in ("numpy", "torch") or setup.target.on_cuda:
        return []
    return [
        Contender(name, role, "inverse", setup.target, partial(prepared, setup),
                  before=partial(set_number, library, count))  # fmt: skip
        for name, role, count in (("one thread", "plain", 1), ("two threads", "ours", 2))
    ]
