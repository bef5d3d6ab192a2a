"""A stand-in for CuPy that runs on NumPy: what is a host read or a mixed operand there raises here.

`runner` writes it as a package ``cupy`` for another process to import. It offers what the core and
its adapter call, under array-api-compat's own wrappers for CuPy, and lists what is called in the
file that the environment names as STAND_IN_CALLS.

- Values are out of reach, through ``bool``, ``float``, ``get``, NumPy, ``in`` or a mask that is an
  index, while a function of the core is running that must not wait.
- Operands of NumPy raise, as in CuPy. What `as_strided` and `empty` give is no zeros.
- It is CuPy for AMD's devices, where wavefronts solve, unless the environment has STAND_IN_DRIVER.
- Singular matrices do not raise, and stacks do not broadcast in ``linalg.solve``, as in CuPy.
"""

import functools
import operator
import os
import sys
import types
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np

_ENTRY = "from cupy._stand_in import populate\n\npopulate(globals())\n"
_MOVERS = {"asarrays", "init", "condition", "save", "to_numpy"}
_COMMANDS = "invconv._cli"  # which run the suite: what that calls is the core


def runner(folder: Path, **settings: Any) -> Any:
    """Write the packages cupy and cupyx, and return `programs.python` that finds them."""
    from tests.programs import python

    for name, text in (("cupy", _ENTRY), ("cupyx", "import cupy\n")):
        (folder / name).mkdir()
        (folder / name / "__init__.py").write_text(text)
    (folder / "cupy" / "_stand_in.py").write_text(Path(__file__).read_text(encoding="utf-8"))
    path = os.pathsep.join([str(folder), *sys.path])
    return functools.partial(python, PYTHONPATH=path, PYTHONWARNINGS="error", **settings)


def _read(how: str) -> None:
    """Raise unless the function of the core that the user called is one that moves arrays.

    Or the one that counts the terms of an exponential, for which the host reads a norm: it is
    called once a forward, and once a preparation.
    """
    frame, entry = sys._getframe(2), None
    while frame is not None:
        module = frame.f_globals.get("__name__", "")
        if (module, frame.f_code.co_name) == ("invconv.kernels.exponential", "_counted"):
            return
        if module.partition(".")[0] in ("invconv", "invconv_cupy") and module != _COMMANDS:
            entry = frame
        frame = frame.f_back  # type: ignore[assignment]
    if entry is not None and entry.f_code.co_name not in _MOVERS:
        raise AssertionError(f"{how} in {entry.f_code.co_qualname}")


def _forbidden(name: str) -> Callable[..., Any]:
    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        _read(f"{name} of a CuPy array")
        value = self._values
        return value.copy() if name == "get" else getattr(value, name)(*args, **kwargs)

    return method


class ndarray:
    """An array on the device."""

    __array_priority__ = 100

    def __init__(self, values: Any) -> None:
        self._values = np.asarray(values)

    dtype: Any
    device = property(lambda self: Device(0))
    T = property(lambda self: ndarray(self._values.T))
    data = property(lambda self: types.SimpleNamespace(ptr=self._values.ctypes.data))

    def __array_ufunc__(self, *args: Any, **kwargs: Any) -> Any:
        """Refuse, as CuPy does, a NumPy operand."""
        raise TypeError("Unsupported type <class 'numpy.ndarray'>")

    def __dlpack_device__(self) -> tuple[int, int]:
        return (2, 0)

    def __getitem__(self, key: Any) -> "ndarray":
        """Return a view, or gather; a mask would make the host wait."""
        return ndarray(self._values[_key(key)])

    def __setitem__(self, key: Any, value: Any) -> None:
        self._values[_key(key)] = _unwrap(value)

    def __hash__(self) -> int:
        """Refuse, as CuPy does."""
        raise TypeError("unhashable type: 'ndarray'")


def _key(key: Any) -> Any:
    keys = key if isinstance(key, tuple) else (key,)
    if any(isinstance(k, ndarray) and k.dtype == bool for k in keys):
        _read("a mask as an index")
    return tuple(map(_unwrap, keys)) if isinstance(key, tuple) else _unwrap(key)


_READS = "__array__ __bool__ __float__ __int__ __index__ __complex__ __contains__ __dlpack__"
_READS += " get item tolist tobytes"
_ATTRIBUTES = "shape ndim size dtype itemsize nbytes strides"
for _name in _READS.split():
    setattr(ndarray, _name, _forbidden(_name))
for _name in _ATTRIBUTES.split():
    setattr(ndarray, _name, property(operator.attrgetter(f"_values.{_name}")))


def _unwrap(x: Any) -> Any:
    if isinstance(x, ndarray):
        return x._values
    if isinstance(x, np.ndarray):
        raise TypeError(f"Unsupported type {type(x)}")
    return type(x)(map(_unwrap, x)) if type(x) in (list, tuple) else x


def _wrap(x: Any) -> Any:
    if isinstance(x, tuple):
        return tuple(map(_wrap, x))
    return ndarray(x) if isinstance(x, (np.ndarray, np.generic)) else x


@functools.cache
def _record(name: str) -> None:
    """Add a line to the file of calls, once for each name in a process."""
    if path := os.environ.get("STAND_IN_CALLS"):
        with open(path, "a", encoding="utf-8") as file:
            file.write(f"{name}\n")


def _on_device(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        _record(name)
        plain = [_unwrap(a) for a in args]
        options = {key: _unwrap(value) for key, value in kwargs.items()}
        with np.errstate(all="ignore"):
            result = function(*plain, **options)
        out = kwargs.get("out")
        return _wrap(result) if out is None else out

    return call


_METHODS = "transpose reshape copy astype sum ravel view"
_OPERATORS = "add radd sub rsub mul rmul truediv rtruediv pow rpow matmul mod iadd isub imul"
_OPERATORS += " neg abs eq ne lt le gt ge and or xor invert"
for _name in [*_METHODS.split(), *(f"__{o}__" for o in _OPERATORS.split())]:
    setattr(ndarray, _name, _on_device(f"ndarray.{_name}", getattr(np.ndarray, _name)))


def asarray(obj: Any, dtype: Any = None, copy: Any = None) -> ndarray:
    """Return a new array; NumPy's values go onto the device."""
    _record("cupy.asarray")
    return ndarray(np.array(obj._values if isinstance(obj, ndarray) else obj, dtype=dtype))


def _empty(shape: Any, dtype: Any = float) -> Any:
    """Return what memory may hold."""
    return np.full(shape, 7 if np.dtype(dtype).kind in "iub" else np.nan, dtype)


def _matmul(a: Any, b: Any, /, **options: Any) -> Any:
    """Take ``out`` by name only."""
    return np.matmul(a, b, **options)


def _as_strided(x: Any, shape: Any = None, strides: Any = None) -> Any:
    return np.lib.stride_tricks.as_strided(x, shape, strides)


def _solve(a: Any, b: Any) -> Any:
    if a.shape[:-1] != b.shape[:-1]:
        raise ValueError("a must have (..., M, M) shape and b must have (..., M, K)")
    return _or_nan(np.linalg.solve, a, b)


def _or_nan(function: Callable[..., Any], *arrays: Any) -> Any:
    try:
        return function(*arrays)
    except np.linalg.LinAlgError:
        return np.full_like(arrays[-1], np.nan)


def _solve_triangular(a: Any, b: Any, *, lower: bool) -> Any:
    return _solve(np.tril(a) if lower else np.triu(a), b)


def _module(name: str, **names: Any) -> Any:
    module = types.ModuleType(name)
    vars(module).update(names)
    module.__path__ = []  # a package, from which others can be imported
    sys.modules[name] = module
    return module


def _functions(prefix: str, source: Any = None, **own: Any) -> dict[str, Any]:
    """Return the functions of a module of NumPy's, and others, as they are on the device."""
    names = [] if source is None else source.__all__
    found = {name: getattr(source, name) for name in names if name != "test"} | own
    functions = {name: f for name, f in found.items() if not isinstance(f, type)}
    return found | {n: _on_device(f"{prefix}.{n}", f) for n, f in functions.items()}


class Device(nullcontext[None]):
    """The only one."""

    id = 0

    def __init__(self, number: Any = 0) -> None:
        super().__init__()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Device)

    def __hash__(self) -> int:
        """Refuse, as CuPy does."""
        raise TypeError("unhashable type: 'Device'")

    def synchronize(self) -> None:
        _read("Device.synchronize")


def populate(space: dict[str, Any]) -> None:
    """Fill the module ``cupy``, in whose namespace NumPy's names hide Python's own."""
    for name in dir(np):
        value = getattr(np, name)
        if isinstance(value, (type, type(None), int, float)):
            space.setdefault(name, value)
        elif callable(value) and not name.startswith("_"):
            space[name] = _on_device(f"cupy.{name}", value)
    space |= {"ndarray": ndarray, "asarray": asarray, "array": asarray}
    space["matmul"] = _on_device("cupy.matmul", _matmul)
    space["empty"] = _on_device("cupy.empty", _empty)
    runtime = _module("cupy.cuda.runtime", getDeviceCount=lambda: 1, CUDARuntimeError=OSError)
    runtime.is_hip = "STAND_IN_DRIVER" not in os.environ
    device = _module("cupy.cuda.device", Device=Device)
    space["cuda"] = _module("cupy.cuda", Device=Device, device=device, runtime=runtime)
    stream = types.SimpleNamespace(ptr=0x5EED_0000_0001)
    space["cuda"].get_current_stream = lambda device_id=-1: stream
    inv = functools.partial(_or_nan, np.linalg.inv)
    linalg = _functions("cupy.linalg", np.linalg, solve=_solve, inv=inv)
    space["linalg"] = _module("cupy.linalg", **linalg)
    space["fft"] = _module("cupy.fft", **_functions("cupy.fft", np.fft))
    strides = _functions("cupy.lib.stride_tricks", as_strided=_as_strided)
    tricks = _module("cupy.lib.stride_tricks", **strides)
    space["lib"] = _module("cupy.lib", stride_tricks=tricks)
    kinds = {"float32": 0}
    _module("cupy._core", get_compute_type=kinds.get, set_compute_type=kinds.__setitem__)
    _module("cupy._core._routines_linalg", COMPUTE_TYPE_DEFAULT=0)
    solves = _functions("cupyx.scipy.linalg", solve_triangular=_solve_triangular)
    _module("cupyx.scipy", linalg=_module("cupyx.scipy.linalg", **solves))
    space["__all__"] = [name for name in space if not name.startswith("_")]
