"""The calls into invconv that are timed."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from invconv.arrays.namespaces import to_numpy
from invconv_benchmarks.contenders.setup import Setup
from invconv_benchmarks.measure.contender import Call, Contender


def contenders(setup: Setup) -> list[Contender]:
    """Return one contender for each thing that the group does."""
    return [
        setup.contender(
            f"invconv {does}",
            "ours",
            does,
            partial(_BUILD[does], setup),
            to_numpy if does == "inverse" else None,
        )
        for does in setup.group.does
        if does != "unprepared" or setup.target.mode == "eager"  # compiled code makes no plan
    ]


def prepared(setup: Setup) -> Call:
    """Return the inverse with its plan made."""
    return setup.on_images(setup.conv.prepare(setup.grid, check=False).inverse)


def _forward(setup: Setup) -> Call:
    return setup.on_images(setup.conv.forward)


def _unprepared(setup: Setup) -> Call:
    """Return an inverse with new weights, as a training step has."""
    conv, x, grid = setup.conv, setup.x, setup.grid
    return lambda: conv.prepare(grid, check=False).inverse(x)


_BUILD: dict[str, Callable[[Setup], Call]] = {
    "forward": _forward,
    "inverse": prepared,
    "unprepared": _unprepared,
}
