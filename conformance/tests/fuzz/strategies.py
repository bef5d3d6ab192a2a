"""Random calls for Hypothesis: mostly right ones, and right ones with up to two faults."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hypothesis import strategies as st

from invconv.operators.base.register import own_operators
from tests.fuzz.call import FILLS, LIBRARIES, Arr, Call, Op

_JUNK: tuple[Any, ...] = (
    *(None, True, "", "corner", "raster", "lower", (), (1,), (1, 1), (1, 2, 3), (-1, 1), "rng"),
    *(-(2**70), -1, 0, 1, 2, 3, 7, 2**31, 2**63, 2**70, 0.5, float("nan"), float("inf"), 1j),
)
_NAMES = [cls.__name__ for cls in own_operators() if hasattr(cls, "init")]
Named = tuple[tuple[str, Any], ...]


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

    def one_of(self, *options: Any) -> Any:
        """Return one of the options."""
        return self._draw(st.sampled_from(options))

    def array(self, *shape: int, fill: str = "normal", dtype: str = "") -> Arr:
        """Return an array."""
        seed = self._draw(st.integers(0, 999))
        return Arr(self.library, dtype or self.dtype, shape, fill, seed)

    def image(self, batch: tuple[int, ...] | None = None) -> Arr:
        """Return an image, or some."""
        batch = self.one_of((), (1,), (2,), (2, 1), (0,)) if batch is None else batch
        return self.array(*batch, self.channels, *self.grid)

    def per_axis(self, *options: int) -> Any:
        """Return one option for all axes, or one for each."""
        if self.one_of(True, False):
            return self.one_of(*options)
        return tuple(self.one_of(*options) for _ in range(self.ndim))

    def operator(self, depth: int = 0) -> Op:
        """Return an operator that is right."""
        name = self.one_of(*_NAMES, *(("Chain", "Inverse") if depth < 2 else ()))
        if name == "Inverse":
            return Op(name, (("conv", self.operator(depth + 1)),))
        if name == "Chain":
            count = self.one_of(1, 2, 3)
            return Op(name, (("steps", tuple(self.operator(depth + 1) for _ in range(count))),))
        arguments: Named = {
            "AutoregressiveConv": self._autoregressive,
            "PeriodicConv": self._periodic,
            "EmergingConv": self._emerging,
            "ExponentialConv": self._exponential,
            "SymmetricConv": self._symmetric,
        }.get(name, lambda: self._pointwise(name))()
        if name == "ActNorm" or self.one_of(True, False):
            arguments = (*arguments, ("bias", self.array(self.channels)))
        return Op(name, arguments)

    def _kernel(self, size: tuple[int, ...]) -> tuple[str, Arr]:
        fill = self.one_of("near identity", "near identity", "normal", "zeros")
        return "kernel", self.array(self.channels, self.channels, *size, fill=fill)

    def _autoregressive(self, direction: int | None = None) -> Named:
        mask = self.one_of("corner", "raster")
        size = tuple(self.one_of(1, 2, 3) for _ in range(self.ndim))
        if mask == "raster":
            size = (size[0], *(2 * k - 1 for k in size[1:]))
        way = direction or (self.one_of(1, -1) if mask == "raster" else self.per_axis(1, -1))
        order = self.one_of("lower", "upper")
        settings = ("mask", mask), ("direction", way), ("channel_order", order)
        return (self._kernel(size), *settings, ("dilation", self.per_axis(1, 1, 2, 5)))

    def _periodic(self) -> Named:
        size = tuple(self.one_of(1, 2, 3, 4) for _ in range(self.ndim))
        return (self._kernel(size), ("dilation", self.per_axis(1, 1, 2, 5)))

    def _exponential(self) -> Named:
        size = tuple(self.one_of(1, 3, 5) for _ in range(self.ndim))
        padding = "padding", self.one_of("zeros", "circular")
        return (self._kernel(size), padding, ("dilation", self.per_axis(1, 1, 2, 5)))

    def _symmetric(self) -> Named:
        return (self._kernel(tuple(self.one_of(1, 2, 3, 4) for _ in range(self.ndim))),)

    def _emerging(self) -> Named:
        first, second = (Op("AutoregressiveConv", self._autoregressive(s)) for s in (1, -1))
        return (("first", first), ("second", second))

    def _pointwise(self, name: str) -> Named:
        c, ndim = self.channels, ("ndim", self.one_of(None, self.ndim))
        square = self.array(c, c, fill=self.one_of("normal", "near identity", "zeros"))
        if name == "Conv1x1":
            return (("weight", square), ndim)
        if name == "ActNorm":
            return (("log_scale", self.array(c)), ndim)
        reflectors = self.array(self.one_of(0, 1, c, 2 * c), c)
        if name == "CirculantConv1x1":
            c_hat = self.array(c, fill=self.one_of("normal", "normal", "zeros"))
            return (("left", self.array(c)), ("circulant", c_hat), ("right", self.array(c)), ndim)
        if name == "OrthogonalConv1x1":
            return (("reflectors", reflectors), ndim)
        if name == "HouseholderConv1x1":
            return (("log_scale", self.array(c)), ("reflectors", reflectors), ndim)
        if name == "QRConv1x1":
            scale = self.array(c, fill=self.one_of("normal", "normal", "zeros"))
            return (("reflectors", reflectors), ("upper", square), ("scale", scale), ndim)
        order = self.array(c, fill="order", dtype="int64")
        signs, scale = self.array(c, fill="signs"), self.array(c)
        lower = ("permutation", order), ("lower", square)
        return (*lower, ("upper", self.array(c, c)), ("sign", signs), ("log_scale", scale), ndim)

    def arguments(self, method: str) -> Named:
        """Return right arguments for a method of an operator that takes a single batch axis too."""
        image = self.image((2,))
        bar = ("log_det_bar", self.one_of(None, self.array(2)))
        shape = ("spatial_shape", self.grid)
        if method.endswith("forward") or method == "forward_and_log_det":
            return (("x", image if self.one_of(True, False) else self.image()),)
        if method.startswith("prepare."):
            option = self.one_of((), ("check", False), ("precision", "float64"))
            return (shape, ("y", image), *([option] if option else []))
        if method.startswith("inverse") and not method.endswith("vjp"):
            return (("y", image if self.one_of(True, False) else self.image()),)
        if method == "forward_vjp":
            return (("x", image), ("y_bar", replace(image, seed=1)), bar)
        if method == "inverse_vjp":
            return (("y", image), ("x_bar", replace(image, seed=1)), bar)
        if method in ("log_det", "condition"):
            return (shape,)
        if method == "asarrays":
            library = self.one_of(*LIBRARIES)
            return (("like", Arr(library, self.one_of(*LIBRARIES[library]), (), "zeros", 0)),)
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
    if kind != "init":
        image = d.array(2, 4 * d.channels, *(2 * n for n in d.grid))
        basis = ("basis", d.one_of("pixels", "haar", "dct"))
        settings = ("factor", d.one_of(1, 2)), ("ndim", d.ndim), basis
        return Call("invconv", kind, (("x", image), *settings))
    name = d.one_of(*_NAMES)
    arguments: Named = (("channels", d.channels), ("rng", "rng"), ("like", d.image()))
    if name.endswith("Conv"):
        arguments = (*arguments, ("kernel_size", d.per_axis(1, 3, 5)), ("ndim", d.ndim))
    if name.endswith(("iveConv", "odicConv", "gingConv", "tialConv")):
        arguments = (*arguments, ("dilation", d.one_of(1, 2)))
    return Call(name, "init", arguments)


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
    if isinstance(value, Call):
        if isinstance(value.target, Op) and (not value.arguments or d.one_of(True, False)):
            return replace(value, target=_spoiled(d, value.target))
        return replace(value, arguments=_spoiled_one(d, value.arguments))
    if isinstance(value, Op):
        return replace(value, arguments=_spoiled_one(d, value.arguments))
    if isinstance(value, Arr) and d.one_of(*range(8)):
        return _spoiled_array(d, value)
    if isinstance(value, tuple) and value and d.one_of(True, False):
        i = d.one_of(*range(len(value)))
        return (*value[:i], _spoiled(d, value[i]), *value[i + 1 :])
    return d.one_of(*_JUNK, d.array(2))


def _spoiled_one(d: Draw, arguments: Named) -> Named:
    if not arguments:
        return arguments
    i = d.one_of(*range(len(arguments)))
    name, value = arguments[i]
    return (*arguments[:i], (name, _spoiled(d, value)), *arguments[i + 1 :])


def _spoiled_array(d: Draw, array: Arr) -> Arr:
    """Return an array of another library, dtype, shape or content."""
    kind, shape = d.one_of("library", "dtype", "shape", "fill"), array.shape
    if kind == "fill":
        return replace(array, fill=d.one_of(*FILLS))
    if kind == "shape":
        i, n = d.one_of(*range(len(shape) + 1)), d.one_of(0, 1, 2, 3)
        others = (*shape[:i], n, *shape[i:]), (*shape[:i], n, *shape[i + 1 :]), shape[:i]
        return replace(array, shape=d.one_of(*others, (*shape[:i], *shape[i + 1 :])))
    library = d.one_of(*LIBRARIES) if kind == "library" else array.library
    return replace(array, library=library, dtype=d.one_of(*LIBRARIES[library]))
