"""Validation of reflectors; `invconv.kernels.reflections` has the reflections."""

from __future__ import annotations

from invconv.arrays.namespaces import Array, readable, to_numpy


def require_reflectors(reflectors: Array) -> None:
    """Raise ValueError if a vector of an array (m, C) is zero."""
    if readable(reflectors):
        zero = ~to_numpy(reflectors).any(axis=1)
        if zero.any():
            raise ValueError(
                f"reflectors: expected no zero vector, got one in row {int(zero.argmax())}"
            )
