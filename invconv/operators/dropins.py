"""Helpers of the drop-ins for flow libraries: `invconv_torch.interop` and `invconv_jax.interop`.

In every drop-in an operator's ``forward`` turns data into latent variables, z = K x + b, whichever
direction the library calls forward: the density of x is p(K x + b) |det K| everywhere.
"""

import importlib
from collections.abc import Callable, Mapping
from typing import Any

from invconv.arrays.namespaces import Array, size
from invconv.arrays.validation import integer


def lazily(package: str, drop_ins: Mapping[str, tuple[str, str]]) -> Callable[[str], Any]:
    """Return a ``__getattr__`` for a package; it imports a drop-in's library at its first use.

    Each class has a module, and a package that it needs, by its name for pip.
    """

    def getattribute(name: str) -> Any:
        if name not in drop_ins:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        module, needed = drop_ins[name]
        try:
            return getattr(importlib.import_module(f"{package}.{module}"), name)
        except ImportError as error:
            raise ImportError(
                f"{name} needs {needed}, which cannot be imported ({error}): "
                f"pip install {needed}, or 'invconv[interop]' for every flow library"
            ) from error

    return getattribute


def require_conv(conv: Any) -> None:
    """Raise unless an object has both ``*_and_log_det`` methods, as operators do."""
    both = ("forward_and_log_det", "inverse_and_log_det")
    if not all(callable(getattr(conv, name, None)) for name in both):
        raise TypeError(
            f"conv: expected an operator of invconv, got {type(conv).__name__}; of a layer of "
            f"invconv_torch, its operator in JAX: layer.operator().asarrays(like=jax_array)"
        )


def event_ndim(own: int | None, ndim: int | None) -> int:
    """Return the axes of a sample, channels included, from an operator's own ndim or the user's."""
    if ndim is None:
        ndim = own
    if ndim is None:
        raise ValueError(
            "ndim: expected the number of spatial axes, which this operator leaves open, got None; "
            "pass ndim=2 for images, here or when the operator is made"
        )
    number = integer("ndim", ndim, "a number of spatial axes")
    if number < 0 or own not in (None, number):
        expected = "0 or more spatial axes" if own is None else f"the operator's, {own}"
        raise ValueError(f"ndim: expected {expected}, got {number}")
    return number + 1


def on_batch(
    run: Callable[[Array], tuple[Array, Array]], x: Array, axes: int
) -> tuple[Array, Array]:
    """Run a ``*_and_log_det`` of (B, C, *spatial) on x with any batch axes; see `event_ndim`."""
    batch, event = batch_and_event(x, axes)
    y, log_det = run(x.reshape((size(batch), *event)))
    require_kept(event, y)
    return y.reshape(x.shape), log_det.reshape(batch)


def require_kept(event: tuple[int, ...], y: Array) -> None:
    """Raise unless a layer kept the shape of a sample."""
    if tuple(y.shape[1:]) != event:
        raise ValueError(
            f"conv: expected a layer that keeps the shape of a sample, {event}, got one that makes "
            f"it {tuple(y.shape[1:])}"
        )


def batch_and_event(x: Array, axes: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Split the shape of an array into batch axes and the last ``axes`` axes."""
    shape = tuple(x.shape)
    if len(shape) < axes:
        raise ValueError(
            f"x: expected shape (*batch, C, *spatial) with {axes - 1} spatial axes, got {shape}"
        )
    return shape[: len(shape) - axes], shape[len(shape) - axes :]
