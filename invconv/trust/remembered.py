"""Condition numbers and judgements that an operator remembers, by kind and grid."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from invconv.arrays.namespaces import Shape

T = TypeVar("T")

_MOST = 64  # grids, of all kinds


class ConditionCache:
    """What was found last; a copy or a pickle of an operator has forgotten it."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, Shape], Any] = {}

    def find(self, kind: str, shape: Shape, compute: Callable[[], T]) -> T:
        """Return what is known of a kind on a grid, computed where it is not."""
        found: T | None = self._known.get((kind, shape))
        if found is None:
            found = compute()
            if len(self._known) >= _MOST:
                self._known.clear()
            self._known[kind, shape] = found
        return found

    def get(self, kind: str, shape: Shape) -> Any:
        """Return what was computed, or None."""
        return self._known.get((kind, shape))
