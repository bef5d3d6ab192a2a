"""Random calls as data, and how they may end: in a result or in an exception that is documented.

What is documented: ValueError, TypeError and SingularConvError that invconv itself raises, and
IllConditionedWarning. A result that is not finite, of ordinary numbers and without a warning, is
*silence*, unless the same call in float64 shows that it is right: a number beyond the dtype's
range, or the log-determinant of an operator that is singular, exactly or to rounding.
"""

import dataclasses
import dis
import traceback
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import array_api_compat
import numpy as np

import invconv as ic
from invconv.arrays.namespaces import dtype_name, to_numpy
from invconv.trust.limits import TOLERATED
from invconv_conformance.libraries import KNOWN

_OURS = {"invconv", "invconv_torch", "invconv_jax", "invconv_cupy", "invconv_mlx"}
_LARGEST = {"float16": 65504.0, "float32": 3.4e38, "bfloat16": 3.4e38}
_DOCUMENTED = (ValueError, TypeError, ic.SingularConvError)

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
    known = KNOWN[library]
    numbers = numbers if "float" in dtype else np.nan_to_num(numbers)
    with np.errstate(all="ignore"):
        return known.asarray(numbers, dtype, known.devices()[0])


@dataclass(frozen=True)
class Op:
    """An operator: a class, and its arguments."""

    cls: str
    arguments: Named

    def make(self) -> Any:
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


class Undocumented(Exception):
    """A call ended as no documentation says."""


def judge(call: Call) -> str:
    """Run a call and say how it ended, or raise Undocumented."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        # documented: a kernel that SymmetricConv takes for a whole one
        warnings.filterwarnings("ignore", "kernel: expected the part of an even kernel")
        try:
            result = call.run()
            text = repr(result) if isinstance(result, ic.Diagnosis) else ""
        except Exception as error:
            if type(error) not in _DOCUMENTED or not _is_ours(error):
                text = "".join(traceback.format_exception(error)[-4:])
                raise Undocumented(f"{call}\n{text}") from None
            return type(error).__name__
    if "nan" in text and _tame(call):
        raise Undocumented(f"{call}\n{text}")
    kinds = {w.category.__name__ for w in caught}
    if "IllConditionedWarning" in kinds:
        return "a result with IllConditionedWarning"
    if not _tame(call):
        return "a result of NaN, inf, huge or tiny numbers"
    if not all(np.isfinite(values).all() for values in host_values(result)):
        _require_right(call, result)
        return "a result that is right not to be finite"
    if kinds:
        raise Undocumented(f"{call}\n{caught[0].message}")
    return "a result"


def _is_ours(error: Exception) -> bool:
    """Tell whether invconv raised an exception itself, rather than what it calls."""
    last = error.__traceback__
    while last is not None and last.tb_next is not None:
        last = last.tb_next
    assert last is not None
    code, module = last.tb_frame.f_code, str(last.tb_frame.f_globals.get("__name__"))
    raised = dis.opname[code.co_code[last.tb_lasti]] == "RAISE_VARARGS"
    return raised and module.partition(".")[0] in _OURS


def _require_right(call: Call, result: Any) -> None:
    """Raise Undocumented unless the call in float64 shows that what is not finite is right."""
    exact = changed(call, _in_float64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            truth = host_values(exact.run())
        except Exception as error:
            raise Undocumented(f"{call}\nsilence, where float64 says: {error}") from None
        singular = call.method.endswith("log_det") and _is_singular(exact)
    largest = min(_LARGEST.get(dtype_name(a.dtype), 1.8e308) for a in arrays_of(call))
    values = host_values(result)
    if singular:
        values, truth = values[:-1], truth[:-1]
    for found, right in zip(values, truth, strict=True):
        bad = ~np.isfinite(found)
        with np.errstate(invalid="ignore"):
            same = (found == right) | (np.abs(right) > 0.9 * largest) & ~np.isnan(found)
        if (bad & ~same).any():
            raise Undocumented(f"{call}\nsilence: {found} instead of {right}")


def _is_singular(call: Call) -> bool:
    """Tell whether an operator of float64 has no inverse on the grid that it is called with."""
    conv = build(call.target)
    arguments = {name: build(value) for name, value in call.arguments}
    image = arguments.get("x", arguments.get("y"))
    if image is None:
        grid = arguments["spatial_shape"]
    else:
        grid = image.shape[2 if conv.ndim is None else image.ndim - conv.ndim :]
    return bool(conv.condition(tuple(grid)) * 2.0**-52 > TOLERATED)


def _tame(call: Call) -> bool:
    """Tell whether all numbers are of ordinary size."""
    sizes = np.concatenate([[1.0], *(np.abs(a).ravel() for a in host_values(arrays_of(call)))])
    return bool((np.isfinite(sizes) & (sizes < 1e20) & ((sizes > 1e-20) | (sizes == 0))).all())


def _in_float64(array: Any) -> Any:
    values = host_values(array)
    return values[0] if values else to_numpy(array)
