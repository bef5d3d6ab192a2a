"""Every call that is timed for a group, and the targets that it is timed on."""

from collections.abc import Sequence

from invconv_benchmarks.contenders import ours, plain, references
from invconv_benchmarks.contenders.setup import Setup
from invconv_benchmarks.measure.contender import Contender
from invconv_benchmarks.measure.gpu import with_graphs
from invconv_benchmarks.suites.group import Group
from invconv_conformance.libraries.table import KNOWN, Target


def targets_of(names: Sequence[tuple[str, str]]) -> list[Target]:
    """Return the targets of (library, device) names, compiled where the library compiles."""
    targets = []
    for name, device in names:
        library = KNOWN[name]
        library.devices()  # this enables float64 in JAX
        targets.append(Target(library, device, "jit" if "jit" in library.modes else "eager"))
    return with_graphs(targets)


def contenders(group: Group, targets: Sequence[Target]) -> list[Contender]:
    """Return all contenders of a group on all targets."""
    ways = [ours.contenders, *[plain.contenders, references.contenders] * (not group.axis)]
    if group.suite in ("threads", "checks"):
        ways = [getattr(ours, group.suite)]
    elif group.suite == "overhead":
        from invconv_benchmarks.contenders import layers  # which imports PyTorch

        ways = [layers.contenders]
    setups = [Setup(group, target) for target in targets]
    return [contender for setup in setups for way in ways for contender in way(setup)]
