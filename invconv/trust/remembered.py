"""Condition numbers that an operator remembers, by kind and grid."""

from __future__ import annotations

from collections.abc import Callable

from invconv.arrays.namespaces import Shape

_MOST = 64  # grids of either kind


class ConditionCache:
    """The last condition numbers; a copy or a pickle of an operator has forgotten them."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, Shape], float] = {}

    def find(self, kind: str, shape: Shape, compute: Callable[[], float]) -> float:
        """Return the number of a kind on a grid, computed where it is not known."""
        found = self._known.get((kind, shape))
        if found is None:
            found = compute()
            if len(self._known) >= _MOST:
                self._known.clear()
            self._known[kind, shape] = found
        return found

    def get(self, kind: str, shape: Shape) -> float | None:
        """Return a number that was computed, or None."""
        return self._known.get((kind, shape))

    def knows(self, kind: str, shape: Shape) -> bool:
        """Tell whether a number was computed."""
        return (kind, shape) in self._known
