"""The fields of an operator: arrays, other operators, and settings.

    reflectors: Array = array("m", "C")
    bias: Array | None = array("C", optional=True)
    ndim: int | None = None                             # every other field is a setting

A class says the shapes of its arrays in names: "C" is the number of channels, "*k" stands for one
axis or more, and a name stands for the same number in all arrays. Validation, copies, files,
pytrees and layers follow from the fields.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Protocol, dataclass_transform

import numpy as np

from invconv.arrays.derived import derived
from invconv.arrays.namespaces import Array
from invconv.arrays.validation import instead, require_alike, require_array, require_real
from invconv.operators.base import register

Sizes = dict[str, tuple[int, str]]  # by the name of an axis, with the array that it is of


class ArraySpec(NamedTuple):
    """What a class says of one of its arrays."""

    shape: tuple[str, ...]  # the names of the axes
    optional: bool  # whether the array may be None
    constant: bool  # whether it is neither trained nor given a gradient

    @property
    def fixed(self) -> tuple[str, ...]:
        """The axes before "*k"."""
        return self.shape[:-1] if self.open else self.shape

    @property
    def open(self) -> bool:
        """Whether "*k" comes last."""
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
        Whether the array is a constant, such as a permutation: it gets no gradient, and validates
        its dtype in the class's own ``validate``.

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
        require_parts_alike(self)
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
        known = (int(value.shape[axis]) for value, axis in sizes if value is not None)
        if (channels := next(known, None)) is None:
            raise TypeError(f'{type(self).__name__}: expected a part, or an array with an axis "C"')
        return channels

    @derived
    def ndim(self) -> int | None:
        """Return the number of spatial axes; None for one batch axis and any number of others."""
        if self._part_names:  # ask each part once: nested chains would double the work each
            return next((n for p in self._parts().values() if (n := p.ndim) is not None), None)
        kernels = (n for n, spec in self._specs.items() if spec.open)
        return next((getattr(self, n).ndim - len(self._specs[n].fixed) for n in kernels), None)

    @derived
    def _kernel_size(self) -> tuple[int, ...]:
        name, spec = next((n, spec) for n, spec in self._specs.items() if spec.open)
        shape = getattr(self, name).shape[len(spec.fixed) :]
        return tuple(map(int, shape))  # a tracer may have its own integers

    @derived
    def _stacked(self) -> str | None:
        """Return the name of an array with one axis too many, as in JAX's trees, or None."""
        return _stacked_array(self)


def setting_as_json(name: str, value: Any) -> Any:
    """Return a setting in JSON's types, of which `setting_of_json` makes an equal one, or raise."""
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


def require_operator(name: str, value: Any, expected: str = "an InvertibleConv") -> None:
    """Raise TypeError unless a value is an operator."""
    if not isinstance(value, Fields):
        raise TypeError(f"{name}: expected {expected}, got {type(value).__name__}{instead(value)}")


class Layer(Protocol):
    """An object that makes an operator of its present parameters, such as a layer of PyTorch."""

    def operator(self) -> Any:
        """Return the operator."""


def as_operator(name: str, value: Any) -> Any:
    """Return an operator, or the operator of a layer; raise TypeError for anything else."""
    if not isinstance(value, Fields) and callable(getattr(value, "operator", None)):
        value = value.operator()
    require_operator(name, value, "an InvertibleConv or a layer that holds one")
    return value


def require_parts_alike(whole: Any) -> None:
    """Raise unless parts are operators that agree in channels, axes, library, dtype and device."""
    first: tuple[str, Any] | None = None
    ndim: tuple[str, int] | None = None
    several = len(whole._part_names) > 1
    for name in whole._part_names:
        if several and isinstance(getattr(whole, name), tuple):
            raise TypeError(f"{name}: expected an operator, got a tuple beside another part")
    for prefix, conv in whole._parts().items():
        name = f"{whole._part_names[0]}[{prefix}]" if prefix.isdecimal() else prefix
        require_operator(name, conv)
        like_name, like = first = first or (name, conv)
        if conv.channels != like.channels:
            raise ValueError(
                f"{name}: expected {like.channels} channels as {like_name} has, got {conv.channels}"
            )
        inside, value = conv._reference()
        require_alike(f"{name}.{inside}", value, like_name, like._reference()[1])
        if conv.ndim is not None:
            ndim = ndim or (name, conv.ndim)
            if conv.ndim != ndim[1]:
                raise ValueError(
                    f"{name}: expected {ndim[1]} spatial axes as {ndim[0]} has, got {conv.ndim}"
                )


def require_arrays(conv: Any) -> None:
    """Raise unless an operator's own arrays have their shapes, one library and a real dtype."""
    sizes: Sizes = {}
    first: tuple[str, Any] | None = None
    for prefix, part in conv._parts().items():  # of the first part
        inside, reference = part._reference()
        sizes["C"] = part.channels, prefix
        first = f"{prefix}.{inside}", reference
        break
    for name, spec in conv._specs.items():
        if (value := getattr(conv, name)) is None and spec.optional:
            continue
        if spec.constant:
            require_array(name, value)
        else:
            require_real(name, value)
            first = first or (name, value)
            require_alike(name, value, *first)
        _require_fit(name, value, spec, sizes)


def _stacked_array(conv: Any) -> str | None:
    for prefix, part in conv._parts().items() if conv._part_names else ():
        if (inside := part._stacked) is not None:
            return f"{prefix}.{inside}"
    settings = [getattr(conv, name) for name in conv._setting_names]
    for name, spec in conv._specs.items():
        value = getattr(conv, name)
        if value is not None and _has_further_axis(value, spec, settings):
            return str(name)
    return None


def _has_further_axis(value: Array, spec: ArraySpec, settings: list[Any]) -> bool:
    if not spec.open:
        return bool(value.ndim > len(spec.shape))
    # a further axis may be taken for a spatial one: compare it with settings for each axis
    axes = value.ndim - len(spec.fixed)
    uneven = any(isinstance(v, tuple) and len(v) != axes for v in settings)
    return bool(uneven or value.shape[0] != value.shape[1])


def _require_fit(name: str, value: Array, spec: ArraySpec, sizes: Sizes) -> None:
    """Raise ValueError unless an array has the shape that its class says.

    ``sizes`` has the sizes of other arrays, with the name of one; those of this array are added.
    """
    shape, fixed = tuple(map(int, value.shape)), spec.fixed
    fits = len(shape) > len(fixed) if spec.open else len(shape) == len(fixed)
    for axis, n in zip(fixed, shape, strict=False):
        fits = fits and n == sizes.setdefault(axis, (n, name))[0] and (n >= 1 or axis != "C")
    if fits and all(n >= 1 for n in shape[len(fixed) :]):
        return
    axes = (*fixed, "*k") if spec.open else fixed
    expected = f"{fixed[0]}," if len(axes) == 1 else ", ".join(axes)
    single = spec.open and 1 <= len(shape) < len(spec.shape)
    hint = f"; of one channel it is {name}[{', '.join(['None'] * len(fixed))}]" * single
    known = [f"{axis} = {n} as {of} has" for axis, (n, of) in sizes.items() if axis in fixed]
    others = [text for text in known if not text.endswith(f" {name} has")]
    raise ValueError(
        f"{name}: expected shape ({expected}){' with ' * bool(others)}{', '.join(others)}, got "
        f"{shape}{hint}"
    )
