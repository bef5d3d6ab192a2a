"""How the core finds a library's native primitives, and how to do without them.

A primitive is a function of the core, written once in pure array-API operations: its
*agnostic twin*. A library may replace it by a native one. Whoever adapts a library names a
module in the entry-point group ``invconv.backends`` under the library's import name::

    [project.entry-points."invconv.backends"]
    torch = "invconv_torch.primitives"

and defines functions there with the primitives' names and signatures; those it leaves out
stay agnostic. NumPy's own (`invconv.numpy_primitives`) are registered in the same way.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from importlib.metadata import entry_points
from types import ModuleType
from typing import Any, Generic, ParamSpec, TypeVar

from invconv.arrays import library_name

P = ParamSpec("P")
R = TypeVar("R")

_forced_agnostic: ContextVar[bool] = ContextVar("invconv_forced_agnostic", default=False)
PRIMITIVES: dict[str, Primitive[..., Any]] = {}


@contextmanager
def agnostic() -> Iterator[None]:
    """Run the pure array-API twin of every primitive inside this context.

    Examples
    --------
    >>> import numpy as np
    >>> from invconv import PeriodicConv
    >>> from invconv.registry import agnostic
    >>> rng = np.random.default_rng(0)
    >>> conv, x = PeriodicConv.init(2, rng=rng), rng.standard_normal((1, 2, 4, 5))
    >>> with agnostic():
    ...     y = conv.forward(x)
    >>> bool(np.allclose(y, conv.forward(x)))
    True
    """
    token = _forced_agnostic.set(True)
    try:
        yield
    finally:
        _forced_agnostic.reset(token)


@functools.cache
def backend(library: str) -> ModuleType | None:
    """Return the module of native primitives registered for a library, imported on first use."""
    for entry in entry_points(group="invconv.backends", name=library):
        module: ModuleType = entry.load()
        return module
    return None


class Primitive(Generic[P, R]):
    """A function with an agnostic twin; calling it runs the native one of the array's library."""

    def __init__(self, function: Callable[P, R]) -> None:
        self.agnostic = function
        self.name = function.__name__
        functools.update_wrapper(self, function)
        PRIMITIVES[self.name] = self

    def native(self, library: str) -> Callable[P, R] | None:
        """Return the native function registered for a library, or None."""
        return getattr(backend(library), self.name, None)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run on the first argument's library: an array, or something with ``taps``."""
        if _forced_agnostic.get():
            return self.agnostic(*args, **kwargs)
        array = getattr(args[0], "taps", args[0])
        native = self.native(library_name(array))
        return (native or self.agnostic)(*args, **kwargs)
