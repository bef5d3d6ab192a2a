"""Operators in files: any library writes and reads them, and no code runs from them.

A file is one of `invconv.files.container` with the arrays by the names of
`InvertibleConv.parameters` (and PLU's permutation and sign), and a description of the operator: its
class, its settings, the names of its arrays, and its parts.

    {"schema": "invconv-operator/1", "operator":
     {"class": "EmergingConv", "settings": {}, "arrays": {"bias": "bias"},
      "parts": {"first": {"class": "AutoregressiveConv", ...}, "second": ...}}}

For an operator that `invconv.bounded` made, the file describes the operator before the bound, with
a further entry "max_gain"; the reader bounds it again. An operator of a user's class has an entry
"module", which the reader names in its error if the class is not defined: it imports nothing. The
reader takes classes from the register and refuses everything else: a description names no code, and
the classes themselves validate it.
"""

import os
import re
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np

from invconv.arrays.errors import InvalidFileError
from invconv.arrays.namespaces import (
    Array,
    callers_level,
    dtype_name,
    from_host,
    namespace,
    ops_of,
    to_numpy,
)
from invconv.files.container import Json, Stored, Values, require, write
from invconv.operators.base.factors import require_operator
from invconv.operators.base.fields import is_own, operators, setting_as_json, setting_of_json
from invconv.operators.base.operator import InvertibleConv
from invconv.stability.bounded import bounded

_SCHEMA = "invconv-operator/1"
DEEPEST = 32  # operators within operators
_MODULE = re.compile(r"\w[\w.-]{0,199}")  # of a script, perhaps


def describe(
    conv: InvertibleConv, arrays: dict[str, Array], prefix: str = "", depth: int = 1
) -> Json:
    """Return an operator as JSON, and put its arrays into ``arrays`` under "prefix.name"."""
    require_operator("conv", conv)
    cls = type(conv)
    if operators().get(cls.__name__) is not cls:
        raise TypeError(
            f"conv: expected an operator of the class {cls.__name__} as it is defined now, got one "
            "of an older definition; make it again"
        )
    if conv._bounded_from is not None:
        free, gain = conv._bounded_from
        with np.errstate(all="ignore"):  # by NumPy, as by the reader: QR may differ in a library
            again = bounded(free._map(to_numpy, check=False), gain).parameters()
        if not all(_alike(own, again[name]) for name, own in conv.parameters().items()):
            raise ValueError(
                "conv: expected a bounded operator that the arrays it was made of give again, got "
                "edited ones, or a nearly singular matrix, whose bound rounding changes; bound it "
                "again, or save conv.replace(), which has its numbers and no bound"
            )
        return describe(free, arrays, prefix, depth) | {"max_gain": gain}
    if depth > DEEPEST:
        raise ValueError(f"conv: expected operators nested {DEEPEST} deep at most")
    held = conv._own()
    arrays |= {prefix + symbol: array for symbol, array in held.items()}
    name, settings = cls.__name__, cls._setting_names
    parts = {
        place: describe(part, arrays, f"{prefix}{place}.", depth + 1)
        for place, part in conv._parts().items()
    }
    return {
        "class": name,
        **({} if is_own(cls) else {"module": cls.__module__}),
        "settings": {n: setting_as_json(f"{name}.{n}", getattr(conv, n)) for n in settings},
        "arrays": {symbol: prefix + symbol for symbol in held},
        "parts": parts,
    }


def _alike(one: Array, values: Values) -> bool:
    """Tell whether arrays differ by rounding alone; NaN is like NaN."""
    rounding = 4 * float(namespace(one).finfo(one.dtype).eps) + 256 * np.finfo(values.dtype).eps
    off = rounding * np.abs(values).max(initial=0.0)
    return np.allclose(to_numpy(one), values, rtol=0, atol=off, equal_nan=True)


def build(
    description: Any, arrays: Mapping[str, Array], used: set[str], depth: int = 1
) -> InvertibleConv:
    """Return the operator of a description, any value from a JSON file, or raise InvalidFileError.

    It may name each of the arrays once; the names are added to ``used``.
    """
    cls = _class_of(description, depth)
    name, settings = cls.__name__, description["settings"]
    symbols, setting_names = list(cls._specs), list(cls._setting_names)
    # a file may be older than a setting, whose default is how it was before
    require(set(settings) <= set(setting_names), f"{name} has the settings {setting_names}")
    for setting, value in settings.items() if is_own(cls) else ():
        numbers = value if isinstance(value, list) else [value]
        truths = [v for v in numbers if isinstance(v, bool)]  # bool is an int in Python
        require(not truths, f"{name}: {setting}: expected no truth value, got {value!r:.80}")
    given = description["arrays"]
    held: Json = {symbol: None for symbol, spec in cls._specs.items() if spec.optional}
    missing = set(symbols) - set(given) - set(held)
    require(not missing and set(given) <= set(symbols), f"{name} has the arrays {symbols}")
    for symbol, array in given.items():
        require(isinstance(array, str) and array in arrays, f"{name}: no array {array!r}")
        require(array not in used, f"{name}: the array {array!r} is used twice")
        used.add(array)
        held[symbol] = arrays[array]
    parts = {p: build(part, arrays, used, depth + 1) for p, part in description["parts"].items()}
    several = len(cls._part_names) == 1 and "0" in parts
    names = tuple(map(str, range(len(parts)))) if several else cls._part_names
    require(tuple(parts) == names, f"{name} has the parts {names}, not {tuple(parts)}")
    try:
        conv = cls(**held, **setting_of_json(settings), **cls._part_fields(parts))
        return _bounded(conv, description["max_gain"]) if "max_gain" in description else conv
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidFileError(f"{name}: {error}") from None


def _bounded(free: InvertibleConv, max_gain: Any) -> InvertibleConv:
    with np.errstate(all="ignore"):
        conv = bounded(free, max_gain)
    for name, array in conv.parameters().items():
        require(bool(np.isfinite(array).all()), f"{name}: its norm is too large to be bounded")
    return conv


def _class_of(description: Any, depth: int) -> type[InvertibleConv]:
    """Return the class of a description, or raise if its entries or their types are wrong."""
    wanted = ("class", "settings", "arrays", "parts")
    require(depth <= DEEPEST, f"operators are nested more than {DEEPEST} deep")
    require(isinstance(description, dict), f"expected an operator, got {description!r:.80}")
    entries, least = set(description), set(wanted)
    text = f"{sorted(wanted)} and perhaps max_gain and module, not {sorted(entries)}"
    require(least <= entries <= least | {"max_gain", "module"}, f"an operator has {text}")
    name, hint, known = description["class"], "", operators()
    if "module" in description:
        module = description["module"]
        named = isinstance(module, str) and _MODULE.fullmatch(module)
        require(bool(named), f"module: expected the name of one, got {module!r:.80}")
        hint = f"; first import {module}, which defines it"
        if module == "__main__":
            hint = "; first define it, as the script or notebook did that saved it"
    require(isinstance(name, str) and name in known, f"unknown class {name!r:.80}{hint}")
    for entry in wanted[1:]:
        require(isinstance(description[entry], dict), f"{name}: {entry} is no object")
    cls: type[InvertibleConv] = known[name]
    if (module := description.get("module", cls.__module__)) != cls.__module__:
        warnings.warn(
            f"the class {name} of {module}, which the file names, is taken for that of "
            f"{cls.__module__}",
            stacklevel=callers_level(),
        )
    return cls


def write_operator(path: str | os.PathLike[str], conv: InvertibleConv) -> None:
    """Write an operator to a file, whole or not at all."""
    arrays: dict[str, Array] = {}
    write(path, {"schema": _SCHEMA, "operator": describe(conv, arrays)}, arrays, operator_of)


def in_library(conv: InvertibleConv, like: Array, argument: str) -> InvertibleConv:
    """Return an operator of NumPy arrays in the library, dtype and device of ``like``."""
    arrays: dict[str, Values] = {}
    describe(conv, arrays)  # those before a bound
    judge_range(arrays, like, argument)
    return conv._map(lambda array: from_host(array, like))


def operator_of(stored: Stored) -> InvertibleConv:
    """Return the operator of a file, or raise InvalidFileError."""
    document = stored.document
    schema = document.get("schema")
    require(schema == _SCHEMA, f"expected the schema {_SCHEMA!r}, got {schema!r:.80}")
    require(set(document) == {"schema", "operator"}, f"the description has {sorted(document)}")
    used: set[str] = set()
    conv = build(document["operator"], stored, used)
    require(used == set(stored), f"the operator has no arrays {sorted(set(stored) - used)[:9]}")
    return conv


def judge_range(arrays: Mapping[str, Values], like: Array, argument: str) -> None:
    """Raise if a number is too large for the dtype of ``like``; warn if one becomes zero.

    ``arrays`` are NumPy's; those of integers pass. ``argument`` is as for `load_as`.
    """
    kind, dtype = namespace(like).finfo(like.dtype), dtype_name(like.dtype)
    largest, spacing = float(kind.max), float(kind.smallest_normal) * float(kind.eps)
    # XLA computes float16 in float32, which flushes none of its numbers
    flushes = ops_of(like).flushes_subnormals and dtype != "float16"
    least = float(kind.smallest_normal) if flushes else spacing
    rounded_off = least - spacing / 2 if flushes else spacing / 2  # spacing / 2 is 0 in float64
    for name, array in arrays.items():
        if array.dtype.kind != "f":
            continue
        top = float(max(abs(array.min()), abs(array.max()))) if array.size else 0.0
        if top > largest:
            raise ValueError(
                f"{argument}: expected a dtype that holds {name}, up to {top}, got {dtype}, "
                f"up to {largest}"
            )
        lost = np.abs(array[(array != 0) & (np.abs(array) <= rounded_off)])
        if lost.size:
            warnings.warn(
                f"{argument}: {lost.size} of the {array.size} numbers of {name}, up to "
                f"{lost.max():.3g}, are zero in {dtype}, whose smallest is {least:.3g}",
                stacklevel=callers_level(),
            )
