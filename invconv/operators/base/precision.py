"""Inverses of float32 data computed in float64, for more right digits.

A solve in a precision eps has an error of up to condition x eps, even if y is exact, such as random
numbers to sample from. With all arrays in float64, rounded at the end, the result for float32 data
is right to the last digit. It does not help if y has been rounded before: the condition number
amplifies the error in its last digit.
"""

from __future__ import annotations

from typing import TypeVar

from invconv.arrays.namespaces import library_name, namespace
from invconv.arrays.settings import choice
from invconv.operators.base.factored import Factored

P = TypeVar("P", bound=Factored)


def in_float64(conv: P) -> P:
    """Return an operator in float64; it stays differentiable by its own arrays."""
    like = conv._reference()[1]
    xp = namespace(like)
    wide = conv._in_dtype(xp.float64)
    if wide._reference()[1].dtype != xp.float64:
        raise ValueError(
            f"precision: {library_name(like)} has no float64 here; for JAX, "
            'jax.config.update("jax_enable_x64", True) brings it'
        )
    return wide


def wants_float64(conv: Factored, precision: str | None) -> bool:
    """Tell whether to solve in float64 although the operator's arrays have another dtype."""
    if precision is None:
        return False
    choice("precision", precision, ("float64",))
    like = conv._in_working_precision()._reference()[1]
    return bool(like.dtype != namespace(like).float64)
