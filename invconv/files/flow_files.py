"""Flows in files: PyTorch and JAX write and read the same files, and no code runs from them.

A file is one of `invconv.files.container` with the arrays of `GlowArchitecture.arrays` and

    {"schema": "invconv-flow/1", "flow": {"kind": "glow", "shape": [3, 32, 32], "levels": 2, ...},
     "initialized": true}

`invconv_torch.save`, `invconv_jax.save` and their `load` use this module.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from invconv.arrays.errors import InvalidFileError
from invconv.arrays.namespaces import Array, from_host
from invconv.arrays.validation import require_real
from invconv.files.container import FLOW_SCHEMA, Stored, Values, reading, write
from invconv.files.description import require
from invconv.files.operator_files import in_library, judge_range, operator_of
from invconv.flows.architecture import GlowArchitecture, mixing_operator
from invconv.operators.base.operator import InvertibleConv

_INTEGERS = "permutation"  # the one array of integers that a mixing layer may have


@dataclass(frozen=True)
class StoredFlow:
    """The contents of a flow's file."""

    architecture: GlowArchitecture
    arrays: dict[str, Array]  # by the names of architecture.arrays()
    initialized: bool  # whether the actnorms are initialized


def write_flow(
    path: str | os.PathLike[str],
    architecture: GlowArchitecture,
    arrays: Mapping[str, Array],
    initialized: bool,
) -> None:
    """Write a flow to a file, whole or not at all; raise ValueError if it could not be read."""
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
    write(path, "flow", description, arrays, _flow_of)


def read(
    path: str | os.PathLike[str], like_of: Callable[[str], Array]
) -> StoredFlow | InvertibleConv:
    """Read a flow or an operator from a file, as `invconv.load` does.

    ``like_of`` returns, for the dtype of the file ("float32"), an array of the library, dtype and
    device of the result.
    """
    with reading(path) as stored:
        like = like_of(stored.dtype)
        require_real("dtype", like)
        is_flow = stored.document.get("schema") == FLOW_SCHEMA
        model = _flow_of(stored) if is_flow else operator_of(stored)
    if isinstance(model, InvertibleConv):
        return in_library(model, like, "dtype")
    judge_range(model.arrays, like, "dtype")
    arrays = {name: from_host(array, like) for name, array in model.arrays.items()}
    return dataclasses.replace(model, arrays=arrays)


def _flow_of(stored: Stored) -> StoredFlow:
    """Return the flow of a file, in NumPy arrays, or raise InvalidFileError."""
    document = stored.document
    names = {"schema", "flow", "initialized"}
    require(set(document) == names, f"the description has {sorted(document)}")
    initialized = document["initialized"]
    require(isinstance(initialized, bool), "initialized is neither true nor false")
    architecture = _architecture(document["flow"], len(stored))
    arrays = dict(stored)
    _require_arrays(architecture, arrays)
    return StoredFlow(architecture, arrays, initialized)


def _architecture(values: Any, held: int) -> GlowArchitecture:
    """Return the architecture of a description; the file holds ``held`` arrays."""
    require(isinstance(values, dict), f"expected a flow, got {values!r:.80}")
    kind = values.get("kind")
    require(kind == "glow", f"expected the kind 'glow', got {kind!r:.80}")
    try:
        glow = GlowArchitecture.from_dict({n: v for n, v in values.items() if n != "kind"})
    except (TypeError, ValueError) as error:
        raise InvalidFileError(f"flow: {error}") from None
    steps = glow.levels * glow.depth
    require(
        steps <= held, f"{glow.levels} levels of {glow.depth} steps have more than {held} arrays"
    )
    return glow


def _require_arrays(architecture: GlowArchitecture, arrays: Mapping[str, Values]) -> None:
    """Raise unless the arrays fit an architecture, and the operators' classes accept theirs."""
    expected = architecture.arrays()
    odd = sorted(set(expected) ^ set(arrays))
    require(not odd, f"other arrays than those of the flow, such as {odd[:3]}")
    for name, shape in expected.items():
        stored = arrays[name]
        require(stored.shape == shape, f"{name!r} has the shape {stored.shape}, expected {shape}")
        kind = "i" if name.endswith(_INTEGERS) else "f"
        require(stored.dtype.kind == kind, f"{name!r} has another kind of dtype than expected")
    for at in step_names(architecture):
        try:
            mixing_operator(architecture, arrays_of(at, arrays))
        except (TypeError, ValueError) as error:
            raise InvalidFileError(f"{at}_mixing: {error}") from None


def step_names(architecture: GlowArchitecture) -> list[str]:
    """Return the prefix of the names of each step's arrays."""
    levels, steps = range(architecture.levels), range(architecture.depth)
    return [f"level{level}_step{step}" for level in levels for step in steps]


def arrays_of(step: str, arrays: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arrays of one step, by their names without its prefix."""
    start = f"{step}_"
    return {n.removeprefix(start): array for n, array in arrays.items() if n.startswith(start)}
