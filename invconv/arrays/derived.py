"""`derived`: a property of a frozen dataclass that is computed once, then a plain attribute."""

from collections.abc import Callable
from typing import Any, Generic, TypeVar, overload

T = TypeVar("T")


class derived(Generic[T]):
    """A property that an object computes at its first use and keeps from then on.

    It is `functools.cached_property` without the lock that Python 3.11 has in it, which
    torch.compile cannot trace.
    """

    def __init__(self, function: Callable[[Any], T]) -> None:
        self._function = function
        self.__doc__ = function.__doc__

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    @overload
    def __get__(self, instance: None, owner: type) -> "derived[T]": ...
    @overload
    def __get__(self, instance: object, owner: type) -> T: ...
    def __get__(self, instance: object | None, owner: type) -> "derived[T] | T":
        if instance is None:
            return self
        value = self._function(instance)
        object.__setattr__(instance, self._name, value)
        return value
