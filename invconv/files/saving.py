"""`invconv.save` and `invconv.load`: operators of any library, layers and flows in files.

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

PyTorch and JAX write and read the same flows, by the arrays of `GlowArchitecture.arrays` and

    {"schema": "invconv-flow/1", "flow": {"kind": "glow", "shape": [3, 32, 32], "levels": 2, ...},
     "initialized": true}
"""

import os
import re
import warnings
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from invconv.arrays.errors import InvalidFileError
from invconv.arrays.namespaces import Array, callers_level, from_host, namespace, ops_of, to_numpy
from invconv.arrays.validation import require_real
from invconv.files.container import Json, Stored, Values, judge_range, reading, require, write
from invconv.flows.architecture import GlowArchitecture, mixing_operator, mixing_steps
from invconv.operators.base.factors import as_operator
from invconv.operators.base.fields import is_own, operators, setting_as_json, setting_of_json
from invconv.operators.base.operator import InvertibleConv
from invconv.stability.bounded import bounded

_STEP = "_actnorm.bias"  # in the name of an array, after its step's name
_SCHEMA, _FLOW_SCHEMA = "invconv-operator/1", "invconv-flow/1"
DEEPEST = 32  # operators within operators
_MODULE = re.compile(r"\w[\w.-]{0,199}")  # perhaps the name of a script


class StoredFlow(NamedTuple):
    """The contents of a flow's file."""

    architecture: GlowArchitecture
    arrays: dict[str, Array]  # by the names of architecture.arrays()
    initialized: bool  # whether the actnorms are initialized


class Flows(NamedTuple):
    """How the flows of a library are taken apart and made."""

    cls: type
    contents: Callable[[Any], StoredFlow]  # of a flow
    build: Callable[[StoredFlow, Array], Any]  # a flow, with arrays like another one


FLOWS: dict[str, Flows] = {}  # by the import name of the library; adapters enter theirs


def save(model: Any, path: str | os.PathLike[str]) -> None:
    """Write an operator, a layer or a flow to a file, whole or not at all.

    The arrays of any library are copied to host memory and keep their dtype (float64, float32,
    float16, bfloat16; a permutation is written as int64). The same operator gives the same bytes
    in every library. A layer of PyTorch is saved as its operator. For an operator that `bounded`
    made, and for a layer with ``max_gain``, the operator before the bound and the bound are
    written. `invconv_torch.save` and `invconv_jax.save` are this function.

    Parameters
    ----------
    model : InvertibleConv, layer or chain of invconv_torch, or Glow
        With finite arrays.
    path : str or path-like
        Usually ``*.safetensors``. An existing file is replaced after the new one has been read
        back and is on disk; it stays as it was if anything goes wrong.

    Raises
    ------
    TypeError
        If ``model`` is none of these, or its class has been defined again since.
    ValueError
        If an array holds NaN or inf, there are too many or too deeply nested operators, a flow's
        mixing is a function, or its layers were changed.
    OSError
        If the file cannot be written.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> import numpy as np
    >>> from invconv import EmergingConv, load, save
    >>> conv = EmergingConv.init(3, rng=np.random.default_rng(0))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save(conv, pathlib.Path(folder, "conv.safetensors"))
    ...     same = load(pathlib.Path(folder, "conv.safetensors"))
    >>> x = np.ones((3, 8, 8))
    >>> bool(np.all(same.forward(x) == conv.forward(x)))
    True
    """
    for flows in FLOWS.values():
        if isinstance(model, flows.cls):
            flow = flows.contents(model)
            if flow.architecture.mixing is None:
                raise ValueError(
                    "model: its mixing is a function, which no file describes: expected a flow "
                    "whose mixing has a name"
                )
            settings = {"kind": "glow"} | flow.architecture.to_dict()
            description = {"flow": settings, "initialized": bool(flow.initialized)}
            write(path, {"schema": _FLOW_SCHEMA} | description, flow.arrays, _flow_of)
            return
    arrays: dict[str, Array] = {}
    described = describe(as_operator("model", model), arrays)
    write(path, {"schema": _SCHEMA, "operator": described}, arrays, operator_of)


def load(path: str | os.PathLike[str], like: Array | None = None) -> Any:
    """Read an operator, or a flow of the library of ``like``, that `save` wrote.

    Everything is checked before it is used: a checksum (files of 0.2.0 have none), the sizes
    against the length of the file, the description against the classes, the numbers for NaN and
    inf. No code is run from a file. The checksum detects accidental damage; it does not detect
    changes on purpose, since anyone can compute it anew.

    `invconv_torch.load` returns a layer instead of an operator. It and `invconv_jax.load` take
    ``dtype=`` instead of ``like``.

    Parameters
    ----------
    path : str or path-like
    like : array, optional
        An array of the library, dtype and device to use, as in ``conv.asarrays(like)``. Unless
        given, operators are of NumPy arrays of the dtype in the file. NumPy has no bfloat16 and no
        flows, so such files need ``like``.

    Raises
    ------
    InvalidFileError
        If `save` did not write the file, or it is damaged.
    TypeError
        If the file holds bfloat16 or a flow, and ``like`` is not given or of NumPy.
    ValueError
        If a number in the file is beyond the range of ``like``'s dtype.
    OSError
        If the file cannot be read; FileNotFoundError if it does not exist.

    Warns
    -----
    UserWarning
        If a number in the file is too small for ``like``'s dtype, and becomes zero.

    Examples
    --------
    >>> import tempfile, numpy as np
    >>> from invconv import EmergingConv, load, save
    >>> conv = EmergingConv.init(3, rng=np.random.default_rng(0))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save(conv, f"{folder}/conv.safetensors")
    ...     same = load(f"{folder}/conv.safetensors", like=np.empty(0, "float32"))
    >>> same.first.kernel.dtype
    dtype('float32')
    """
    return load_as(path, lambda dtype: like, "like")


def load_as(
    path: str | os.PathLike[str], like_of: Callable[[str], Array | None], argument: str = "dtype"
) -> Any:
    """Read an operator or a flow from a file, as `load` does.

    ``like_of`` returns, for the dtype of the file ("float32"), `load`'s ``like``; ``argument`` is
    the name of the argument by which the user chose it, for messages.
    """
    with reading(path) as stored:
        like = like_of(stored.dtype)
        if like is not None:
            require_real(argument, like)
        if stored.document.get("schema") == _FLOW_SCHEMA:
            flow, library = _flow_of(stored), "numpy" if like is None else ops_of(like).name
            if like is None or library not in FLOWS:
                raise TypeError(
                    f"{argument}: {stored.name} holds a flow, and {library} has none; expected an "
                    "array of a library with flows, such as PyTorch's or JAX's"
                )
            judge_range(stored, like, argument)
            arrays = {name: from_host(array, like) for name, array in flow.arrays.items()}
            return FLOWS[library].build(flow._replace(arrays=arrays), like)
        if like is None and stored.dtype == "bfloat16":
            raise TypeError(
                f"like: {stored.name} holds bfloat16, which NumPy has not; pass an array of torch "
                f"or JAX, or a float32 one, which holds every bfloat16 number exactly"
            )
        conv = operator_of(stored)
    if like is None:
        return conv
    judge_range(stored, like, argument)
    return conv._map(lambda array: from_host(array, like))


def describe(
    conv: InvertibleConv, arrays: dict[str, Array], prefix: str = "", depth: int = 1
) -> Json:
    """Return an operator as JSON, and put its arrays into ``arrays`` under "prefix.name"."""
    cls = type(conv)
    if operators().get(cls.__name__) is not cls:
        raise TypeError(
            f"conv: expected an operator of the class {cls.__name__} as it is defined now, got one "
            "of an older definition; make it again"
        )
    if conv._bounded_from is not None:
        free, gain = conv._bounded_from
        with np.errstate(all="ignore"):  # by NumPy, as the reader does: libraries' QR may differ
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
    # a file may be older than a setting, whose default is the former behaviour
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
        conv = cls._of(**held, **setting_of_json(settings), **cls._part_fields(parts))
        if "max_gain" in description:
            with np.errstate(all="ignore"):
                conv = bounded(conv, description["max_gain"])
            for n, a in conv.parameters().items():
                require(bool(np.isfinite(a).all()), f"{n}: its norm is too large to be bounded")
        return conv
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidFileError(f"{name}: {error}") from None


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


def _flow_of(stored: Stored) -> StoredFlow:
    """Return the flow of a file, in NumPy arrays, or raise InvalidFileError."""
    document = stored.document
    names = {"schema", "flow", "initialized"}
    require(set(document) == names, f"the description has {sorted(document)}")
    initialized = document["initialized"]
    require(isinstance(initialized, bool), "initialized is neither true nor false")
    values, held = document["flow"], len(stored)
    require(isinstance(values, dict), f"expected a flow, got {values!r:.80}")
    kind = values.get("kind")
    require(kind == "glow", f"expected the kind 'glow', got {kind!r:.80}")
    try:
        glow = GlowArchitecture.from_dict({n: v for n, v in values.items() if n != "kind"})
    except (TypeError, ValueError) as error:
        raise InvalidFileError(f"flow: {error}") from None
    text = f"{glow.levels} levels of {glow.depth} steps have more than {held} arrays"
    require(glow.levels * glow.depth <= held, text)
    _require_arrays(glow, stored)
    return StoredFlow(glow, dict(stored), initialized)


def _require_arrays(architecture: GlowArchitecture, arrays: Mapping[str, Values]) -> None:
    """Raise unless the arrays fit an architecture, and the operators' classes accept theirs."""
    expected = architecture.arrays()
    odd = sorted(set(expected) ^ set(arrays))
    require(not odd, f"other arrays than those of the flow, such as {odd[:3]}")
    drawn = mixing_steps(str(architecture.mixing)).items()
    held = ((prefix + n, a.dtype.kind) for prefix, conv in drawn for n, a in conv._arrays().items())
    integers = {name for name, kind in held if kind in "iu"}
    for name, shape in expected.items():
        stored = arrays[name]
        require(stored.shape == shape, f"{name!r} has the shape {stored.shape}, expected {shape}")
        kind = "i" if name.split("_", 2)[-1] in integers else "f"
        require(stored.dtype.kind == kind, f"{name!r} has another kind of dtype than expected")
    for at in (n.removesuffix(_STEP) for n in expected if n.endswith(_STEP)):
        try:
            mixing_operator(architecture, arrays_of(at, arrays))
        except (TypeError, ValueError) as error:
            raise InvalidFileError(f"{at}_mixing: {error}") from None


def arrays_of(step: str, arrays: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arrays of one step, by their names without its prefix."""
    start = f"{step}_"
    return {n.removeprefix(start): array for n, array in arrays.items() if n.startswith(start)}
