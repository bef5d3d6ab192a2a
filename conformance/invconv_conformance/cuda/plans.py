"""Whether every case of the list has a plan, on devices of any size of shared memory."""

from __future__ import annotations

import itertools

from invconv.kernels.cuda.plan import LEAST_SHARED_MEMORY, SHARED_MEMORY, Device
from invconv_conformance.cases.table import CASES
from invconv_conformance.cuda.draws import factors
from invconv_conformance.cuda.jobs import plan_for

SHARED = tuple(sorted({LEAST_SHARED_MEMORY, *SHARED_MEMORY.values()}))
EXPECTED: frozenset[str] = frozenset()  # cases that wavefronts solve on some device


def without_plan() -> tuple[int, list[str]]:
    """Return how many plans were asked for, and the unexpected answers."""
    asked, wrong = 0, []
    for case in CASES:
        for conv, shared, itemsize in itertools.product(factors(case.conv()), SHARED, (4, 8)):
            asked += 1
            plan = plan_for(conv, case.spatial_shape, itemsize, Device(90, shared, 132))
            if (plan is None) != (case.name in EXPECTED):
                wrong.append(f"{case.name} ({shared} bytes, float{8 * itemsize})")
    return asked, wrong
