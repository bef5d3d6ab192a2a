"""Condition numbers and judgements that an operator remembers, by kind and grid."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from invconv.arrays.namespaces import Shape

T = TypeVar("T")

_MOST = 64  # grids, of all kinds


class ConditionCache:
    """The cache of an operator's last results; copies and pickles of the operator drop it."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, Shape], Any] = {}

    def find(self, kind: str, shape: Shape, compute: Callable[[], T]) -> T:
        """Return the result of a kind on a grid; compute and keep it if it is not known."""
        result: T | None = self._known.get((kind, shape))
        if result is None:
            result = compute()
            if len(self._known) >= _MOST:
                self._known.clear()
            self._known[kind, shape] = result
        return result

    def get(self, kind: str, shape: Shape) -> Any:
        """Return the result of a kind on a grid, or None if it is not known."""
        return self._known.get((kind, shape))
