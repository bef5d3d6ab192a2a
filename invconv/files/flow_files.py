"""Flows in files: PyTorch and JAX write and read the same ones, and nothing in them runs.

A file is one of `invconv.files.container` with the arrays of `GlowArchitecture.arrays` and

    {"schema": "invconv-flow/1", "flow": {"kind": "glow", "shape": [3, 32, 32], "levels": 2, ...},
     "initialized": true}

Called by `invconv_torch.save`, `invconv_jax.save` and their `load`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from invconv.arrays.errors import InvalidFileError
from invconv.arrays.namespaces import Array
from invconv.files.container import FLOW_SCHEMA, Document, Stored, reading
from invconv.files.description import require
from invconv.flows.architecture import GlowArchitecture, mixing_operator

_INTEGERS = "permutation"  # the one array of integers that a mixing layer may have


@dataclass(frozen=True)
class StoredFlow:
    """A flow as a file has it.

    Attributes
    ----------
    architecture : GlowArchitecture
    arrays : dict of str to NumPy array
        By the names of ``architecture.arrays()``; bfloat16 in float32.
    dtype : str
        "float64", "float32", "float16" or "bfloat16".
    initialized : bool
        Whether its actnorms are.
    """

    architecture: GlowArchitecture
    arrays: dict[str, np.ndarray[Any, Any]]
    dtype: str
    initialized: bool


def holds_flow(path: str | os.PathLike[str]) -> tuple[bool, str]:
    """Tell whether a file is of a flow, and the dtype of its arrays."""
    with reading(path) as stored:
        return stored.document.get("schema") == FLOW_SCHEMA, _dtype(stored)


def write_flow(
    path: str | os.PathLike[str],
    architecture: GlowArchitecture,
    arrays: Mapping[str, Array],
    initialized: bool,
) -> None:
    """Write a flow to a file, whole or not at all.

    Raises
    ------
    ValueError
        If the mixing layers are a user's own, the arrays are not those of the architecture, or one
        holds NaN or inf.
    OSError
        If the file cannot be written.
    """
    if architecture.mixing is None:
        raise ValueError(
            "flow: its mixing is a function, which no file describes: expected a flow whose "
            "mixing has a name"
        )
    description = {
        "schema": FLOW_SCHEMA,
        "flow": {"kind": "glow"} | architecture.to_dict(),
        "initialized": bool(initialized),
    }
    document = Document("flow", description, arrays)
    values = document.values
    shapes = {name: tuple(array.shape) for name, array in values.items()}
    try:
        _require_arrays(architecture, shapes, {n: v.dtype.kind for n, v in values.items()})
        _require_mixings(architecture, values)
    except InvalidFileError as error:
        raise ValueError(f"flow: cannot be saved: {error}") from None
    document.write(path)


def read_flow(path: str | os.PathLike[str]) -> StoredFlow:
    """Read a flow that `write_flow` wrote; everything is checked before it is used.

    Raises
    ------
    InvalidFileError
        If it is no such file, or a damaged one.
    OSError
        If the file cannot be read; FileNotFoundError if there is none.
    """
    with reading(path) as stored:
        document = stored.document
        schema = document.get("schema")
        require(schema == FLOW_SCHEMA, f"expected the schema {FLOW_SCHEMA!r}, got {schema!r:.80}")
        names = {"schema", "flow", "initialized"}
        require(set(document) == names, f"the description has {sorted(document)}")
        initialized = document["initialized"]
        require(isinstance(initialized, bool), "initialized is neither true nor false")
        architecture = _architecture(document["flow"], len(stored))
        kinds = {name: "i" if kind == "I64" else "f" for name, kind in stored.kinds.items()}
        _require_arrays(architecture, stored.shapes, kinds)
        arrays = {name: stored[name] for name in stored}
        _require_mixings(architecture, arrays)
        return StoredFlow(architecture, arrays, _dtype(stored), initialized)


def _dtype(stored: Stored) -> str:
    kind = stored.real_kind
    return "bfloat16" if kind == "BF16" else f"float{kind[1:]}"


def _architecture(values: Any, held: int) -> GlowArchitecture:
    """Return the architecture of a description, in a file with so many arrays."""
    require(isinstance(values, dict), f"expected a flow, got {values!r:.80}")
    kind = values.get("kind")
    require(kind == "glow", f"expected the kind 'glow', got {kind!r:.80}")
    try:
        made = GlowArchitecture.from_dict({n: v for n, v in values.items() if n != "kind"})
    except (TypeError, ValueError) as error:
        raise InvalidFileError(f"flow: {error}") from None
    steps = made.levels * made.depth
    require(
        steps <= held, f"{made.levels} levels of {made.depth} steps have more than {held} arrays"
    )
    return made


def _require_arrays(
    architecture: GlowArchitecture,
    shapes: Mapping[str, tuple[int, ...]],
    kinds: Mapping[str, str],
) -> None:
    """Raise unless names, shapes and kinds of dtype are those of an architecture."""
    expected = architecture.arrays()
    odd = sorted(set(expected) ^ set(shapes))
    require(not odd, f"other arrays than those of the flow, such as {odd[:3]}")
    for name, shape in expected.items():
        found = shapes[name]
        require(found == shape, f"{name!r} has the shape {found}, expected {shape}")
        kind = "i" if name.endswith(_INTEGERS) else "f"
        require(kinds[name] == kind, f"{name!r} has another kind of dtype than expected")


def _require_mixings(architecture: GlowArchitecture, arrays: Mapping[str, Any]) -> None:
    """Raise unless the operators' classes accept the arrays of all mixing layers."""
    for at in step_names(architecture):
        try:
            mixing_operator(architecture, arrays_of(at, arrays))
        except (TypeError, ValueError) as error:
            raise InvalidFileError(f"{at}_mixing: {error}") from None


def step_names(architecture: GlowArchitecture) -> list[str]:
    """Return what the names of each step's arrays begin with."""
    levels, steps = range(architecture.levels), range(architecture.depth)
    return [f"level{level}_step{step}" for level in levels for step in steps]


def arrays_of(step: str, arrays: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arrays of one step, without its name in front."""
    start = f"{step}_"
    return {n.removeprefix(start): array for n, array in arrays.items() if n.startswith(start)}
