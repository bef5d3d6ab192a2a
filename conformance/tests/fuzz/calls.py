"""Random calls as data, which can be shown, run, and run again in float64 on NumPy."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import array_api_compat
import numpy as np

import invconv as ic
from invconv.arrays.namespaces import to_numpy

LIBRARIES: dict[str, tuple[str, ...]] = {
    "numpy": ("float64", "float32", "float16", "int64", "complex128", "bool", "longdouble"),
    "torch": ("float64", "float32", "float16", "bfloat16", "int64", "complex128", "bool"),
    "array_api_strict": ("float64", "float32", "int64", "complex128", "bool"),
    "jax": ("float32", "bfloat16", "int32"),
    "list": ("float64",),
}
Named = tuple[tuple[str, Any], ...]


def as_array(library: str, dtype: str, numbers: np.ndarray[Any, Any]) -> Any:
    """Return an array of a library and dtype, or a nested list ("list")."""
    if library == "list":
        return numbers.tolist()
    with np.errstate(all="ignore"):
        if library == "numpy":
            return numbers.astype(dtype)
        if "float" not in dtype:
            numbers = np.nan_to_num(numbers).astype(dtype)
    if library == "torch":
        import torch

        return torch.asarray(numbers).to(getattr(torch, dtype))
    if library == "jax":
        from jax import numpy as jnp

        return jnp.asarray(numbers, dtype=dtype)
    import array_api_strict as strict

    return strict.asarray(numbers.astype(dtype))


@dataclass(frozen=True)
class Op:
    """An operator: a class, and its arguments."""

    cls: str
    arguments: Named

    def make(self) -> Any:
        """Return the operator."""
        return getattr(ic, self.cls)(**{name: build(value) for name, value in self.arguments})


@dataclass(frozen=True)
class Call:
    """A call of a method of an operator, of a class (by name) or of the package ("invconv").

    "prepare.inverse" prepares with the first argument and calls the result with the second.
    """

    target: Any
    method: str
    arguments: Named

    def run(self) -> Any:
        """Return the call's result."""
        if isinstance(self.target, str):
            target = ic if self.target == "invconv" else getattr(ic, self.target)
        else:
            target = build(self.target)
        arguments = {name: build(value) for name, value in self.arguments}
        if self.method.startswith("prepare."):
            image = arguments.pop("y")
            target, arguments = target.prepare(**arguments), {"y": image}
        return getattr(target, self.method.removeprefix("prepare."))(**arguments)


def build(value: Any) -> Any:
    """Return a value with the operators in it built."""
    if isinstance(value, Op):
        return value.make()
    if isinstance(value, tuple):
        return tuple(build(v) for v in value)
    if isinstance(value, str) and value == "rng":
        return np.random.default_rng(0)
    return value


def changed(value: Any, change: Callable[[Any], Any]) -> Any:
    """Return a value with a function applied to every array in it."""
    if isinstance(value, tuple):
        return tuple(changed(v, change) for v in value)
    if isinstance(value, (Op, Call)):
        fields = (changed(getattr(value, f.name), change) for f in dataclasses.fields(value))
        return type(value)(*fields)
    return change(value) if array_api_compat.is_array_api_obj(value) else value


def arrays_of(value: Any) -> list[Any]:
    """Return every array in a value."""
    arrays: list[Any] = []
    changed(value, arrays.append)
    return arrays


def host_values(result: Any) -> list[np.ndarray[Any, Any]]:
    """Return the floating arrays in a result, on the host in float64."""
    if isinstance(result, dict):
        result = tuple(result.values())
    if isinstance(result, (tuple, list)):
        return [values for part in result for values in host_values(part)]
    if isinstance(result, float):
        return [np.asarray(result)]
    if isinstance(result, ic.InvertibleConv):
        return host_values(result.parameters())
    if not array_api_compat.is_array_api_obj(result):
        return []
    xp = array_api_compat.array_namespace(result)
    if not xp.isdtype(result.dtype, "real floating"):
        return []
    return [to_numpy(result).astype(np.float64)]
