"""The fields of an operator, and the register of the classes that have them.

    reflectors: Array = array("m", "C")
    bias: Array | None = array("C", optional=True)
    ndim: int | None = None                             # every other field is a setting

A class names the axes of its arrays: "C" is the number of channels, "*k" stands for one axis or
more, and any other name stands for the same number in all arrays. Validation, copies, files,
pytrees and layers follow from the fields (`base.factors`).

The register has every class under its name, from the moment it is defined. Files look classes up by
name. Adapters listen to new classes, so that JAX, for example, registers a user's operator as a
pytree like the library's own.
"""

import dataclasses
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from invconv.arrays.derived import derived
from invconv.arrays.validation import choice


@dataclass(frozen=True)
class ArraySpec:
    """The declaration of one array of a class."""

    shape: tuple[str, ...]  # the names of the axes
    optional: bool  # whether the array may be None
    constant: bool  # whether it is neither trained nor given a gradient

    def __post_init__(self) -> None:
        _ = self.fixed  # set now, as torch.export warns of attributes that its trace sets

    @derived
    def fixed(self) -> tuple[str, ...]:
        """Return the axes before "*k"."""
        return self.shape[:-1] if self.open else self.shape

    @derived
    def open(self) -> bool:
        """Return whether "*k" comes last."""
        return self.shape[-1] == "*k"


def array(*shape: str, optional: bool = False, constant: bool = False) -> Any:
    """Return a field for an array.

    Parameters
    ----------
    *shape : str
        A name for each axis; "*k", as the last one, stands for one spatial axis or more.
    optional : bool
        Whether None is allowed, and the default.
    constant : bool
        Whether the array is a constant, such as a permutation: it gets no gradient. It is of
        integers, or of the dtype of the trained arrays; ``validate`` may say which.

    Examples
    --------
    >>> from invconv.extend import array
    >>> array("C", optional=True).default is None
    True
    """
    if not shape or "*k" in shape[:-1]:
        raise ValueError(f'array: expected the names of axes, "*k" the last if any, got {shape}')
    given: Any = {"default": None} if optional else {}
    return dataclasses.field(metadata={"array": ArraySpec(shape, optional, constant)}, **given)


def part() -> Any:
    """Return a field for an operator, or for a tuple of operators, which is then the only part.

    Examples
    --------
    >>> from invconv.extend import part
    >>> part().name is None  # a field of `dataclasses`
    True
    """
    return dataclasses.field(metadata={"part": True})


def setting_as_json(name: str, value: Any) -> Any:
    """Return a setting in JSON's types, from which `setting_of_json` restores it, or raise."""
    if isinstance(value, np.generic):
        value = value.item()
    if type(value) is tuple:  # a named one would lose its names
        return [setting_as_json(name, one) for one in value]
    if type(value) is dict and all(isinstance(key, str) for key in value):
        return {key: setting_as_json(name, one) for key, one in value.items()}
    if value is None or isinstance(value, str | int | float):
        return value
    raise TypeError(
        f"{name}: expected None, text, a number or a tuple of these, which files keep as they are, "
        f"got {value!r:.80}"
    )


def setting_of_json(value: Any) -> Any:
    """Return the setting that `setting_as_json` has written."""
    if isinstance(value, dict):
        return {key: setting_of_json(one) for key, one in value.items()}
    return tuple(map(setting_of_json, value)) if isinstance(value, list) else value


_operators: dict[str, type[Any]] = {}
_listeners: list[Callable[[type[Any]], None]] = []


def enter(cls: type[Any]) -> None:
    """Register a class; one that is defined again, as in a notebook, replaces the first."""
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


def mixings(base: type[Any] = object) -> dict[str, type[Any]]:
    """Return the subclasses of a class that flows know by a word, such as "qr", by that word."""
    named = (cls for cls in _operators.values() if cls._mixing)
    return {cls._mixing: cls for cls in named if issubclass(cls, base)}


def require_mixing(name: str, word: Any, words: Iterable[str]) -> None:
    """Raise ValueError unless ``word`` is one of the words of classes."""
    hint = "; a class of your own has its word once its module has been imported"
    choice(name, word, tuple(words), hint)


def for_each_operator(listener: Callable[[type[Any]], None]) -> None:
    """Call a function with every class of operators, now and when one is defined later."""
    for cls in operators().values():
        listener(cls)
    _listeners.append(listener)
