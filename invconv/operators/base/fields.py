"""The fields of an operator: arrays, other operators, and settings.

    class QRConv1x1(Pointwise):
        reflectors: Array = array("m", "C")             # m is not known before, C is
        upper: Array = array("C", "C")
        scale: Array = array("C")
        bias: Array | None = array("C", optional=True)
        ndim: int | None = None                         # every other field is a setting

A class says the shapes of its arrays in names: "C" is the number of channels, "*k" stands for one
axis or more, and a name stands for the same number in all arrays. Validation, copies, files,
pytrees and layers follow from the fields.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, dataclass_transform

from invconv.arrays.derived import derived
from invconv.arrays.settings import instead
from invconv.operators.base import register
from invconv.operators.base.shapes import (
    ArraySpec,
    named_parts,
    require_arrays,
    require_parts_alike,
    stacked_array,
)


def array(*shape: str, optional: bool = False, constant: bool = False) -> Any:
    """Return a field for an array.

    Parameters
    ----------
    *shape : str
        A name for each axis; "*k", as the last one, stands for one spatial axis or more.
    optional : bool
        Whether None is allowed, and the default.
    constant : bool
        Whether the array is a constant, such as a permutation: it gets no gradient, and validates
        its dtype in the class's own ``validate``.

    Examples
    --------
    >>> from invconv.extend import array
    >>> array("C", optional=True).default is None
    True
    """
    given: Any = {"default": None} if optional else {}
    return dataclasses.field(metadata={"array": ArraySpec(shape, optional, constant)}, **given)


def part() -> Any:
    """Return a field for an operator, or for a tuple of operators.

    Examples
    --------
    >>> from invconv.extend import part
    >>> part().name is None  # a field of `dataclasses`
    True
    """
    return dataclasses.field(metadata={"part": True})


@dataclass_transform(frozen_default=True, eq_default=False)
@dataclass(frozen=True, eq=False, repr=False)
class Fields:
    """A frozen dataclass; a subclass becomes one as it is defined, and enters the register."""

    _specs: ClassVar[dict[str, ArraySpec]] = {}
    _array_names: ClassVar[tuple[str, ...]] = ()  # trained, in the order of `parameters`
    _constant_names: ClassVar[tuple[str, ...]] = ()  # neither trained nor given a gradient
    _part_names: ClassVar[tuple[str, ...]] = ()  # fields that hold operators
    _setting_names: ClassVar[tuple[str, ...]] = ()  # all other fields
    # the word by which flows and torch's Conv1x1 know the class
    _mixing: ClassVar[str | None] = None

    def __init_subclass__(cls, abstract: bool = False, mixing: str | None = None) -> None:
        super().__init_subclass__()
        dataclass(frozen=True, eq=False, repr=False)(cls)
        fields = [f for f in dataclasses.fields(cls) if f.init]
        cls._specs = {f.name: f.metadata["array"] for f in fields if "array" in f.metadata}
        cls._array_names = tuple(n for n, spec in cls._specs.items() if not spec.constant)
        cls._constant_names = tuple(n for n, spec in cls._specs.items() if spec.constant)
        cls._part_names = tuple(f.name for f in fields if "part" in f.metadata)
        others = {*cls._specs, *cls._part_names}
        cls._setting_names = tuple(f.name for f in fields if f.name not in others)
        cls._mixing = mixing
        if not abstract:
            register.enter(cls)

    def __post_init__(self) -> None:
        parts = named_parts(self)
        for name, conv in parts.items():
            require_operator(name, conv)
        require_parts_alike(parts)
        require_arrays(self)
        self.validate()

    def validate(self) -> None:
        """Raise unless the settings fit, and normalise them; the arrays' shapes fit by now."""

    def _parts(self) -> Mapping[str, Any]:
        """Return the parts of this operator, by the prefix of their arrays' names."""
        parts: dict[str, Any] = {}
        for name in self._part_names:
            value = getattr(self, name)
            if isinstance(value, tuple):
                parts |= {str(i): one for i, one in enumerate(value)}
            else:
                parts[name] = value
        return parts

    @derived
    def channels(self) -> int:
        """C, the number of channels."""
        for conv in self._parts().values() if self._part_names else ():
            return int(conv.channels)
        places = ((n, s.shape.index("C")) for n, s in self._specs.items() if "C" in s.shape)
        sizes = ((getattr(self, name), axis) for name, axis in places)
        return next(int(value.shape[axis]) for value, axis in sizes if value is not None)

    @derived
    def ndim(self) -> int | None:
        """Return the number of spatial axes; None for one batch axis and any number of others."""
        if self._part_names:  # ask each part once: nested chains would double the work each
            return next((n for p in self._parts().values() if (n := p.ndim) is not None), None)
        kernels = (n for n, spec in self._specs.items() if spec.open)
        return next((getattr(self, n).ndim - len(self._specs[n].fixed) for n in kernels), None)

    @derived
    def _kernel_size(self) -> tuple[int, ...]:
        """Return the sizes of the kernel."""
        name, spec = next((n, spec) for n, spec in self._specs.items() if spec.open)
        shape = getattr(self, name).shape[len(spec.fixed) :]
        return tuple(map(int, shape))  # a tracer may have its own integers

    @derived
    def _stacked(self) -> str | None:
        """Return the name of an array with one axis too many, as in JAX's trees, or None."""
        return stacked_array(self)


def require_operator(name: str, value: Any) -> None:
    """Raise TypeError unless a value is an operator."""
    if not isinstance(value, Fields):
        raise TypeError(
            f"{name}: expected an InvertibleConv, got {type(value).__name__}{instead(value)}"
        )
