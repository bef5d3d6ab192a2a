"""Validation of arguments, arrays and settings: errors name the argument, and what was passed."""

import math
import operator
from collections.abc import Iterable, Mapping, Set
from numbers import Real
from typing import Any

import numpy as np

from invconv.arrays.namespaces import KNOWN, Array, Namespace, dtype_name, native_dtype, ops_of

_BITS = 16, 32, 64  # of the dtypes that operators take
_MOST_AXES = 64  # of an array, in NumPy and PyTorch
Sizes = dict[str, tuple[int, str]]  # from an axis to its size, and the array that has it
LARGEST = 2**31 - 1  # of any size: so that products of two stay exact in 64 bits


def require_array(name: str, x: Any, *, computed: bool = True) -> Namespace:
    """Return the namespace of ``x``, or raise TypeError where it is no array of a library.

    Unless it is to be ``computed`` with, it may be of a kind that no operator takes.
    """
    if isinstance(x, np.ma.MaskedArray):
        raise TypeError(
            f"{name}: expected an array without a mask, got a masked array, whose mask would be "
            "lost; say what its hidden entries are, for instance with .filled(0)"
        )
    try:
        # a class of arrays would pass for an array, as it has the methods
        ops = ops_of(None if isinstance(x, type) else x)
    except TypeError:
        raise TypeError(
            f"{name}: expected an array of a library that follows the Python array API standard, "
            f"got {type(x).__name__}; convert it first, for instance with numpy.asarray"
        ) from None
    if computed:
        ops.require(name, x)
    return ops.xp


def require_real(name: str, x: Any) -> None:
    """Raise TypeError unless ``x`` is an array of a supported real floating dtype."""
    xp = require_array(name, x)
    if ops_of(x).bits.get(x.dtype) in _BITS:  # known from an earlier call
        return
    try:
        real = xp.isdtype(x.dtype, "real floating")
    except TypeError:  # NumPy's, for a dtype of records
        real = False
    if not real or xp.finfo(x.dtype).bits not in _BITS:
        kind = dtype_name(x.dtype)
        way = "cast it first, nothing is promoted"
        if "complex" in kind:
            way = "pass its real and imaginary part in turn"
        raise TypeError(
            f"{name}: expected a real floating dtype (float32 or float64; float16 is computed in "
            f"float32, as is bfloat16 of libraries that have it: NumPy has not), got {kind}; {way}"
        )


def require_alike(name: str, x: Any, like_name: str, like: Array, *, movable: bool = False) -> None:
    """Raise unless ``x`` has the library, device and dtype, but for byte order, of ``like``.

    ``movable`` if ``like`` belongs to an operator, which can be carried over.
    """
    ops = KNOWN.get(type(x))
    if ops is not None and ops is KNOWN.get(type(like)) and ops.same_kind(x, like):
        return  # ``like`` has been validated
    require_real(name, x)
    require_beside(name, x, like_name, like, movable=movable)
    if native_dtype(x.dtype) != native_dtype(like.dtype):
        raise TypeError(
            f"{name}: expected dtype {dtype_name(like.dtype)} as {like_name} has, got "
            f"{dtype_name(x.dtype)}; nothing is promoted silently: cast {name}"
            f"{_or_move(name) if movable else ''}"
        )


def _or_move(name: str) -> str:
    return f", or carry the operator over with conv.asarrays(like={name})"


def require_beside(
    name: str, x: Array, like_name: str, like: Array, *, movable: bool = False
) -> None:
    """Raise unless ``x`` has the library and device of ``like``."""
    own, other = ops_of(x), ops_of(like)
    if own.name != other.name:
        raise TypeError(
            f"{name}: expected an array of {other.name} as {like_name} is, got one of "
            f"{own.name}; convert {name}{_or_move(name) if movable else ''}"
        )
    here, there = own.placement(x), other.placement(like)
    if here != there and None not in (here, there):
        raise ValueError(
            f"{name}: expected an array on device {there} as {like_name} is, got one on "
            f"{here}; move one of them, nothing is moved silently"
        )


def require_shape(name: str, value: Array, axes: tuple[str, ...], sizes: Sizes) -> None:
    """Raise ValueError unless an array has these axes; add its sizes to those of other arrays.

    An axis "C" has at least one channel; "*k", which can only be last, stands for one axis or more.
    """
    shape, several = tuple(map(int, value.shape)), axes[-1] == "*k"
    fixed = axes[:-1] if several else axes
    fits = len(shape) > len(fixed) if several else len(shape) == len(fixed)
    for axis, n in zip(fixed, shape, strict=False):
        fits = fits and n == sizes.setdefault(axis, (n, name))[0] and (n >= 1 or axis != "C")
    if fits and all(n >= 1 for n in shape[len(fixed) :]):
        return
    expected = f"{fixed[0]}," if len(axes) == 1 else ", ".join(axes)
    single = several and 1 <= len(shape) < len(axes)
    hint = f"; of one channel it is {name}[{', '.join(['None'] * len(fixed))}]" * single
    known = [f"{axis} = {n} as {of} has" for axis, (n, of) in sizes.items() if axis in fixed]
    others = [text for text in known if not text.endswith(f" {name} has")]
    raise ValueError(
        f"{name}: expected shape ({expected}){' with ' * bool(others)}{', '.join(others)}, got "
        f"{shape}{hint}"
    )


def table(name: str, values: Any) -> Any:
    """Return numbers in sequences as an array of NumPy, or raise."""
    try:
        return np.asarray(values)
    except ValueError:
        raise ValueError(f"{name}: expected rows of one length, got several") from None
    except (TypeError, RuntimeError):  # JAX's for tracers, PyTorch's for trained tensors
        raise TypeError(
            f"{name}: expected numbers, or one array, got a {type(values).__name__} of arrays that "
            "NumPy cannot read; stack them, as torch.stack and jax.numpy.stack do"
        ) from None


def positive_int(name: str, value: Any) -> int:
    """Return ``value`` as an int of at least 1, or raise."""
    number = integer(name, value, "a positive integer")
    if not 1 <= number <= LARGEST:
        raise ValueError(f"{name}: expected a positive integer up to {LARGEST}, got {number}")
    return number


def in_order(values: Any) -> tuple[Any, ...]:
    """Return values as a tuple, or raise TypeError if they cannot be iterated or have no order."""
    if isinstance(values, Set | Mapping):  # unordered, or keyed by names
        raise TypeError
    return tuple(values)


def per_axis(name: str, value: Any, ndim: int) -> tuple[int, ...]:
    """Return one integer per spatial axis, from one integer or a sequence of ``ndim``."""
    what = f"an integer, or {ndim} of them, one per spatial axis"
    if hasattr(value, "__index__") and not getattr(value, "ndim", 0):
        return (integer(name, value, what),) * ndim
    try:
        values = in_order(value)
    except TypeError:
        raise TypeError(f"{name}: expected {what}, got {value!r}") from None
    if len(values) != ndim:
        more = f"; ndim={len(values)} makes it so many axes" if name == "kernel_size" else ""
        raise ValueError(f"{name}: expected {what}, got {len(values)}: {value!r}{more}")
    return tuple(integer(name, v, what) for v in values)


def sizes(name: str, value: Any, ndim: int) -> tuple[int, ...]:
    """Return one integer of at least 1 per spatial axis."""
    numbers = per_axis(name, value, ndim)
    if not all(1 <= n <= LARGEST for n in numbers):
        raise ValueError(
            f"{name}: expected at least 1 along every axis, {LARGEST} at most, got {value!r}"
        )
    return numbers


def directions(name: str, value: Any, ndim: int) -> tuple[int, ...]:
    """Return +1 or -1 per spatial axis."""
    numbers = per_axis(name, value, ndim)
    if any(n not in (1, -1) for n in numbers):
        raise ValueError(f"{name}: expected +1 or -1 along every axis, got {value!r}")
    return numbers


def choice(name: str, value: Any, options: tuple[str, ...], hint: str = "") -> str:
    """Return ``value`` as Python's str, or raise; ``hint`` ends the message."""
    if not isinstance(value, str) or value not in options:
        expected = " or ".join(repr(o) for o in options)
        raise ValueError(f"{name}: expected {expected}, got {value!r}{hint}")
    return str(value)


def flag(name: str, value: Any) -> bool:
    """Return ``value`` if it is True or False, or raise."""
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name}: expected True or False, got {value!r}")
    return bool(value)


def optional_ndim(conv: Any) -> None:
    """Validate and normalise the ``ndim`` of a 1x1 convolution or actnorm."""
    if conv.ndim is not None:
        number = integer("ndim", conv.ndim, "None or a number of spatial axes")
        if not 0 <= number <= _MOST_AXES:
            raise ValueError(
                f"ndim: expected None or a number of spatial axes, {_MOST_AXES} at most, "
                f"got {number}"
            )
        object.__setattr__(conv, "ndim", number)


def generator(rng: Any) -> np.random.Generator:
    """Return ``rng``, a new generator for None, or raise where it is no NumPy generator."""
    if rng is None:
        return np.random.default_rng()
    if not isinstance(rng, np.random.Generator):
        hint = "; invconv_jax.init takes a key" if hasattr(rng, "dtype") else ""
        raise TypeError(
            f"rng: expected a numpy.random.Generator such as numpy.random.default_rng(0), "
            f"got {type(rng).__name__}{hint}"
        )
    return rng


def is_number(value: Any) -> bool:
    """Tell whether ``value`` is a real number, of Python or NumPy."""
    return isinstance(value, Real)


def finite_or_nan(value: Any) -> float:
    """Return a finite real number as a float, and NaN for any other value."""
    try:
        number = float(value) if is_number(value) else math.nan
    except OverflowError:  # an integer beyond all floats
        return math.nan
    return number if number - number == 0 else math.nan  # also for a SymFloat


def instead(value: Any) -> str:
    """Say what to pass instead of an object that is no operator but holds one, or ""."""
    if hasattr(value, "operator"):
        return "; of a layer pass layer.operator()"
    for name in ("chain", "conv"):  # reversible chains, prepared inverses
        if hasattr(value, name):
            return f"; pass its .{name}"
    if isinstance(value, Iterable) and not isinstance(value, str) and not hasattr(value, "dtype"):
        if any(hasattr(item, "operator") for item in value):
            return "; of layers make a Chain([layer.operator() for layer in ...])"
        return "; of several make a Chain([...]) of operators"
    if hasattr(value, "state_dict"):
        return "; pass the operator of a layer in it, layer.operator(), or save its state_dict()"
    return ""


def integer(name: str, value: Any, what: str = "an integer") -> int:
    """Return ``value`` as an int, or raise TypeError."""
    if isinstance(value, (bool, np.bool_)):  # which Python takes for 0 and 1
        raise TypeError(f"{name}: expected {what}, got {value!r}")
    try:
        return operator.index(value)
    except TypeError:
        raise TypeError(f"{name}: expected {what}, got {value!r}") from None
