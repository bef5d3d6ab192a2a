"""How the core finds a library's native primitives, and how to do without them.

A primitive is a function of the core, written once in pure array-API operations: its
*agnostic twin*. A library may replace it by a native one. An adapter of a library names a
module in the entry-point group ``invconv.backends`` under the library's import name::

    [project.entry-points."invconv.backends"]
    torch = "invconv_torch.primitives"

and defines functions there with the primitives' names and signatures; primitives that it leaves
out stay agnostic. `invconv.extend.register_backend` needs no entry point. The module's
``ARRAY_OPS`` answers the core's other questions about the library (`namespaces`). NumPy's
primitives are the core's own, `invconv.kernels.numpy_primitives`.
"""

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Generic, ParamSpec, TypeVar

from invconv.arrays.namespaces import KNOWN, backend, ops_of

P = ParamSpec("P")
R = TypeVar("R")

_forced_agnostic: ContextVar[bool] = ContextVar("invconv_forced_agnostic", default=False)
# an entry for each open `agnostic` context, of any thread: torch.compile cannot look into a
# ContextVar, and need not while no context is open
_forcing: list[None] = []
PRIMITIVES: "dict[str, Primitive[..., Any]]" = {}


@contextmanager
def agnostic(forced: bool = True) -> Iterator[None]:
    """Run the agnostic twin of every primitive inside this context; if not forced, native ones.

    It holds in the thread or task that opened it. `torch.compile` cannot trace a primitive while
    such a context is open.

    Examples
    --------
    >>> import numpy as np
    >>> from invconv import PeriodicConv
    >>> from invconv.extend import agnostic
    >>> rng = np.random.default_rng(0)
    >>> conv, x = PeriodicConv.init(2, rng=rng), rng.standard_normal((1, 2, 4, 5))
    >>> with agnostic():
    ...     y = conv.forward(x)
    >>> bool(np.allclose(y, conv.forward(x)))
    True
    """
    token = _forced_agnostic.set(forced)
    _forcing.append(None)
    try:
        yield
    finally:
        _forcing.pop()
        _forced_agnostic.reset(token)


class Primitive(Generic[P, R]):
    """A function that runs as the native one of the array's library, or else as its agnostic twin.

    ``function`` is the twin. Native functions have the same name, or ``name`` if it is given.
    The argument at position ``on``, an array or an object with ``taps``, decides the library.
    """

    def __init__(self, function: Callable[P, R], name: str | None = None, *, on: int = 0) -> None:
        self.agnostic = function
        functools.update_wrapper(self, function)
        self.name = self.__name__ = name or function.__name__
        self._on = on
        PRIMITIVES[self.name] = self

    def native(self, library: str) -> Callable[P, R] | None:
        """Return the native function registered for a library, or None."""
        return getattr(backend(library), self.name, None)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        if _forcing and _forced_agnostic.get():
            return self.agnostic(*args, **kwargs)
        array = args[self._on]
        ops = KNOWN.get(type(array)) or ops_of(getattr(array, "taps", array))
        return (getattr(ops.primitives, self.name, None) or self.agnostic)(*args, **kwargs)


def method(name: str, *, on: int) -> Primitive[..., Any]:
    """Return the primitive whose agnostic twin is a method of its first argument."""

    def twin(owner: Any, *args: Any) -> Any:
        return getattr(owner, name)(*args)

    return Primitive(twin, name, on=on)
