"""What is compared with itself: solves with one thread and with two, and with and without a check.

Operators remember what was found, so each checked call has an operator that remembers nothing.
"""

from __future__ import annotations

from functools import cache, partial

import numpy as np

import invconv as ic
from invconv_benchmarks.contenders.ours import prepared
from invconv_benchmarks.contenders.setup import Setup
from invconv_benchmarks.measure.contender import Call, Contender
from invconv_benchmarks.measure.threads import set_number
from invconv_benchmarks.suites import checked


def threads(setup: Setup) -> list[Contender]:
    """Return a prepared inverse twice; each sets the number of threads as its turn comes."""
    target, build = setup.target, partial(prepared, setup)
    ways = {1: ("one thread", "plain"), 2: ("two threads", "ours")}
    return [
        Contender(
            *way, "inverse", target, build, before=partial(set_number, target.library.name, n)
        )
        for n, way in ways.items()
        if target.library.name in ("numpy", "torch") and not target.on_cuda
    ]


def checks(setup: Setup) -> list[Contender]:
    """Return a solve without its check, one with it, and a diagnosis, of NumPy arrays."""
    group, grid, y, build = setup.group, setup.grid, setup.values, cache(checked.build)
    calls: dict[str, Call] = {
        "solve": lambda: build(group).replace().prepare(grid, check=False).inverse(y),
        "check": lambda: build(group).replace().inverse(y),
        "diagnosis": lambda: ic.diagnose(build(group).replace(), grid).digits,
    }
    return [
        setup.contender(does, "plain" if does == "solve" else "ours", does, partial(_quiet, call))
        for does, call in calls.items()
        if setup.target.library.name == "numpy"
    ]


def _quiet(call: Call) -> Call:
    """Return a call that tells of no overflow: operators are moved until their inverses grow."""
    return np.errstate(all="ignore")(call)
