"""Every call that is timed for a group, and the targets that it is timed on."""

from __future__ import annotations

from collections.abc import Sequence

from invconv_benchmarks.contenders import (
    checking,
    devices,
    layers,
    ours,
    plain,
    references,
    two_threads,
)
from invconv_benchmarks.contenders.setup import Setup
from invconv_benchmarks.measure.contender import Contender
from invconv_benchmarks.measure.gpu import with_graphs
from invconv_benchmarks.suites.group import Group
from invconv_conformance.libraries.table import LIBRARIES, Target


def targets_of(names: Sequence[tuple[str, str]]) -> list[Target]:
    """Return the targets of (library, device) names, compiled where the library compiles."""
    known = {library.name: library for library in LIBRARIES}
    found = []
    for name, device in names:
        library = known[name]
        library.devices()  # this enables float64 in JAX
        found.append(Target(library, device, "jit" if "jit" in library.modes else "eager"))
    return with_graphs(found)


_SUITES = {"overhead": layers, "threads": two_threads, "checks": checking}


def contenders(group: Group, targets: Sequence[Target]) -> list[Contender]:
    """Return all contenders of a group on all targets."""
    setups = [Setup(group, target) for target in targets]
    if group.suite in _SUITES:
        return [c for s in setups for c in _SUITES[group.suite].contenders(s)]
    modules = (ours,) if group.axis else (ours, devices, plain, references)
    return [c for s in setups for m in modules for c in m.contenders(s)]
