"""An operator as its arrays, its settings and a list of factors, from which its maps follow.

    K = A_n ... A_1,    y = K x + b

A class declares its fields (`base.fields`) and its factors, and turns gradients by their weights
into gradients by its own arrays. The factors of its parts, and a bias, need no declaration.
`invconv.families` has the families, `base.operator` the public methods.
"""

import dataclasses
import functools
import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Protocol, Self, dataclass_transform

import array_api_compat as compat
import numpy as np

from invconv.arrays.derived import derived, of_values
from invconv.arrays.errors import SingularConvError
from invconv.arrays.namespaces import (
    Array,
    Shape,
    as_float64,
    cast,
    copy_of,
    describe,
    dtype_name,
    from_host,
    grid_text,
    is_half,
    namespace,
    native_dtype,
    ops_of,
    place,
    readable,
    to_float,
    to_numpy,
)
from invconv.arrays.validation import (
    Sizes,
    instead,
    is_number,
    require_alike,
    require_array,
    require_beside,
    require_real,
    require_shape,
)
from invconv.families import path as paths
from invconv.families.family import BOTH, SHIFT, Family, Wanted
from invconv.families.path import Bars, Factor, FactorLike, Memo, Path, Route, State
from invconv.operators.base import fields
from invconv.operators.base.fields import ArraySpec
from invconv.trust.condition import ConditionCache

Gradients = dict[str, Array]


@dataclass_transform(frozen_default=True, eq_default=False)
@dataclass(frozen=True, eq=False, repr=False)
class Operator:
    """A list of factors, given by arrays, parts and settings. Subclasses are frozen dataclasses.

    It caches two kinds of results. Those by `derived` follow from settings and shapes: copies with
    other arrays of the same shapes keep them. Those by `of_values`, and any that a subclass caches
    in its own way, follow from the values of the arrays: copies start without them. There are two
    by `of_values`: `_conditions`, how inverses were judged on each grid, and `_turned`, the inverse
    as an operator, which remembers how the forward map was judged.

    An owner of arrays that change, such as a layer, holds one operator without arrays (`_primed`).
    A call puts the present arrays in. It validates them only if a dtype, a device or a shape has
    changed since the last validation, and else copies the operator by `_with`.
    """

    _specs: ClassVar[dict[str, ArraySpec]] = {}
    _array_names: ClassVar[tuple[str, ...]] = ()  # trained, in the order of `parameters`
    _constant_names: ClassVar[tuple[str, ...]] = ()  # neither trained nor given a gradient
    _part_names: ClassVar[tuple[str, ...]] = ()  # fields that hold operators
    _setting_names: ClassVar[tuple[str, ...]] = ()  # all other fields
    _kept: ClassVar[frozenset[str]] = frozenset()  # names that `_with` copies: fields, `derived`
    _init: ClassVar[Callable[..., None]]  # ``__init__`` without the errors and hints for users
    _of_parts: ClassVar[bool] = True  # whether the factors are those of the parts
    # the arguments of `invconv.bounded` if it made this operator; copies by ``replace`` have None
    _bounded_from: ClassVar[tuple[Any, float] | None] = None
    # the word by which flows and torch's Conv1x1 know the class
    _mixing: ClassVar[str | None] = None

    def __init_subclass__(cls, abstract: bool = False, mixing: str | None = None) -> None:
        super().__init_subclass__()
        dataclass(frozen=True, eq=False, repr=False)(cls)
        cls._init = cls.__init__
        given = dataclasses.fields(cls)
        if others := [f.name for f in given if not f.init]:
            raise TypeError(
                f"class {cls.__name__}: expected fields that are arguments, got {others[0]} with "
                "init=False; what is computed from arrays may be a functools.cached_property"
            )
        cls._specs = {f.name: f.metadata["array"] for f in given if "array" in f.metadata}
        cls._array_names = tuple(n for n, spec in cls._specs.items() if not spec.constant)
        cls._constant_names = tuple(n for n, spec in cls._specs.items() if spec.constant)
        cls._part_names = tuple(f.name for f in given if "part" in f.metadata)
        held = {*cls._specs, *cls._part_names}
        cls._setting_names = tuple(f.name for f in given if f.name not in held)
        members = {n: m for base in reversed(cls.__mro__) for n, m in vars(base).items()}
        kept = (name for name, member in members.items() if type(member) is derived)
        cls._kept = frozenset([f.name for f in given]).union(kept)
        cls._mixing = mixing
        cls._of_parts = cls.factors is Operator.factors
        names, own = {"ndim"}, {f.name for f in given}
        for base in cls.__mro__[1:]:
            names |= getattr(base, "__dataclass_fields__", {}).keys()
            if taken := sorted((own & vars(base).keys()) - names):
                raise TypeError(
                    f"class {cls.__name__}: expected fields with names of their own, got "
                    f"{taken[0]}, which operators have"
                )
        if "bias" in cls._setting_names:
            raise TypeError(f"class {cls.__name__}: expected bias to be an array, which is added")
        axes = {axis for spec in cls._specs.values() for axis in spec.shape}
        if not (abstract or cls._part_names or "C" in axes):
            raise TypeError(f'class {cls.__name__}: expected a part, or an array with an axis "C"')
        cls.__init__ = _of_arrays(cls.__init__)  # type: ignore[method-assign]
        if not abstract:
            fields.enter(cls)

    def __post_init__(self) -> None:
        if self._part_names:
            self._require_parts_alike()
        self._require_arrays()
        self.validate()

    def _require_parts_alike(self) -> None:
        """Raise unless parts are operators that agree in channels, axes, dtype and device."""
        first: tuple[str, Any] | None = None
        ndim: tuple[str, int] | None = None
        several = len(self._part_names) > 1
        for name in self._part_names:
            if several and isinstance(getattr(self, name), tuple):
                raise TypeError(f"{name}: expected an operator, got a tuple beside another part")
        for prefix, conv in self._parts().items():
            name = f"{self._part_names[0]}[{prefix}]" if prefix.isdecimal() else prefix
            require_operator(name, conv)
            like_name, like = first = first or (name, conv)
            if conv.channels != like.channels:
                raise ValueError(
                    f"{name}: expected {like.channels} channels as {like_name} has, "
                    f"got {conv.channels}"
                )
            inside, value = conv._reference()
            require_alike(f"{name}.{inside}", value, like_name, like._reference()[1])
            if conv.ndim is not None:
                ndim = ndim or (name, conv.ndim)
                if conv.ndim != ndim[1]:
                    raise ValueError(
                        f"{name}: expected {ndim[1]} spatial axes as {ndim[0]} has, got {conv.ndim}"
                    )

    def _require_arrays(self) -> None:
        """Raise unless an operator's own arrays have their shapes, one library and a real dtype.

        Arrays in a foreign byte order, such as those of FITS files, are copied to the machine's.
        """
        sizes: Sizes = {}
        first: tuple[str, Any] | None = None
        if self._part_names:
            first, sizes["C"] = self._reference(), (self.channels, next(iter(self._parts())))
        for name in (*self._array_names, *self._constant_names):
            spec = self._specs[name]
            if (value := getattr(self, name)) is None and spec.optional:
                continue
            if spec.constant:
                kinds = "real floating", "integral"  # all that files and libraries carry over
                if not require_array(name, value).isdtype(value.dtype, kinds):
                    raise TypeError(
                        f"{name}: expected real numbers or integers, got {dtype_name(value.dtype)}"
                    )
                if first is not None:
                    require = require_alike if _is_real(value) else require_beside
                    require(name, value, *first)
            elif first is None:
                require_real(name, value)
                first = name, value
            else:
                require_alike(name, value, *first)
            require_shape(name, value, spec.shape, sizes)
            object.__setattr__(self, name, cast(value, native_dtype(value.dtype)))
        if first is None:
            raise ValueError(f"{type(self).__name__}: expected a part or a trained array, got none")

    def validate(self) -> None:
        """Raise unless the settings fit, and normalise them; the arrays' shapes are validated."""

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
        arrays = ((getattr(self, n), s.shape) for n, s in self._specs.items() if "C" in s.shape)
        known = (int(a.shape[axes.index("C")]) for a, axes in arrays if a is not None)
        if (channels := next(known, None)) is None:
            raise TypeError(f'{type(self).__name__}: expected a part, or an array with an axis "C"')
        return channels

    @derived
    def ndim(self) -> int | None:
        """Return the number of spatial axes; None for one batch axis and any number of others."""
        if self._part_names:  # ask each part once: else the work doubles with every nested chain
            return next((n for p in self._parts().values() if (n := p.ndim) is not None), None)
        kernels = ((getattr(self, n), spec) for n, spec in self._specs.items() if spec.open)
        return next((k.ndim - len(spec.fixed) for k, spec in kernels if k is not None), None)

    @derived
    def _kernel_size(self) -> tuple[int, ...]:
        name, spec = next((n, spec) for n, spec in self._specs.items() if spec.open)
        shape = getattr(self, name).shape[len(spec.fixed) :]
        return tuple(map(int, shape))  # a tracer may have its own integers

    @derived
    def _stacked(self) -> str | None:
        """Return the name of an array with one axis too many, as in JAX's trees, or None."""
        for prefix, part in self._parts().items() if self._part_names else ():
            if (inside := part._stacked) is not None:
                return f"{prefix}.{inside}"
        settings = [getattr(self, name) for name in self._setting_names]
        for name, spec in self._specs.items():
            if (value := getattr(self, name)) is None:
                continue
            axes = value.ndim - len(spec.fixed)
            if spec.open:  # it looks spatial, but our settings have one number per spatial axis
                uneven = any(isinstance(v, tuple) and len(v) != axes for v in settings)
                axes_of = zip(map(int, value.shape), spec.fixed, strict=False)
                sizes = {n for n, axis in axes_of if axis == "C"}
                further = (uneven and fields.is_own(type(self))) or len(sizes) > 1
            else:
                further = axes > 0
            if further:
                return name
        return None

    @of_values
    def _conditions(self) -> ConditionCache:
        return ConditionCache()

    def __getstate__(self) -> dict[str, Any]:
        """Return a snapshot of the fields, since other threads may add some.

        Of the conditions only the grids that are not to be judged are kept.
        """
        held = {n: v for n, v in dict(vars(self)).items() if n != "_conditions"}
        if self._conditions.unchecked:
            held["_conditions"] = conditions = ConditionCache()
            conditions.unchecked |= self._conditions.unchecked
        return held

    def _own(self) -> dict[str, Array]:
        """Return the operator's own arrays, constants included, but no absent ones."""
        own = ((name, getattr(self, name)) for name in self._specs)
        return {name: value for name, value in own if value is not None}

    def parameters(self) -> dict[str, Array]:
        """Return the trained arrays that are there, by name: "kernel", "first.kernel", ..."""
        return {n: a for n, a, constant in self._named_arrays() if not constant and a is not None}

    def _arrays(self) -> dict[str, Array]:
        """Return all arrays by name, constants included, but no absent ones."""
        return {name: array for name, array, _ in self._named_arrays() if array is not None}

    def _named_arrays(self) -> Iterator[tuple[str, Array | None, bool]]:
        """Yield the name and value of every array, and whether it is a constant; parts first."""
        for prefix, part in self._parts().items() if self._part_names else ():
            for name, array, constant in part._named_arrays():
                yield f"{prefix}.{name}", array, constant
        for name, spec in self._specs.items():
            yield name, getattr(self, name), spec.constant

    @derived
    def _parameter_names(self) -> tuple[str, ...]:
        return tuple(self.parameters())

    def _trained(self) -> list[Array]:
        """Return the trained arrays, in the order of `parameters`."""
        parts = self._parts().values() if self._part_names else ()
        own = [getattr(self, name) for name in self._array_names]
        inner = [array for part in parts for array in part._trained()]
        return inner + [array for array in own if array is not None]

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
        shown = []
        for name in (*self._part_names, *self._specs, *self._setting_names):
            value = getattr(self, name)
            # under JAX a tree of this structure may hold any object in the place of an array
            is_array = compat.is_array_api_obj(value)
            shown.append(f"{name}={f'<{describe(value)}>' if is_array else repr(value)}")
        return f"{type(self).__name__}({', '.join(shown)})"

    @classmethod
    def _part_fields(cls, parts: Mapping[str, Any]) -> dict[str, Any]:
        """Return the fields that hold these parts; prefixes "0", "1", ... stand for one tuple."""
        return {cls._part_names[0]: tuple(parts.values())} if "0" in parts else dict(parts)

    @classmethod
    def _of(cls, **fields: Any) -> Self:
        """Return a validated operator of these fields, without hints for users.

        A call of the class may also warn of arguments that are probably meant otherwise.
        """
        conv = object.__new__(cls)
        cls._init(conv, **fields)
        return conv

    def _rebuild(self, own: Mapping[str, Any], parts: Sequence[Any]) -> Self:
        """Return a validated copy with other own arrays and other parts."""
        named = dict(zip(self._parts(), parts, strict=True))
        held = {name: getattr(self, name) for name in (*self._specs, *self._setting_names)}
        return self._of(**held | dict(own) | self._part_fields(named))

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

    def _map(self, function: Callable[[Array], Array], check: bool = True) -> Self:
        """Return a copy with ``function`` of each array; not checked or bound unless ``check``."""
        own = {n: function(a) for n, a in self._own().items()}
        parts = [part._map(function, check) for part in self._parts().values()]
        if not check:
            return self._with(own, parts)
        mapped = self._rebuild(own, parts)
        if self._bounded_from is not None:
            free, gain = self._bounded_from
            vars(mapped)["_bounded_from"] = free._map(function), gain
        return mapped

    def _with(self, own: Mapping[str, Any], parts: Sequence[Any] = ()) -> Self:
        """Return an unvalidated copy with these arrays, and parts in the order of ``_parts()``."""
        copy = object.__new__(type(self))
        fields = copy.__dict__
        fields.update(self.__dict__)
        fields.update(own)
        if parts:
            names = self._part_names
            several = isinstance(fields[names[0]], tuple)
            fields.update({names[0]: tuple(parts)} if several else zip(names, parts, strict=True))
        for name in fields.keys() - self._kept:  # an author's cached_property, for example
            del fields[name]
        return copy

    def asarrays(self, like: Array) -> Self:
        """Return a copy in the library, dtype and device of ``like``.

        Within one library the result stays differentiable with respect to this operator's
        arrays; between two the values travel through host memory.
        """
        require_real("like", like)
        if ops_of(self._reference()[1]).name != ops_of(like).name:
            return self._map(lambda array: from_host(to_numpy(array), like))

        def carried(array: Array) -> Array:
            there = place(cast(array, like.dtype) if _is_real(array) else array, like)
            return copy_of(there) if there is array else there

        return self._map(carried)

    def _in_working_precision(self) -> Self:
        """Return this operator, or a copy in float32 if its arrays are of a half type."""
        reference = self._reference()[1]
        if not is_half(reference.dtype, reference):
            return self
        return self._cast(partial(cast, dtype=namespace(reference).float32))

    def _on_host(self, dtype: Any) -> Self:
        """Return a copy of NumPy arrays in a dtype; without validation."""

        def carried(array: Array) -> Array:
            values = to_numpy(array)
            return values if values.dtype.kind in "iu" else values.astype(dtype)

        return self._map(carried, check=False)

    def _in_float64(self) -> Self:
        """Return this operator in float64; it stays differentiable by its own arrays."""
        return self._cast(as_float64)

    def _cast(self, change: Callable[[Array], Array]) -> Self:
        return self.replace(**{n: change(a) for n, a in self._arrays().items() if _is_real(a)})

    def factors(self) -> Sequence[FactorLike]:
        """Return the factors of K: a family and its weights each, in the order in which they run.

        Unless a class overrides it, these are the factors of its parts, one part after the other.
        """
        if not self._part_names:
            raise TypeError(f"{type(self).__name__}: expected a method `factors`, or parts")
        return [factor for conv in self._parts().values() for factor in conv._path()]

    def factors_vjp(self, bars: Sequence[Any]) -> Gradients:
        """Return the gradients by the operator's arrays, given those by each factor's weights.

        Unless a class overrides it, these are the gradients of its parts.
        """
        if not self._of_parts and not self._part_names:
            raise TypeError(
                f"{type(self).__name__}: expected a method `factors_vjp` beside `factors`"
            )
        gradients: Gradients = {}
        rest = iter(bars)
        for prefix, conv in self._parts().items():
            own = conv._gradients(list(itertools.islice(rest, len(conv._labels))))
            gradients |= {f"{prefix}.{name}": gradient for name, gradient in own.items()}
        return gradients

    def within(self, gain: float) -> Self:
        """Return an operator with other arrays; its inverse has a 2-norm of at most ``gain``.

        A class without such a parametrisation raises TypeError.
        """
        raise TypeError(
            f"conv: expected an operator whose class bounds its inverse, got {type(self).__name__}"
        )

    def advice(self, channel: int | None) -> str:
        """Return the change of parameters that `diagnose` recommends if too few digits are left.

        ``channel`` is the channel whose errors grow most, if it is known.
        """
        most = "" if channel is None else f": errors in channel {channel} grow most"
        return f"make the matrix less singular{most}"

    def _path(self) -> list[Factor]:
        """Return the factors, the bias last."""
        factors = self.factors()
        try:
            path = [Factor(*factor) for factor in factors]
        except TypeError:
            path = []
        if not path:
            raise self._no_pairs(factors)
        if (bias := getattr(self, "bias", None)) is not None:
            path.append(Factor(SHIFT, bias))
        return path

    def _no_pairs(self, factors: Any) -> TypeError:
        return TypeError(
            f"{type(self).__name__}.factors: expected one or more pairs of a family, such as "
            f"Matrix(), and its weights, got {factors!r:.80}"
        )

    def _gradients(self, bars: Sequence[Any]) -> Gradients:
        if all(bar is None for bar in bars):
            return {}
        bias = getattr(self, "bias", None)
        gradients = self.factors_vjp(bars if bias is None else bars[:-1])
        names = ", ".join(self._parameter_names)
        if not isinstance(gradients, dict):
            raise TypeError(
                f"{type(self).__name__}.factors_vjp: expected a dict of gradients by {names}, "
                f"got {gradients!r:.80}"
            )
        if unknown := gradients.keys() - set(self._parameter_names):
            raise ValueError(
                f"{type(self).__name__}.factors_vjp: expected gradients by {names}, got one by "
                f"{', '.join(sorted(unknown))}"
            )
        return gradients if bias is None or bars[-1] is None else gradients | {"bias": bars[-1]}

    @derived
    def _labels(self) -> tuple[tuple[str, str], ...]:
        """Return the part that each factor belongs to: its prefix and its class."""
        if not self._of_parts:
            return (("", type(self).__name__),) * len(self._path())
        parts = self._parts().items()
        inner = tuple(label for prefix, conv in parts for label in inside(prefix, conv._labels))
        return inner if getattr(self, "bias", None) is None else (*inner, ("bias", "bias"))

    @derived
    def _families(self) -> tuple[Family, ...]:
        return tuple(factor.family for factor in paths.linear(self._path()))

    @derived
    def _has_least_squares(self) -> bool:
        """Tell whether the class has `least_squares`, and the waves, if any, are orthogonal."""
        orthogonal = all(getattr(family, "orthogonal", True) for family in self._families)
        return hasattr(self, "least_squares") and orthogonal

    @derived
    def _closed(self) -> bool:
        """Tell whether a factor continues the grid periodically or by mirroring."""
        return any(family.closed for family in self._families)

    @derived
    def _inverts_forward(self) -> bool:
        """Tell whether the forward map contains a solve, which must be judged."""
        path = self._path()
        if not all(isinstance(factor.family, Family) for factor in path):  # once per operator
            raise self._no_pairs(path)
        return any(factor.inverted and not factor.is_shift for factor in path)

    @derived
    def _pixelwise(self) -> bool:
        """Tell whether K acts on each pixel by itself, and on all alike, whatever the grid."""
        return all(family.pixelwise for family in self._families)

    @derived
    def _spectral(self) -> bool:
        """Tell whether K is one matrix per frequency."""
        return len(self._families) == 1 and self._families[0].spectral and not self._inverts_forward

    @derived
    def _needs_y(self) -> bool:
        """Tell whether the derivative of x = inverse(y) needs y besides x."""
        first = next(
            leg for leg in paths.split_by_leg(paths.inverse(self._path())) if not leg[0].is_shift
        )
        return not first[0].inverted or paths.undone_as_one(first) or first[0].family.needs_y

    def _primed(self) -> Self:
        """Return the operator without arrays and parts but with `derived` results, for `_with`."""
        _ = self.channels, self.ndim, self._parameter_names, self._stacked, self._labels
        _ = self._inverts_forward, self._needs_y
        names = *self._array_names, *self._constant_names
        return self._with(dict.fromkeys(names), [None] * len(self._parts()))

    def _route(self, x: Array) -> Route:
        shape = tuple(x.shape[2:])
        guard = require_regular(self, shape) if self._inverts_forward else None
        return Route(self._path(), shape, guard, pixels=x.shape[0] * math.prod(shape))

    def _factor(self, shape: Shape) -> State:
        path = self._path()
        guard = require_regular(self, shape, back=True) if self._inverts_forward else None
        log_det = paths.log_det(path, shape)[0]
        if not self._inverts_forward:  # the inverse solves all factors
            guard = require_regular(self, shape, back=True, log_det=log_det)
        return State(paths.solvers_of(paths.inverse(path), shape), log_det, guard)

    def _pull_back(
        self, memo: Memo, y_bar: Any, log_det_bar: Any = None, wanted: Wanted = BOTH
    ) -> tuple[Gradients, Any]:
        """Return the gradients of <y_bar, K x + b> + log_det_bar log|det K|, by arrays and by x."""
        route, x_bar = memo.route, None
        bars: Bars = [None] * len(route.path)
        if y_bar is not None:
            bars, x_bar = route.pull_back(memo.kept, y_bar, wanted)
        if not wanted[0]:
            return {}, x_bar
        if log_det_bar is not None:
            bars = paths.add_log_det_vjp(bars, route.path, route.shape, memo.memos, log_det_bar)
        return self._gradients(self._filled(route.path, bars)), x_bar

    def _inverse_vjp(
        self, y: Any, x: Array, x_bar: Any, log_det_bar: Any = None
    ) -> tuple[Gradients, Any]:
        """Pull x_bar, or None, back through x = inverse(y), without solving for x again.

        y may be None unless `_needs_y`. ``log_det_bar`` is the cotangent of log|det K|.
        """
        path, shape = self._path(), tuple(x.shape[2:])
        back = paths.inverse(path)
        bars: Bars = [None] * len(path)
        y_bar = None
        if x_bar is not None:
            guard = None if readable(x) else require_regular(self, shape, back=True)
            route = Route(back, shape, guard)
            ends = _ends(back, route, y, x)
            bars, y_bar = route.pull_back(list(itertools.pairwise(ends)), x_bar)
            bars = bars[::-1]
        if log_det_bar is not None:
            bars = paths.add_log_det_vjp(bars, path, shape, [None] * len(path), log_det_bar)
        return self._gradients(self._filled(path, bars)), y_bar

    def _filled(self, path: Path, bars: Bars) -> Bars:
        """Return the gradients; None becomes zeros if another factor of the same part has one."""
        labels = self._labels
        given = {label for label, bar in zip(labels, bars, strict=True) if bar is not None}
        return [
            _zeros(factor.w, bar)
            if (bar is None or isinstance(bar, tuple)) and label in given and not factor.is_shift
            else bar
            for factor, label, bar in zip(path, labels, bars, strict=True)
        ]


def _of_arrays(init: Callable[..., None]) -> Any:
    """Return an ``__init__`` whose error, given a number of channels, recommends ``init``."""

    @functools.wraps(init)
    def __init__(self: Any, *given: Any, **named: Any) -> None:
        number, name = given[0] if given else named.get("channels"), type(self).__name__
        if is_number(number) and hasattr(self, "init"):
            raise TypeError(
                f"{name}: expected arrays or operators, got {number!r}; {name}.init({number}) "
                "draws them for so many channels"
            )
        init(self, *given, **named)

    return __init__


def require_operator(name: str, value: Any, expected: str = "an InvertibleConv") -> None:
    """Raise TypeError unless a value is an operator."""
    if not isinstance(value, Operator):
        raise TypeError(f"{name}: expected {expected}, got {type(value).__name__}{instead(value)}")


class Holder(Protocol):
    """An object that makes an operator of its present parameters, such as a layer of PyTorch."""

    def operator(self) -> Any:
        """Return the operator."""


def as_operator(name: str, value: Any) -> Any:
    """Return an operator, or the operator of a layer; raise TypeError for anything else."""
    if not isinstance(value, Operator) and callable(getattr(value, "operator", None)):
        value = value.operator()
    require_operator(name, value, "an InvertibleConv or a layer that holds one")
    return value


def inside(prefix: str, labels: Sequence[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
    """Return the labels of a part's factors, as they are among those of the whole operator."""
    return tuple((f"{prefix}.{name}" if name else prefix, kind) for name, kind in labels)


def require_regular(
    conv: Operator, shape: Shape, *, back: bool = False, log_det: Any = None
) -> Array | None:
    """Raise if a factor that is solved is exactly singular; return log|det| if it is not readable.

    The factors are those that the inverse solves if ``back``, else those that the forward map
    solves; ``log_det`` is their log|det|, if it is known.
    """
    if log_det is None:
        if not (solved := paths.solved(conv._path(), back)):
            return None
        log_det = paths.log_det([factor for _, factor in solved], shape)[0]
    if not readable(log_det):
        return log_det
    if not math.isfinite(to_float(log_det)):
        for place, factor in paths.solved(conv._path(), back):
            if to_float(paths.log_det([factor], shape)[0]) == -math.inf:
                raise SingularConvError(_singular(conv, factor.family, place, shape))
    return None


def _singular(conv: Operator, family: Family, place: int, shape: Shape) -> str:
    with np.errstate(all="ignore"):
        host = conv._on_host(np.float64)._path()[place]
        elsewhere = to_float(paths.log_det([Factor(family, host.w)], shape)[0])
        resolved = math.isfinite(elsewhere)
        if resolved and (condition := family.condition(host.w, shape)) is not None:
            resolved = condition.resolved  # else the number may be the rounding of a zero
    note = f", and {elsewhere:.6g} in NumPy's float64: a number is too small here" * resolved
    squares = ", or use least_squares(y), the solution of least norm" * conv._has_least_squares
    return (
        f"{conv._labels[place][1]} is exactly singular on a grid of {grid_text(shape)} "
        f"(log_det is -inf{note}), so it has no inverse: {family.hint}{squares}"
    )


def _ends(back: Path, route: Route, y: Any, x: Array) -> list[Any]:
    """Return y and the result of each leg of the inverse, computed from x by the forward map."""
    points, split = [x], paths.split_by_leg(back)
    biased = split[0][0].is_shift
    for leg in split[:biased:-1]:
        points.append(Route(paths.inverse(leg), tuple(x.shape[2:]))(points[-1]))
    if biased:
        points.append(None if y is None else route.legs[0](y))
    return [y, *points[::-1]]


def _zeros(w: Any, bar: Any) -> Any:
    if isinstance(w, tuple):
        return tuple(map(_zeros, w, (None,) * len(w) if bar is None else bar))
    return namespace(w).zeros_like(w) if bar is None else bar


def _is_real(array: Array) -> bool:
    return bool(namespace(array).isdtype(array.dtype, "real floating"))
