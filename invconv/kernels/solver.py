"""The type of a factored matrix: a callable y -> A^-1 y with a ``plan`` that says how it runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from invconv.arrays.namespaces import Array

Map = Callable[[Array], Array]


class Solver(Protocol):
    """A factored matrix: y -> A^-1 y for y (B, C, *spatial). It can be pickled."""

    @property
    def plan(self) -> dict[str, Any]:
        """How the solve runs."""

    def __call__(self, y: Array, /) -> Array:
        """Solve for x."""
