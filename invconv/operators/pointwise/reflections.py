"""Validation of reflectors; `invconv.kernels.reflections` has the reflections."""

from __future__ import annotations

from invconv.arrays.namespaces import Array, readable, to_numpy
from invconv.operators.base.parameters import require_shape


def require_reflectors(reflectors: Array, channels: int) -> None:
    """Raise ValueError unless an array (m, C) holds nonzero vectors."""
    count = reflectors.shape[0] if reflectors.ndim else 0
    require_shape("reflectors", reflectors, (count, channels), "m vectors of C numbers")
    if readable(reflectors):
        zero = ~to_numpy(reflectors).any(axis=1)
        if zero.any():
            raise ValueError(
                f"reflectors: expected no zero vector, got one in row {int(zero.argmax())}"
            )
