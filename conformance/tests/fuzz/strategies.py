"""Random calls for Hypothesis: mostly right ones, and right ones with up to two faults."""

import dataclasses
import inspect
from dataclasses import replace
from typing import Any

import numpy as np
from array_api_compat import is_array_api_obj
from hypothesis import strategies as st

import invconv as ic
from invconv.arrays.namespaces import dtype_name, ops_of, to_numpy
from tests.fuzz.judge import LIBRARIES, Call, Named, Op, as_array
from tests.selected import OWN

_JUNK: tuple[Any, ...] = (
    *(None, True, "", "corner", "raster", "lower", (), (1,), (1, 1), (1, 2, 3), (-1, 1), "rng"),
    *(-(2**70), -1, 0, 1, 2, 3, 7, 2**31, 2**63, 2**70, 0.5, float("nan"), float("inf"), 1j),
)
_NAMES = [cls.__name__ for cls in OWN if hasattr(cls, "init")]


class Draw:
    """Draws arrays of one library and dtype, for images of one number of spatial axes."""

    def __init__(self, draw: st.DrawFn) -> None:
        self._draw = draw
        self.library = self.one_of("numpy", "numpy", "torch", "array_api_strict")
        real = [d for d in LIBRARIES[self.library] if "float" in d]
        self.dtype = self.one_of(*real)
        self.ndim: int = draw(st.integers(1, 3))
        self.channels: int = draw(st.integers(1, 3))
        most = {1: 7, 2: 5, 3: 3}[self.ndim]
        self.grid = tuple(draw(st.integers(1, most)) for _ in range(self.ndim))
        self._rng = np.random.default_rng(draw(st.integers(0, 2**32)))

    def one_of(self, *options: Any) -> Any:
        return self._draw(st.sampled_from(options))

    def array(self, *shape: int) -> Any:
        return as_array(self.library, self.dtype, self._rng.standard_normal(shape))

    def any_array(self, numbers: Any) -> Any:
        library = self.one_of(*LIBRARIES)
        return as_array(library, self.one_of(*LIBRARIES[library]), np.asarray(numbers))

    def image(self, batch: tuple[int, ...] | None = None) -> Any:
        batch = self.one_of((), (1,), (2,), (2, 1), (0,)) if batch is None else batch
        return self.array(*batch, self.channels, *self.grid)

    def per_axis(self, *options: Any) -> Any:
        if self.one_of(True, False):
            return self.one_of(*options)
        return tuple(self.one_of(*options) for _ in range(self.ndim))

    def settings(self, cls: Any) -> dict[str, Any]:
        mask = self.one_of("corner", "raster")
        even = cls in (ic.AutoregressiveConv, ic.PeriodicConv)
        settings = {
            "ndim": self.ndim,
            "kernel_size": self.per_axis(1, 2, 3) if even else self.per_axis(1, 3, 5),
            "mask": mask,
            "direction": self.one_of(1, -1) if mask == "raster" else self.per_axis(1, -1),
            "channel_order": self.one_of("lower", "upper"),
            "padding": self.one_of("zeros", "circular"),
            "dilation": self.per_axis(1, 1, 2, 5),
            "boundary": self.per_axis("symmetric", "mirror", "odd", "periodic"),
        }
        known = inspect.signature(cls.init).parameters
        return {name: value for name, value in settings.items() if name in known}

    def operator(self, depth: int = 0) -> Op:
        name = self.one_of(*_NAMES, *(("Chain", "Inverse") if depth < 2 else ()))
        if name == "Inverse":
            return Op(name, (("conv", self.operator(depth + 1)),))
        if name == "Chain":
            count = self.one_of(1, 2, 3)
            return Op(name, (("steps", tuple(self.operator(depth + 1) for _ in range(count))),))
        cls = getattr(ic, name)
        return self._as_data(cls.init(self.channels, rng=self._rng, **self.settings(cls)))

    def _as_data(self, conv: Any) -> Op:
        values = {field.name: getattr(conv, field.name) for field in dataclasses.fields(conv)}
        for name, value in values.items():
            if isinstance(value, ic.InvertibleConv):
                values[name] = self._as_data(value)
            elif name == "bias":
                values[name] = self.one_of(None, self.array(self.channels))
            elif name in conv.parameters():
                values[name] = as_array(self.library, self.dtype, self._moved(value))
            elif isinstance(value, np.ndarray):  # of signs, or of an order
                dtype = "int64" if value.dtype.kind == "i" else self.dtype
                values[name] = as_array(self.library, dtype, value)
        return Op(type(conv).__name__, tuple(values.items()))

    def _moved(self, numbers: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        by = self.one_of(0.0, 0.05, 0.05, 1.0, 1.0, None)
        if by is None:
            return 0 * numbers
        return np.asarray(numbers + by * self._rng.standard_normal(numbers.shape))

    def arguments(self, method: str) -> Named:
        image = self.image((2,))
        bar = ("log_det_bar", self.one_of(None, self.array(2)))
        shape = ("spatial_shape", self.grid)
        if method.endswith("_vjp"):
            names = ("x", "y_bar") if method == "forward_vjp" else ("y", "x_bar")
            return ((names[0], image), (names[1], self.image((2,))), bar)
        if method.startswith("prepare."):
            option = self.one_of((), ("check", False), ("precision", "float64"))
            return (shape, ("y", image), *([option] if option else []))
        if method.startswith(("forward", "inverse")):
            name = "x" if method.startswith("forward") else "y"
            return ((name, image if self.one_of(True, False) else self.image()),)
        if method in ("log_det", "condition"):
            return (shape,)
        if method == "asarrays":
            return (("like", self.any_array(0.0)),)
        if method == "replace":
            name = self.one_of("kernel", "bias", "weight", "first.kernel", "0.bias", "conv.bias")
            return ((name, self.array(self.channels)),)
        return ()


_METHODS = ("forward", "inverse", "forward_and_log_det", "inverse_and_log_det", "log_det") * 2 + (
    *("forward_vjp", "inverse_vjp", "prepare.inverse", "prepare.inverse_and_log_det", "condition"),
    *("transpose", "parameters", "replace", "asarrays", "__repr__"),
)


def _function(d: Draw) -> Call:
    """Return a call of what is no method of an operator."""
    kind = d.one_of("squeeze", "unsqueeze", "init", "bounded", "diagnose", "diagnose")
    if kind == "bounded":
        return Call("invconv", kind, (("conv", d.operator()), ("max_gain", d.one_of(1.5, 10, 1e9))))
    if kind == "diagnose":
        dtype = ("dtype", d.one_of(None, "float16", "float32", "float64"))
        return Call("invconv", kind, (("conv", d.operator()), ("spatial_shape", d.grid), dtype))
    if kind == "init":
        name = d.one_of(*_NAMES)
        arguments = ("channels", d.channels), ("rng", "rng"), ("like", d.image())
        return Call(name, kind, (*arguments, *d.settings(getattr(ic, name)).items()))
    image = d.array(2, 4 * d.channels, *(2 * n for n in d.grid))
    basis = ("basis", d.one_of("pixels", "haar", "dct"))
    settings = ("factor", d.one_of(1, 2)), ("ndim", d.ndim), basis
    return Call("invconv", kind, (("x", image), *settings))


@st.composite
def calls(draw: st.DrawFn) -> Call:
    """Draw a call."""
    d = Draw(draw)
    if d.one_of(*range(12)) == 0:
        call = _function(d)
    else:
        method = d.one_of(*_METHODS)
        call = Call(d.operator(), method, d.arguments(method))
    for _ in range(d.one_of(0, 1, 1, 2)):
        call = _spoiled(d, call)
    return call


def _spoiled(d: Draw, value: Any) -> Any:
    """Return a value with one fault, anywhere in it."""
    of_operator = isinstance(value, Call) and isinstance(value.target, Op)
    if of_operator and (not value.arguments or d.one_of(True, False)):
        return replace(value, target=_spoiled(d, value.target))
    if isinstance(value, (Call, Op)):
        i = d.one_of(*range(len(value.arguments)))
        name, argument = value.arguments[i]
        spoiled = (*value.arguments[:i], (name, _spoiled(d, argument)), *value.arguments[i + 1 :])
        return replace(value, arguments=spoiled)
    if is_array_api_obj(value) and d.one_of(*range(8)):
        return _spoiled_array(d, value)
    if isinstance(value, tuple) and value and d.one_of(True, False):
        i = d.one_of(*range(len(value)))
        return (*value[:i], _spoiled(d, value[i]), *value[i + 1 :])
    return d.one_of(*_JUNK, d.array(2))


def _spoiled_array(d: Draw, array: Any) -> Any:
    """Return an array of another library, dtype, shape or content."""
    kind, shape = d.one_of("kind", "shape", "all", "one"), array.shape
    numbers = np.real(to_numpy(array))
    if kind == "kind":
        return d.any_array(numbers)
    if kind == "shape":
        i, n = d.one_of(*range(len(shape) + 1)), d.one_of(0, 1, 2, 3)
        others = (*shape[:i], n, *shape[i:]), (*shape[:i], n, *shape[i + 1 :]), shape[:i]
        return d.array(*d.one_of(*others, shape[1:]))
    numbers, number = numbers.astype(float), d.one_of(np.nan, np.inf, 1e30, 1e-30)
    numbers.reshape(-1)[: 1 if kind == "one" else None] = number
    return as_array(ops_of(array).name, dtype_name(array.dtype), numbers)
