"""The shapes of an operator's arrays: how a class says them, and their validation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from invconv.arrays.namespaces import Array, Shape
from invconv.arrays.validation import require_alike, require_array, require_real

Sizes = dict[str, tuple[int, str]]  # by the name of an axis, with the array that it is of


class ArraySpec(NamedTuple):
    """What a class says of one of its arrays.

    Attributes
    ----------
    shape : tuple of str
        The names of the axes.
    optional : bool
        Whether the array may be None.
    constant : bool
        Whether it is neither trained nor given a gradient.
    """

    shape: tuple[str, ...]
    optional: bool
    constant: bool

    @property
    def fixed(self) -> tuple[str, ...]:
        """The axes before "*k"."""
        return self.shape[:-1] if self.open else self.shape

    @property
    def open(self) -> bool:
        """Whether "*k" comes last."""
        return self.shape[-1] == "*k"


def named_parts(conv: Any) -> dict[str, Any]:
    """Return an operator's parts by their names in errors: "first", "steps[0]"."""
    return {
        f"{conv._part_names[0]}[{prefix}]" if prefix.isdecimal() else prefix: part
        for prefix, part in conv._parts().items()
    }


def require_parts_alike(parts: Mapping[str, Any]) -> None:
    """Raise unless operators agree in channels, spatial axes, library, dtype and device."""
    first: tuple[str, Any] | None = None
    ndim: tuple[str, int] | None = None
    for name, conv in parts.items():
        first = first or (name, conv)
        _require_same(name, conv, *first)
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


def stacked_array(conv: Any) -> str | None:
    """Return the name of an array with one axis too many, as in JAX's trees, or None."""
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


def _require_same(name: str, conv: Any, like_name: str, like: Any) -> None:
    """Raise unless two operators agree in channels, library, dtype and device."""
    if conv.channels != like.channels:
        raise ValueError(
            f"{name}: expected {like.channels} channels as {like_name} has, got {conv.channels}"
        )
    array_name, value = conv._reference()
    require_alike(f"{name}.{array_name}", value, like_name, like._reference()[1])


def _require_fit(name: str, value: Array, spec: ArraySpec, sizes: Sizes) -> None:
    """Raise ValueError unless an array has the shape that its class says.

    Parameters
    ----------
    sizes : dict of str to (int, str)
        The sizes that other arrays have, and the name of one; those of this array are added.
    """
    shape, fixed = tuple(map(int, value.shape)), spec.fixed
    fits = len(shape) > len(fixed) if spec.open else len(shape) == len(fixed)
    for axis, n in zip(fixed, shape, strict=False):
        fits = fits and n == sizes.setdefault(axis, (n, name))[0] and (n >= 1 or axis != "C")
    if fits and min(shape[len(fixed) :], default=1) >= 1:
        return
    expected = ", ".join((*fixed, "*k")) if spec.open else _tuple_of(fixed)
    known = [f"{axis} = {n} as {of} has" for axis, (n, of) in sizes.items() if axis in fixed]
    others = [text for text in known if not text.endswith(f" {name} has")]
    raise ValueError(
        f"{name}: expected shape ({expected}){' with ' * bool(others)}{', '.join(others)}, got "
        f"{shape}{_hint(name, shape, spec)}"
    )


def _tuple_of(names: tuple[str, ...]) -> str:
    return f"{names[0]}," if len(names) == 1 else ", ".join(names)


def _hint(name: str, shape: Shape, spec: ArraySpec) -> str:
    single = spec.open and 1 <= len(shape) < len(spec.shape)
    return f"; of one channel it is {name}[{', '.join(['None'] * len(spec.fixed))}]" * single
