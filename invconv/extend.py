"""Tools for authors of array libraries: an adapter's answers, its registration, and no adapter.

`register_backend` takes a module of native primitives, `ArrayOps` is what its ``ARRAY_OPS`` derives
from, and inside `agnostic` every primitive runs as pure array API.
"""

from invconv.arrays.array_ops import ArrayOps, register_backend
from invconv.arrays.registry import agnostic

__all__ = ["ArrayOps", "agnostic", "register_backend"]
