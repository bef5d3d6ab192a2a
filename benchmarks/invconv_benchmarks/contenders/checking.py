"""A solve without its check, one with it, and a diagnosis, of new objects each time.

Operators remember what was found, so each call has an operator that remembers nothing.
"""

from __future__ import annotations

import functools
from functools import partial

import numpy as np

import invconv as ic
from invconv_benchmarks.contenders.setup import Setup
from invconv_benchmarks.measure.contender import Call, Contender
from invconv_benchmarks.suites import checked


def contenders(setup: Setup) -> list[Contender]:
    """Return the three calls, of NumPy arrays."""
    if setup.target.library.name != "numpy":
        return []
    operator, grid = functools.cache(checked.build), setup.grid
    group, y = setup.group, setup.values
    calls: dict[str, Call] = {
        "solve": lambda: operator(group).replace().prepare(grid, check=False).inverse(y),
        "check": lambda: operator(group).replace().inverse(y),
        "diagnosis": lambda: ic.diagnose(operator(group).replace(), grid).digits,
    }
    roles = {"solve": "plain", "check": "ours", "diagnosis": "ours"}
    return [
        setup.contender(does, roles[does], does, partial(_quiet, calls[does]))
        for does in group.does
    ]


def _quiet(call: Call) -> Call:
    """Return a call that tells of no overflow: operators are moved until their inverses grow."""
    return np.errstate(all="ignore")(call)
