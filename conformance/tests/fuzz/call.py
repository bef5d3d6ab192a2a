"""A call as data: it can be drawn at random, shown, run, and run again in float64 on NumPy."""

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
_TAME: dict[str, Callable[[np.random.Generator, tuple[int, ...]], Any]] = {
    "normal": lambda rng, shape: rng.standard_normal(shape),
    "near identity": lambda rng, shape: _near_identity(rng, shape),
    "zeros": lambda rng, shape: np.zeros(shape),
    "signs": lambda rng, shape: rng.choice([-1.0, 1.0], shape),
    "order": lambda rng, shape: rng.permutation(shape[0]) if len(shape) == 1 else np.ones(shape),
}
_WILD: dict[str, Callable[[np.random.Generator, tuple[int, ...]], Any]] = {
    "nan": lambda rng, shape: np.full(shape, np.nan),
    "inf": lambda rng, shape: np.full(shape, np.inf),
    "huge": lambda rng, shape: 1e30 * rng.standard_normal(shape),
    "tiny": lambda rng, shape: 1e-30 * rng.standard_normal(shape),
    "one inf": lambda rng, shape: _with_one(np.inf, rng, shape),
    "one nan": lambda rng, shape: _with_one(np.nan, rng, shape),
    "one huge": lambda rng, shape: _with_one(1e30, rng, shape),
}
FILLS = (*_TAME, *_WILD)


def _with_one(number: float, rng: np.random.Generator, shape: tuple[int, ...]) -> Any:
    """Return what is near the identity, but for one number anywhere."""
    values = np.asarray(_near_identity(rng, shape))
    if values.size:
        values.reshape(-1)[rng.integers(values.size)] = number
    return values


def _near_identity(rng: np.random.Generator, shape: tuple[int, ...]) -> Any:
    """Return small numbers, and the identity at both ends of a kernel's taps."""
    values = 0.05 * rng.standard_normal(shape)
    if len(shape) >= 2 and min(shape) > 0:
        taps = values.reshape(*shape[:2], -1)
        taps[:, :, 0] += np.eye(shape[0], shape[1])
        taps[:, :, taps.shape[2] // 2] += np.eye(shape[0], shape[1])
    return values


@dataclass(frozen=True)
class Arr:
    """An array.

    Attributes
    ----------
    library : str
        A key of `LIBRARIES`; "list" makes a nested list.
    dtype : str
        One of the library's.
    shape : tuple of int
    fill : str
        One of `FILLS`.
    seed : int
    """

    library: str
    dtype: str
    shape: tuple[int, ...]
    fill: str
    seed: int

    def make(self) -> Any:
        """Return it."""
        with np.errstate(all="ignore"):
            values = (_TAME | _WILD)[self.fill](np.random.default_rng(self.seed), self.shape)
            if self.library == "list":
                return values.tolist()
            if self.library == "numpy":
                return np.asarray(values).astype(self.dtype)
            if self.dtype in ("int32", "int64", "bool", "complex128"):
                values = np.nan_to_num(values).astype(self.dtype)
        if self.library == "torch":
            import torch

            return torch.asarray(values).to(getattr(torch, self.dtype))
        if self.library == "jax":
            from jax import numpy as jnp

            return jnp.asarray(values, dtype=self.dtype)
        import array_api_strict as strict

        return strict.asarray(np.asarray(values).astype(self.dtype))

    @property
    def tame(self) -> bool:
        """Whether its numbers are of ordinary size."""
        return self.fill in _TAME


@dataclass(frozen=True)
class Op:
    """An operator: a class, and its arguments."""

    cls: str
    arguments: tuple[tuple[str, Any], ...]

    def make(self) -> Any:
        """Return it."""
        return getattr(ic, self.cls)(**{name: build(value) for name, value in self.arguments})


@dataclass(frozen=True)
class Call:
    """A method of an operator, or a function of the package, and what it is called with.

    Attributes
    ----------
    target : Op or str
        An operator, or the name of a class or "invconv".
    method : str
        "prepare.inverse" prepares with the first argument and calls the result with the second.
    arguments : tuple of (name, value)
    """

    target: Any
    method: str
    arguments: tuple[tuple[str, Any], ...]

    def run(self) -> Any:
        """Return what it returns."""
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
    found: list[Arr] = []

    def note(array: Arr) -> Arr:
        found.append(array)
        return array

    changed(value, note)
    return found


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
