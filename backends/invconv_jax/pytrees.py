"""Operators and prepared inverses as pytrees: arrays and parts are children, settings static.

Runs on import of `invconv_jax`.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from typing import Any

import jax
from jax import export, lax
from jax.tree_util import GetAttrKey, register_pytree_with_keys

import invconv as ic
from invconv.families.factored import Forward, Solvers, State, Unshifted
from invconv.kernels.exponential import ExponentialSolver
from invconv.kernels.families import Division
from invconv.kernels.frequencies.circulant import CirculantStep
from invconv.kernels.matrices import Product
from invconv.kernels.pixel_steps import Divided, PixelSteps, Triangle, Turned
from invconv.kernels.wavefront import CausalStencil
from invconv.operators.base.prepared import PreparedInverse
from invconv.operators.base.register import for_each_operator, is_own

_exported: set[str] = set()


def _register(cls: type[ic.InvertibleConv]) -> None:
    """Make a class of operators a pytree.

    Arrays are leaves, parts are subtrees, and settings (mask, direction, ndim, ...) belong to the
    structure: jit compiles anew if they change. A tree is built without validation, so that its
    leaves may be any objects: tracers, arrays with a further axis for vmap or scan, ints for
    ``in_axes``, None. Constants, such as PLU's sign, have no gradient.
    """
    static = cls._setting_names
    children = [f.name for f in dataclasses.fields(cls) if f.init and f.name not in static]

    def flatten(conv: Any) -> tuple[list[Any], tuple[Any, ...]]:
        return [getattr(conv, n) for n in children], tuple(getattr(conv, n) for n in static)

    def flatten_with_keys(conv: Any) -> tuple[list[tuple[Any, Any]], tuple[Any, ...]]:
        values, settings = flatten(conv)
        return [(GetAttrKey(n), v) for n, v in zip(children, values, strict=True)], settings

    def unflatten(settings: tuple[Any, ...], values: Sequence[Any]) -> Any:
        fields = dict(zip(static, settings, strict=True))
        fields |= zip(children, values, strict=True)
        fields |= {n: _without_gradient(fields[n]) for n in cls._constant_names}
        return cls._unchecked(fields)

    register_pytree_with_keys(cls, flatten_with_keys, unflatten, flatten)
    name = f"{'invconv' if is_own(cls) else cls.__module__}.{cls.__qualname__}"
    if name not in _exported:  # JAX takes a name once: a class defined again is not exported
        _exported.add(name)
        export.register_pytree_node_serialization(
            cls,
            serialized_name=name,
            serialize_auxdata=lambda settings: json.dumps(settings).encode(),
            deserialize_auxdata=_settings_of,
        )


def require_values(argument: str, where: str, conv: ic.InvertibleConv) -> None:
    """Raise TypeError if an operator is traced, so that its values are not known."""
    for name, array in conv.parameters().items():
        if isinstance(array, jax.core.Tracer):
            raise TypeError(
                f"{argument}: expected values, got a traced {where}{name}; call this outside jit"
            )


def _without_gradient(leaf: Any) -> Any:
    return lax.stop_gradient(leaf) if isinstance(leaf, jax.core.Tracer) else leaf


def _settings_of(text: bytearray) -> tuple[Any, ...]:
    return tuple(tuple(v) if isinstance(v, list) else v for v in json.loads(text))


for_each_operator(_register)

# classes inside a prepared inverse, with their fields that hold arrays; solvers of this package
# register themselves
_PREPARED: dict[type, tuple[str, ...]] = {
    PreparedInverse: ("conv", "_state"),
    State: ("solver", "log_det", "bias", "guard"),
    Solvers: ("solvers",),
    Unshifted: ("bias",),
    Forward: ("weights",),
    CausalStencil: ("diagonal", "taps"),
    CirculantStep: ("given", "inverse"),
    Divided: ("given",),
    Division: ("scale",),
    ExponentialSolver: ("taps",),
    PixelSteps: ("steps",),
    Product: ("inverse",),
    Triangle: ("given",),
    Turned: ("given",),
}
for _class, _data in _PREPARED.items():
    _fields = [f.name for f in dataclasses.fields(_class) if f.init]
    jax.tree_util.register_dataclass(_class, _data, [n for n in _fields if n not in _data])
