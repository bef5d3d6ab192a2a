"""Operators in flax.serialization: public as `invconv_jax.register_with_flax`."""

from __future__ import annotations

from typing import Any

from jax import numpy as jnp

import invconv as ic
from invconv.operators.base.register import for_each_operator


def register_with_flax() -> None:
    """Let ``flax.serialization`` take operators, alone or within other trees.

    ``to_bytes(conv)`` writes the arrays by their names, PLU's signs and permutation too;
    ``from_bytes(conv, data)`` returns an operator like ``conv`` with the arrays of the data, and
    raises if their names differ. This call imports Flax.

    Examples
    --------
    >>> import invconv, invconv_jax, jax
    >>> from flax import serialization
    >>> invconv_jax.register_with_flax()
    >>> one, other = (invconv_jax.init(jax.random.key(i), invconv.PLUConv1x1, 3) for i in (0, 1))
    >>> same = serialization.from_bytes(other, serialization.to_bytes(one))
    >>> bool((same.permutation == one.permutation).all()), bool((same.upper == one.upper).all())
    (True, True)
    """
    from flax import serialization

    def register(cls: type[ic.InvertibleConv]) -> None:
        call: Any = serialization.register_serialization_state
        call(cls, _to_state, _from_state, override=True)

    for_each_operator(register)


def _to_state(conv: ic.InvertibleConv) -> dict[str, Any]:
    return conv._arrays()


def _from_state(conv: ic.InvertibleConv, state: dict[str, Any]) -> ic.InvertibleConv:
    expected = set(conv._arrays())
    if set(state) != expected:
        raise ValueError(f"state: expected the arrays {sorted(expected)}, got {sorted(state)}")
    return conv.replace(**{name: jnp.asarray(array) for name, array in state.items()})
