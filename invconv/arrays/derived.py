"""`derived`: a property of a frozen dataclass that is computed once, then a plain attribute."""

import functools
from typing import TYPE_CHECKING, Any, TypeVar

T = TypeVar("T")


class derived(functools.cached_property[T]):
    """A property that an object computes at its first use and keeps from then on.

    Copies of an operator with other arrays keep it too: it must depend on settings and shapes only,
    not on values of arrays (see `of_values`). It is `functools.cached_property`, as type checkers
    see it, without the lock of Python 3.11, which torch.compile cannot trace.
    """

    if not TYPE_CHECKING:

        def __get__(self, instance: Any, owner: type | None = None) -> Any:
            if instance is None:
                return self
            value = self.func(instance)
            object.__setattr__(instance, self.attrname, value)
            return value


class of_values(derived[T]):
    """A derived property that may depend on values of arrays; copies with other arrays drop it."""
