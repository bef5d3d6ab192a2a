"""Operators and prepared inverses as pytrees: arrays and parts are children, settings static.

Importing `invconv_jax` registers them. `register_with_flax` is public.
"""

import dataclasses
import json
import threading
from collections.abc import Callable, Sequence
from functools import partial
from types import ModuleType
from typing import Any

import jax
import numpy as np
from jax import export, lax
from jax import numpy as jnp
from jax.tree_util import GetAttrKey, all_leaves, register_pytree_node, register_pytree_with_keys

import invconv as ic
from invconv.operators.base import fields
from invconv.operators.base.calls import PreparedInverse

_exported: set[str] = set()


def _register(cls: type[ic.InvertibleConv]) -> None:
    static = cls._setting_names
    children = [f.name for f in dataclasses.fields(cls) if f.init and f.name not in static]

    def flatten(conv: Any) -> tuple[list[Any], tuple[Any, ...]]:
        return [getattr(conv, n) for n in children], tuple(getattr(conv, n) for n in static)

    def flatten_with_keys(conv: Any) -> tuple[list[tuple[Any, Any]], tuple[Any, ...]]:
        values, settings = flatten(conv)
        return [(GetAttrKey(n), v) for n, v in zip(children, values, strict=True)], settings

    def unflatten(settings: tuple[Any, ...], values: Sequence[Any]) -> Any:
        held = dict(zip(static, settings, strict=True))
        held |= zip(children, values, strict=True)
        for name in cls._constant_names:
            if isinstance(held[name], jax.core.Tracer):
                held[name] = lax.stop_gradient(held[name])
        conv = object.__new__(cls)
        vars(conv).update(held)
        return conv

    register_pytree_with_keys(cls, flatten_with_keys, unflatten, flatten)
    name = f"{'invconv' if fields.is_own(cls) else cls.__module__}.{cls.__qualname__}"
    if name not in _exported:  # JAX takes a name once: a class defined again is not exported
        _exported.add(name)
        export.register_pytree_node_serialization(
            cls,
            serialized_name=name,
            serialize_auxdata=lambda settings: json.dumps(
                fields.setting_as_json(name, settings)
            ).encode(),
            deserialize_auxdata=lambda text: fields.setting_of_json(json.loads(text)),
        )


def require_values(argument: str, where: str, conv: ic.InvertibleConv) -> None:
    """Raise TypeError if an operator is traced, so that its values are not known."""
    for name, array in conv.parameters().items():
        if isinstance(array, jax.core.Tracer):
            raise TypeError(
                f"{argument}: expected values, got a traced {where}{name}; call this outside jit"
            )


def told_apart(conv: Any, trained: Callable[[Any], Any], constant: Callable[[Any], Any]) -> Any:
    """Return an operator's tree: ``trained`` of its parameters, ``constant`` of other arrays."""
    arrays, tree = jax.tree.flatten(conv)
    numbered = tree.unflatten(range(len(arrays)))  # an array may be in two places
    parts = jax.tree.leaves(numbered, is_leaf=lambda node: isinstance(node, ic.InvertibleConv))
    free = {number for part in parts for number in part.parameters().values()}
    return tree.unflatten([(trained if n in free else constant)(a) for n, a in enumerate(arrays)])


fields.for_each_operator(_register)


def _fields(held: Any) -> tuple[str, ...]:
    """Return the names of an object's fields; none for a class or a module."""
    if isinstance(held, type | ModuleType):
        return ()
    if dataclasses.is_dataclass(held):
        return tuple(field.name for field in dataclasses.fields(held))
    return tuple(name for name in getattr(held, "__dict__", ()) if name != _CHILDREN)


def _holds_arrays(value: Any) -> bool:
    """Tell whether an object holds arrays; if so, make its class and those inside pytrees.

    A prepared inverse holds solvers of any class, also of a user's family.
    """
    if isinstance(value, jax.Array | np.ndarray):
        return True
    if not all_leaves([value]):
        return max(map(_holds_arrays, jax.tree.leaves(value)), default=False)
    held = (getattr(value, name) for name in _fields(value))
    if found := max(map(_holds_arrays, held), default=False):
        register_pytree_node(type(value), _flatten, partial(_unflatten, type(value)))
    return found


class _Names(tuple[tuple[str, ...], tuple[str, ...]]):
    """Names of children and static values; pickled as None, so that another process registers."""

    def __reduce__(self) -> tuple[Any, ...]:
        return type(None), ()


def _flatten(held: Any) -> tuple[list[Any], tuple[Any, ...]]:
    """Return the fields that hold arrays, and the static part: all names, and the other fields.

    The object remembers the names, for speed, and since its leaves may be anything, such as None.
    """
    if (names := vars(held).get(_CHILDREN)) is None:
        with _ONE_THREAD:
            every = _fields(held)
            children = tuple(name for name in every if _holds_arrays(getattr(held, name)))
            names = _Names((children, tuple(name for name in every if name not in children)))
            vars(held)[_CHILDREN] = names
    values = ([getattr(held, name) for name in some] for some in names)
    return next(values), (names, tuple(next(values)))


def _unflatten(cls: type, static: tuple[Any, ...], values: Sequence[Any]) -> Any:
    names, others = static
    held: Any = object.__new__(cls)
    vars(held).update(zip(names[0], values, strict=True))
    vars(held).update(zip(names[1], others, strict=True))
    vars(held)[_CHILDREN] = names
    return held


_CHILDREN = "_children"  # an attribute that no class has
_ONE_THREAD = threading.RLock()  # JAX refuses a class that another thread has just registered
register_pytree_node(PreparedInverse, _flatten, partial(_unflatten, PreparedInverse))


def register_with_flax() -> None:
    """Let ``flax.serialization`` take operators, alone or within other trees.

    ``to_bytes(conv)`` writes the arrays by their names, PLU's signs and permutation too;
    ``from_bytes(conv, data)`` returns an operator like ``conv`` with the arrays of the data, and
    raises if their names differ; for stacked operators, as `linen.scan` has them, it also raises if
    shapes or dtypes differ. This call imports Flax.

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
        call(cls, cls._arrays, _from_state, override=True)

    fields.for_each_operator(register)


def _from_state(conv: ic.InvertibleConv, state: dict[str, Any]) -> ic.InvertibleConv:
    expected = set(conv._arrays())
    if set(state) != expected:
        raise ValueError(f"state: expected the arrays {sorted(expected)}, got {sorted(state)}")
    arrays = {name: jnp.asarray(array) for name, array in state.items()}
    if conv._stacked is None:
        return conv.replace(**arrays)
    for name, old in conv._arrays().items():  # stacked operators, which no class validates
        if ((new := arrays[name]).shape, new.dtype) != (tuple(old.shape), old.dtype):
            raise ValueError(
                f"state: expected {name} of shape {tuple(old.shape)} in {old.dtype}, as the "
                f"stacked operators have it, got {new.shape} in {new.dtype}"
            )
    tree = jax.tree.structure(conv)
    places = tree.unflatten(range(tree.num_leaves))  # an operator that holds numbers of leaves
    names = {place: name for name, place in places._arrays().items()}
    return jax.tree.map(lambda place: arrays[names[place]], places)  # type: ignore[no-any-return]
