"""The register of operators: every class under its name, from the moment it is defined.

Files look classes up by name. Adapters listen to new classes, so that JAX, for example, registers a
user's operator as a pytree like the library's own.
"""

from collections.abc import Callable
from typing import Any

_operators: dict[str, type[Any]] = {}
_listeners: list[Callable[[type[Any]], None]] = []


def enter(cls: type[Any]) -> None:
    """Put a class into the register.

    A class that is defined again, as in a notebook's cell that runs twice, replaces the first one.
    A TypeError is raised if another class has the name, by which files identify a class.
    """
    known = _operators.get(cls.__name__)
    if known is not None and _place(known) != _place(cls):
        raise TypeError(
            f"class {cls.__name__}: expected a name of its own, by which files know an operator, "
            f"got that of {_place(known)}; give the class of {cls.__module__} another name"
        )
    namesake = mixings().get(cls._mixing)
    if namesake is not None and namesake is not known:
        raise TypeError(
            f"class {cls.__name__}: expected a mixing of its own, by which flows know an operator, "
            f"got {cls._mixing!r}, that of {_place(namesake)}"
        )
    _operators[cls.__name__] = cls
    for listener in _listeners:
        listener(cls)


def _place(cls: type[Any]) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"


def operators() -> dict[str, type[Any]]:
    """Return the classes of all operators by their names, sorted."""
    return dict(sorted(_operators.items()))


def is_own(cls: type[Any]) -> bool:
    """Tell whether a class belongs to this library, not to a user."""
    return cls.__module__.startswith("invconv.")


def own_operators() -> tuple[type[Any], ...]:
    """Return the classes of this library, sorted by their names."""
    return tuple(cls for cls in operators().values() if is_own(cls))


def mixings(base: type[Any] = object) -> dict[str, type[Any]]:
    """Return the subclasses of a class that flows know by a word, such as "qr", by that word."""
    named = (cls for cls in _operators.values() if cls._mixing)
    return {cls._mixing: cls for cls in named if issubclass(cls, base)}


def for_each_operator(listener: Callable[[type[Any]], None]) -> None:
    """Call a function with every class of operators, now and when one is defined later."""
    for cls in operators().values():
        listener(cls)
    _listeners.append(listener)
