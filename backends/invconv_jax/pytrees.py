"""Operators and prepared inverses as pytrees: arrays and parts are children, settings static.

Runs on import of `invconv_jax`.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from typing import Any, TypeVar

import jax
from jax import export, lax
from jax.tree_util import GetAttrKey, register_pytree_with_keys

import invconv as ic
from invconv.files.description import OPERATORS
from invconv.kernels.exponential import ExponentialSolver
from invconv.kernels.families import Division
from invconv.kernels.frequencies.circulant_steps import CirculantSteps
from invconv.kernels.matrices import Product
from invconv.kernels.triangular_steps import TriangularSteps
from invconv.kernels.wavefront import CausalStencil
from invconv.operators.base.prepared import PreparedInverse
from invconv.solve.state import Forward, State, Steps

C = TypeVar("C", bound=ic.InvertibleConv)


def register(cls: type[C]) -> type[C]:
    """Make a class of operators a pytree; `invconv`'s own are registered on import.

    Arrays are leaves, operators that this one is made of are subtrees, and what else there is
    (mask, direction, ndim, ...) is part of the structure: jit compiles anew when it changes.
    A tree is put together without validation, so that its leaves may be anything: tracers, arrays
    with a further axis for vmap or scan, ints for ``in_axes``, None. Constants, such as PLU's sign,
    have no gradient.

    Parameters
    ----------
    cls : type
        A frozen dataclass; a decorator returns it.

    Examples
    --------
    >>> import numpy as np
    >>> @register
    ... class Blur(ic.PeriodicConv):
    ...     pass  # a class of one's own, which jit then takes as an argument
    >>> blur = Blur(jax.numpy.full((1, 1, 3), 1 / 3))
    >>> jax.jit(lambda conv, x: conv.forward(x))(blur, jax.numpy.arange(6.0)[None, :]).shape
    (1, 6)
    """
    static = cls._field_names()[1]
    children = [f.name for f in dataclasses.fields(cls) if f.init and f.name not in static]

    def flatten(conv: C) -> tuple[list[Any], tuple[Any, ...]]:
        return [getattr(conv, n) for n in children], tuple(getattr(conv, n) for n in static)

    def flatten_with_keys(conv: C) -> tuple[list[tuple[Any, Any]], tuple[Any, ...]]:
        values, settings = flatten(conv)
        return [(GetAttrKey(n), v) for n, v in zip(children, values, strict=True)], settings

    def unflatten(settings: tuple[Any, ...], values: Sequence[Any]) -> C:
        fields = dict(zip(static, settings, strict=True))
        fields |= zip(children, values, strict=True)
        fields |= {n: _without_gradient(fields[n]) for n in cls._constant_names}
        return cls._unchecked(fields)

    register_pytree_with_keys(cls, flatten_with_keys, unflatten, flatten)
    return cls


def require_values(argument: str, where: str, conv: ic.InvertibleConv) -> None:
    """Raise TypeError where an operator's values are not known, since it is being traced."""
    for name, array in conv.parameters().items():
        if isinstance(array, jax.core.Tracer):
            raise TypeError(
                f"{argument}: expected values, got a traced {where}{name}; call this outside jit"
            )


def _without_gradient(leaf: Any) -> Any:
    return lax.stop_gradient(leaf) if isinstance(leaf, jax.core.Tracer) else leaf


def _settings_of(text: bytearray) -> tuple[Any, ...]:
    return tuple(tuple(v) if isinstance(v, list) else v for v in json.loads(text))


for _operator in OPERATORS:
    register(_operator)
    export.register_pytree_node_serialization(
        _operator,
        serialized_name=f"invconv.{_operator.__name__}",
        serialize_auxdata=lambda settings: json.dumps(settings).encode(),
        deserialize_auxdata=_settings_of,
    )

# what a prepared inverse is made of, with the fields that are arrays or made of them; those of
# JAX's own primitives are registered where they are
_PREPARED: dict[type, tuple[str, ...]] = {
    PreparedInverse: ("conv", "_state"),
    State: ("solver", "log_det", "bias"),
    Steps: ("states",),
    Forward: ("conv",),
    CausalStencil: ("diagonal", "taps"),
    CirculantSteps: ("left", "circulant", "right", "inverse"),
    Division: ("scale",),
    ExponentialSolver: ("taps",),
    Product: ("inverse",),
    TriangularSteps: ("first", "triangles"),
}
for _class, _data in _PREPARED.items():
    _fields = [f.name for f in dataclasses.fields(_class) if f.init]
    jax.tree_util.register_dataclass(_class, _data, [n for n in _fields if n not in _data])
