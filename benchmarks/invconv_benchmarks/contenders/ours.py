"""The calls into invconv that are timed."""

from __future__ import annotations

from typing import Any

from invconv.arrays.namespaces import to_numpy
from invconv.kernels.maps import factor
from invconv_benchmarks.contenders.setup import Setup
from invconv_benchmarks.measure.contender import Call, Contender
from invconv_conformance.libraries.table import Target


def contenders(setup: Setup) -> list[Contender]:
    """Return one contender for each thing that the group does."""
    build = {
        "forward": lambda: setup.on_images(setup.conv.forward),
        "inverse": lambda: prepared(setup),
        "kernel": lambda: _kernel(setup),
        "unprepared": lambda: _unprepared(setup),
        "matrix": lambda: _matrix(setup),
    }
    found = []
    for does in setup.group.does:
        if _is_done(does, setup.target):
            images = to_numpy if does in ("inverse", "kernel") else None
            name = does if does == "kernel" else f"invconv {does}"
            found.append(setup.contender(name, "ours", does, build[does], images=images))
    return found


def _is_done(does: str, target: Target) -> bool:
    on_numpy = target.library.name == "numpy"
    if does == "matrix":
        return on_numpy
    if does == "kernel":
        return on_numpy or target.on_cuda  # elsewhere the kernel is NumPy's
    return does != "unprepared" or target.mode == "eager"  # compiled code makes no plan


def prepared(setup: Setup) -> Call:
    """Return the inverse with its plan made."""
    return setup.on_images(setup.conv.prepare(setup.grid, check=False).inverse)


def _kernel(setup: Setup) -> Call:
    """Return the solve alone, without the operator's checks and bias."""
    conv: Any = setup.conv
    solve = factor(conv._family.linear, conv.kernel, setup.grid)
    if setup.target.on_cuda and solve.plan["method"] != "CUDA kernel":
        raise RuntimeError(f"no CUDA kernel here: {solve.plan['method']}")
    return setup.on_images(solve)


def _unprepared(setup: Setup) -> Call:
    """Return an inverse with new weights, as a training step has."""
    conv, x, grid = setup.conv, setup.x, setup.grid
    return lambda: conv.prepare(grid, check=False).inverse(x)


def _matrix(setup: Setup) -> Call:
    conv: Any = setup.conv
    return lambda: conv.matrix()
