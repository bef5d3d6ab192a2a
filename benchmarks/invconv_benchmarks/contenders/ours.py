"""The calls into invconv that are timed, with one thread and two, with a check and without."""

from collections.abc import Callable
from functools import cache, partial

import numpy as np

import invconv as ic
from invconv.arrays.namespaces import to_numpy
from invconv_benchmarks.contenders.setup import Setup
from invconv_benchmarks.measure.contender import Call, Contender, set_threads
from invconv_benchmarks.suites import checked


def contenders(setup: Setup) -> list[Contender]:
    """Return one contender for each thing that the group does."""
    build: dict[str, Callable[[], Call]] = {
        "forward": lambda: setup.on_images(setup.conv.forward),
        "inverse": partial(_prepared, setup),
        "unprepared": partial(_unprepared, setup),
    }
    return [
        setup.contender(
            f"invconv {does}", "ours", does, build[does], to_numpy if does == "inverse" else None
        )
        for does in setup.group.does
        if does != "unprepared" or setup.target.mode == "eager"  # compiled code makes no plan
    ]


def _prepared(setup: Setup) -> Call:
    return setup.on_images(setup.conv.prepare(setup.grid, check=False).inverse)


def _unprepared(setup: Setup) -> Call:
    """Return an inverse with new weights, as a training step has."""
    conv, x, grid = setup.conv, setup.x, setup.grid
    return lambda: conv.prepare(grid, check=False).inverse(x)


def threads(setup: Setup) -> list[Contender]:
    """Return a prepared inverse twice; each sets the number of threads as its turn comes."""
    target, build = setup.target, partial(_prepared, setup)
    ways = {1: ("one thread", "plain"), 2: ("two threads", "ours")}
    return [
        Contender(
            *way, "inverse", target, build, before=partial(set_threads, target.library.name, n)
        )
        for n, way in ways.items()
        if target.library.name in ("numpy", "torch") and not target.on_cuda
    ]


def checks(setup: Setup) -> list[Contender]:
    """Return a solve, one with its check, and a diagnosis, of operators that remember nothing."""
    group, grid, y, build = setup.group, setup.grid, setup.values, cache(checked.build)
    calls: dict[str, Call] = {
        "solve": lambda: build(group).replace().prepare(grid, check=False).inverse(y),
        "check": lambda: build(group).replace().inverse(y),
        "diagnosis": lambda: ic.diagnose(build(group).replace(), grid).digits,
    }
    quiet = np.errstate(all="ignore")  # operators are moved until their inverses grow
    return [
        setup.contender(does, "plain" if does == "solve" else "ours", does, partial(quiet, call))
        for does, call in calls.items()
        if setup.target.library.name == "numpy"
    ]
