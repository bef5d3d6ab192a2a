"""Operators as JSON: the class, its settings, the names of its arrays, and its parts.

    {"class": "EmergingConv", "settings": {}, "arrays": {"bias": "bias"},
     "parts": {"first": {"class": "AutoregressiveConv", ...}, "second": ...}}

An operator that `invconv.bounded` made is described by what it was made of, and by a further entry
"max_gain", the bound; the reader bounds it again. The reader knows the classes from `OPERATORS` and
refuses everything else: a description names no code, and what it says is validated by the classes
themselves.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from invconv.arrays.errors import InvalidFileError
from invconv.arrays.namespaces import Array
from invconv.arrays.settings import instead
from invconv.files.ranges import finite
from invconv.operators.autoregressive import AutoregressiveConv
from invconv.operators.base.operator import InvertibleConv
from invconv.operators.chain import Chain
from invconv.operators.emerging import EmergingConv
from invconv.operators.exponential import ExponentialConv
from invconv.operators.inverse import Inverse
from invconv.operators.periodic import PeriodicConv
from invconv.operators.pointwise.actnorm import ActNorm
from invconv.operators.pointwise.circulant import CirculantConv1x1
from invconv.operators.pointwise.conv1x1 import Conv1x1
from invconv.operators.pointwise.orthogonal import OrthogonalConv1x1
from invconv.operators.pointwise.plu import PLUConv1x1
from invconv.operators.pointwise.qr import QRConv1x1
from invconv.operators.symmetric import SymmetricConv
from invconv.stability.bounded import bounded

Json = dict[str, Any]

OPERATORS: tuple[type[InvertibleConv], ...] = (
    ActNorm,
    AutoregressiveConv,
    Chain,
    CirculantConv1x1,
    Conv1x1,
    EmergingConv,
    ExponentialConv,
    Inverse,
    OrthogonalConv1x1,
    PeriodicConv,
    PLUConv1x1,
    QRConv1x1,
    SymmetricConv,
)
DEEPEST = 32  # operators within operators
_CLASSES = {cls.__name__: cls for cls in OPERATORS}


def describe(
    conv: InvertibleConv, arrays: dict[str, Array], prefix: str = "", depth: int = 1
) -> Json:
    """Return an operator as JSON, and put its arrays into ``arrays`` under "prefix.name".

    Raises
    ------
    TypeError
        If an operator is none of `OPERATORS`.
    ValueError
        If they are nested deeper than `DEEPEST`.
    """
    cls = type(conv)
    if cls not in OPERATORS:
        raise TypeError(
            f"conv: expected one of the operators {', '.join(_CLASSES)}, got {cls.__name__}"
            f"{instead(conv)}"
        )
    if conv._bounded_from is not None:
        free, gain = conv._bounded_from
        return describe(free, arrays, prefix, depth) | {"max_gain": gain}
    if depth > DEEPEST:
        raise ValueError(f"conv: expected operators nested {DEEPEST} deep at most")
    symbols, settings = cls._field_names()
    held = {s: getattr(conv, s) for s in symbols if getattr(conv, s) is not None}
    arrays |= {prefix + symbol: array for symbol, array in held.items()}
    values = {name: getattr(conv, name) for name in settings}
    parts = {
        name: describe(part, arrays, f"{prefix}{name}.", depth + 1)  # type: ignore[arg-type]
        for name, part in conv._parts().items()
    }
    return {
        "class": cls.__name__,
        "settings": {n: list(v) if isinstance(v, tuple) else v for n, v in values.items()},
        "arrays": {symbol: prefix + symbol for symbol in held},
        "parts": parts,
    }


def build(
    description: Any, arrays: Mapping[str, Array], used: set[str], depth: int = 1
) -> InvertibleConv:
    """Return the operator that JSON describes.

    Parameters
    ----------
    description : dict
        Anything that came out of a JSON file.
    arrays : mapping of str to array
        Those that it may name, each of them once.
    used : set of str
        The names of those that it does are added.

    Raises
    ------
    InvalidFileError
        If it describes no operator, or its class refuses what it is given.
    """
    cls = _class_of(description, depth)
    name, settings = cls.__name__, description["settings"]
    symbols, setting_names = cls._field_names()
    require(set(settings) == set(setting_names), f"{name} has the settings {setting_names}")
    for setting, value in settings.items():
        numbers = value if isinstance(value, list) else [value]
        truths = [v for v in numbers if isinstance(v, bool)]  # which Python takes for integers
        require(not truths, f"{name}: {setting}: expected no truth value, got {value!r:.80}")
    given = description["arrays"]
    missing = set(symbols) - set(given) - {"bias"}
    require(not missing and set(given) <= set(symbols), f"{name} has the arrays {symbols}")
    held: Json = {"bias": None} if "bias" in symbols else {}
    for symbol, array in given.items():
        require(isinstance(array, str) and array in arrays, f"{name}: no array {array!r}")
        require(array not in used, f"{name}: the array {array!r} is used twice")
        used.add(array)
        held[symbol] = arrays[array]
    parts = {p: build(part, arrays, used, depth + 1) for p, part in description["parts"].items()}
    names = tuple(map(str, range(len(parts)))) if cls is Chain else cls._part_names
    require(tuple(parts) == names, f"{name} has the parts {names}, not {tuple(parts)}")
    try:
        made = Chain(tuple(parts.values())) if cls is Chain else cls(**held, **settings, **parts)
        return _bounded(made, description["max_gain"]) if "max_gain" in description else made
    except (TypeError, ValueError) as error:
        raise InvalidFileError(f"{name}: {error}") from None


def _bounded(made: InvertibleConv, max_gain: Any) -> InvertibleConv:
    with np.errstate(all="ignore"):
        found = bounded(made, max_gain)
    for name, array in found.parameters().items():
        require(finite(array), f"{name}: its norm is too large to be bounded")
    return found


def parse(text: str | bytes) -> Any:
    """Return what JSON says, and raise InvalidFileError where an object names an entry twice."""
    import json  # importing invconv is the quicker without it

    def once(pairs: list[tuple[str, Any]]) -> Json:
        found: Json = {}
        for name, value in pairs:
            require(name not in found, f"an object has the entry {name!r:.80} twice")
            found[name] = value
        return found

    return json.loads(text, object_pairs_hook=once)


def _class_of(description: Any, depth: int) -> type[InvertibleConv]:
    """Return the class that a description names, whose outer form is then right."""
    wanted = ("class", "settings", "arrays", "parts")
    require(depth <= DEEPEST, f"operators are nested more than {DEEPEST} deep")
    require(isinstance(description, dict), f"expected an operator, got {description!r:.80}")
    found = set(description)
    least = set(wanted)
    fits = found in (least, least | {"max_gain"})
    require(fits, f"an operator has {sorted(wanted)} and perhaps max_gain, not {sorted(found)}")
    name = description["class"]
    require(isinstance(name, str) and name in _CLASSES, f"unknown class {name!r:.80}")
    for what in wanted[1:]:
        require(isinstance(description[what], dict), f"{name}: {what} is no object")
    return _CLASSES[name]


def require(holds: bool, message: str) -> None:
    """Raise InvalidFileError unless something holds."""
    if not holds:
        raise InvalidFileError(message)
