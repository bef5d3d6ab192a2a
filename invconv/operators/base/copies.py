"""The arrays of an operator by name, and its copies: with others, in another library or dtype."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Self

import array_api_compat as compat

from invconv.arrays.derived import derived
from invconv.arrays.namespaces import (
    Array,
    cast,
    copy_of,
    describe,
    from_host,
    is_half,
    library_name,
    namespace,
    place,
    to_numpy,
)
from invconv.arrays.validation import choice, require_real
from invconv.operators.base.fields import Fields
from invconv.trust.condition import ConditionCache


class Parametrised(Fields, abstract=True):
    """The arrays of an operator by name."""

    @derived
    def _conditions(self) -> ConditionCache:
        return ConditionCache()

    def __getstate__(self) -> dict[str, Any]:
        """Return a snapshot of the fields without conditions; other threads may add fields."""
        fields = dict(vars(self))
        return {n: v for n, v in fields.items() if n not in ("_conditions", "_turned")}

    def _own(self) -> dict[str, Array]:
        """Return the operator's own arrays, constants included, but no absent ones."""
        own = ((name, getattr(self, name)) for name in self._specs)
        return {name: value for name, value in own if value is not None}

    def parameters(self) -> dict[str, Array]:
        """Return the trained arrays by name: "kernel", "first.kernel", "0.weight".

        A bias that is absent is left out.
        """
        return {n: a for n, a, constant in self._named_arrays() if not constant and a is not None}

    def _arrays(self) -> dict[str, Array]:
        """Return all arrays by name, constants included, but no absent ones."""
        return {name: array for name, array, _ in self._named_arrays() if array is not None}

    def _named_arrays(self) -> Iterator[tuple[str, Array | None, bool]]:
        """Yield the name and value of every array, and whether it is a constant; parts first."""
        for prefix, part in self._parts().items():
            for name, array, constant in part._named_arrays():
                yield f"{prefix}.{name}", array, constant
        for name, spec in self._specs.items():
            yield name, getattr(self, name), spec.constant

    @derived
    def _parameter_names(self) -> tuple[str, ...]:
        return tuple(self.parameters())

    def _trained(self, arrays: list[Array]) -> None:
        """Append the trained arrays to a list, in the order of `parameters`."""
        if self._part_names:
            for part in self._parts().values():
                part._trained(arrays)
        for name in self._array_names:
            if (array := getattr(self, name)) is not None:
                arrays.append(array)

    def _reference(self) -> tuple[str, Array]:
        """Return the name and value of one array; all have its library, dtype and device."""
        prefix, conv = "", self
        while conv._part_names:
            name = conv._part_names[0]
            part = getattr(conv, name)
            name, conv = ("0", part[0]) if isinstance(part, tuple) else (name, part)
            prefix += f"{name}."
        for name in conv._array_names:  # a generator would take twice as long
            if (array := getattr(conv, name)) is not None:
                return prefix + name, array
        raise AssertionError("an operator has an array of its own, or a part")

    def __repr__(self) -> str:
        """Show the shapes of the arrays instead of their values."""
        shown = []
        for name in (*self._part_names, *self._specs, *self._setting_names):
            value = getattr(self, name)
            # under JAX a tree of this structure may hold any object in the place of an array
            is_array = compat.is_array_api_obj(value)
            text = f"<{describe(value)}>" if is_array else repr(value)
            shown.append(f"{name}={text}")
        return f"{type(self).__name__}({', '.join(shown)})"


class Copies(Parametrised, abstract=True):
    """Copies with other arrays; those without validation are for the adapters."""

    # the arguments of `invconv.bounded` if it made this operator; copies by ``replace`` have None
    _bounded_from: ClassVar[tuple[Any, float] | None] = None

    @classmethod
    def _part_fields(cls, parts: Mapping[str, Any]) -> dict[str, Any]:
        """Return the fields that hold parts, given by prefix: "0", "1", ... are of one tuple."""
        return {cls._part_names[0]: tuple(parts.values())} if "0" in parts else dict(parts)

    def _rebuild(self, own: Mapping[str, Any], parts: Sequence[Any]) -> Self:
        """Return a validated copy with other own arrays and other parts."""
        named = dict(zip(self._parts(), parts, strict=True))
        return dataclasses.replace(self, **own, **self._part_fields(named))

    def replace(self, **arrays: Array) -> Self:
        """Return a copy with other arrays, named as in `parameters`.

        A missing bias may be added, and None removes a bias. Names with a dot are passed as
        ``conv.replace(**{"first.kernel": kernel})``.
        """
        own: dict[str, Array] = {}
        inner: dict[str, dict[str, Array]] = {}
        parts = self._parts()
        for name, array in arrays.items():
            prefix, dot, rest = name.partition(".")
            if name in self._specs:
                own[name] = array
            elif dot and prefix in parts:
                inner.setdefault(prefix, {})[rest] = array
            else:
                raise ValueError(
                    f"replace: {type(self).__name__} has no array named {name!r}; "
                    f"it has {', '.join(name for name, _, _ in self._named_arrays())}"
                )
        return self._rebuild(
            own, [part.replace(**inner.get(prefix, {})) for prefix, part in parts.items()]
        )

    def _retrained(self, arrays: Iterator[Array]) -> Self:
        """Return a copy with other trained arrays, in the order of `parameters`, unchecked."""
        parts = [p._retrained(arrays) for p in self._parts().values()] if self._part_names else []
        there = [name for name in self._array_names if getattr(self, name) is not None]
        return self._with({name: next(arrays) for name in there}, parts)

    def _map(self, function: Callable[[Array], Array]) -> Self:
        """Return a copy with a function applied to every array; it keeps the bound, if any."""
        own = {n: function(a) for n, a in self._own().items()}
        mapped = self._rebuild(own, [part._map(function) for part in self._parts().values()])
        if self._bounded_from is not None:
            free, gain = self._bounded_from
            mapped._remember_bound(free._map(function), gain)
        return mapped

    def _remember_bound(self, free: Self, gain: float) -> None:
        """Remember the arguments with which `invconv.bounded` made this operator."""
        object.__setattr__(self, "_bounded_from", (free, gain))

    def _each(self, function: Callable[[Array], Array]) -> Self:
        """Return a copy with a function applied to every array, without validation."""
        own = {n: function(a) for n, a in self._own().items()}
        return self._with(own, [part._each(function) for part in self._parts().values()])

    @classmethod
    def _unchecked(cls, fields: Mapping[str, Any]) -> Self:
        """Return an operator with these fields, without validation."""
        conv = object.__new__(cls)
        conv.__dict__.update(fields)
        return conv

    def _with(self, own: Mapping[str, Any], parts: Sequence[Any] = ()) -> Self:
        """Return a copy with these arrays and parts, without validation.

        ``parts`` are new ones in the order of ``_parts()``; if empty, the parts stay.
        """
        copy = object.__new__(type(self))
        fields = copy.__dict__
        fields.update(self.__dict__)
        fields.update(own)
        if parts:
            names = self._part_names
            several = isinstance(fields[names[0]], tuple)
            fields.update({names[0]: tuple(parts)} if several else zip(names, parts, strict=True))
        for name in ("_conditions", "_turned", "_bounded_from"):  # of the old arrays
            fields.pop(name, None)
        return copy


class Carried(Copies, abstract=True):
    """Copies in another library or dtype."""

    def asarrays(self, like: Array) -> Self:
        """Return a copy in the library, dtype and device of ``like``.

        Within one library the result stays differentiable with respect to this operator's
        arrays; between two the values travel through host memory.
        """
        require_real("like", like)
        return self._map(lambda array: _carry(array, like))

    def _in_working_precision(self) -> Self:
        """Return this operator, or a copy in float32 if its arrays are of a half type."""
        reference = self._reference()[1]
        if not is_half(reference.dtype, reference):
            return self
        return self._in_dtype(namespace(reference).float32)

    def _on_host(self, dtype: Any) -> Self:
        """Return a copy of NumPy arrays in a dtype; longdouble too, which users may not choose."""

        def carried(array: Array) -> Array:
            values = to_numpy(array)
            return values if values.dtype.kind in "iu" else values.astype(dtype)

        return self._each(carried)

    def _in_dtype(self, dtype: Any) -> Self:
        """Return this operator with its real arrays in another dtype."""
        real = {n: cast(a, dtype) for n, a in self._arrays().items() if _is_real(a)}
        return self.replace(**real)

    def _in_float64(self) -> Self:
        """Return this operator in float64; it stays differentiable by its own arrays."""
        like = self._reference()[1]
        xp = namespace(like)
        wide = self._in_dtype(xp.float64)
        if wide._reference()[1].dtype != xp.float64:
            raise ValueError(
                f"precision: {library_name(like)} has no float64 here; for JAX, "
                'jax.config.update("jax_enable_x64", True) brings it'
            )
        return wide

    def _wants_float64(self, precision: str | None) -> bool:
        """Tell whether to solve in float64 although the operator's arrays have another dtype.

        A solve in a precision eps has an error of up to condition x eps, even if y is exact, such
        as random numbers to sample from. With all arrays in float64, rounded at the end, the result
        for float32 data is right to the last digit. It does not help if y has been rounded before.
        """
        if precision is None:
            return False
        choice("precision", precision, ("float64",))
        like = self._in_working_precision()._reference()[1]
        return bool(like.dtype != namespace(like).float64)


def _is_real(array: Array) -> bool:
    return bool(namespace(array).isdtype(array.dtype, "real floating"))


def _carry(array: Array, like: Array) -> Array:
    """Return ``array`` in the library and device of ``like``, and its dtype if it is real."""
    real = _is_real(array)
    if library_name(array) != library_name(like):
        return from_host(to_numpy(array), like)
    carried = place(cast(array, like.dtype) if real else array, like)
    return copy_of(carried) if carried is array else carried
