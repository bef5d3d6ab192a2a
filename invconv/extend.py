"""Tools for authors of operators and of array libraries.

A class of operators says its fields by `array` and `part`. For a library, `register_backend` takes
a module of native primitives, `ArrayOps` is what its ``ARRAY_OPS`` derives from, and inside
`agnostic` every primitive runs as pure array API.
"""

from invconv.arrays.array_ops import ArrayOps, register_backend
from invconv.arrays.registry import agnostic
from invconv.operators.base.fields import array, part

__all__ = ["ArrayOps", "agnostic", "array", "part", "register_backend"]
