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


@dataclass(frozen=True, eq=False)
class Arr:
    """Numbers, to be an array of a library and dtype, or a nested list ("list").

    They are tame if all are of ordinary size.
    """

    library: str
    dtype: str
    numbers: np.ndarray[Any, Any]
    tame: bool = True

    def make(self) -> Any:
        """Return the array."""
        if self.library == "list":
            return self.numbers.tolist()
        with np.errstate(all="ignore"):
            if self.library == "numpy":
                return self.numbers.astype(self.dtype)
            values = self.numbers
            if "float" not in self.dtype:
                values = np.nan_to_num(values).astype(self.dtype)
        if self.library == "torch":
            import torch

            return torch.asarray(values).to(getattr(torch, self.dtype))
        if self.library == "jax":
            from jax import numpy as jnp

            return jnp.asarray(values, dtype=self.dtype)
        import array_api_strict as strict

        return strict.asarray(values.astype(self.dtype))


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
    """Return a value with the arrays and operators in it built."""
    if isinstance(value, (Arr, Op)):
        return value.make()
    if isinstance(value, tuple):
        return tuple(build(v) for v in value)
    if value == "rng":
        return np.random.default_rng(0)
    return value


def changed(value: Any, change: Callable[[Arr], Arr]) -> Any:
    """Return a value with a function applied to every array in it."""
    if isinstance(value, Arr):
        return change(value)
    if isinstance(value, tuple):
        return tuple(changed(v, change) for v in value)
    if isinstance(value, (Op, Call)):
        fields = {
            f.name: changed(getattr(value, f.name), change) for f in dataclasses.fields(value)
        }
        return type(value)(**fields)
    return value


def arrays_of(value: Any) -> list[Arr]:
    """Return every array in a value."""
    arrays: list[Arr] = []

    def note(array: Arr) -> Arr:
        arrays.append(array)
        return array

    changed(value, note)
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
