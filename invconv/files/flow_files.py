"""Flows in files: PyTorch and JAX write and read the same files, and no code runs from them.

A file is one of `invconv.files.container` with the arrays of `GlowArchitecture.arrays` and

    {"schema": "invconv-flow/1", "flow": {"kind": "glow", "shape": [3, 32, 32], "levels": 2, ...},
     "initialized": true}

An adapter whose library has flows enters them into `FLOWS`.
"""

import dataclasses
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from invconv.arrays.errors import InvalidFileError
from invconv.arrays.namespaces import Array, from_host, ops_of
from invconv.files.container import Stored, Values, require, write
from invconv.files.operator_files import judge_range
from invconv.flows.architecture import GlowArchitecture, mixing_operator, mixing_steps

FLOW_SCHEMA = "invconv-flow/1"


@dataclass(frozen=True)
class StoredFlow:
    """The contents of a flow's file."""

    architecture: GlowArchitecture
    arrays: dict[str, Array]  # by the names of architecture.arrays()
    initialized: bool  # whether the actnorms are initialized


class Flows(NamedTuple):
    """How the flows of a library are taken apart and made."""

    cls: type
    contents: Callable[[Any], StoredFlow]  # of a flow
    build: Callable[[StoredFlow, Array], Any]  # of arrays like another one, a flow


FLOWS: dict[str, Flows] = {}  # by the import name of the library; adapters enter theirs


def contents_of(model: Any) -> StoredFlow | None:
    """Return the contents of the file of a flow, or None if no library has such flows."""
    known = (flows for flows in FLOWS.values() if isinstance(model, flows.cls))
    return next((flows.contents(model) for flows in known), None)


def write_flow(path: str | os.PathLike[str], flow: StoredFlow) -> None:
    """Write a flow to a file, whole or not at all."""
    if flow.architecture.mixing is None:
        raise ValueError(
            "model: its mixing is a function, which no file describes: expected a flow whose "
            "mixing has a name"
        )
    description = {
        "schema": FLOW_SCHEMA,
        "flow": {"kind": "glow"} | flow.architecture.to_dict(),
        "initialized": bool(flow.initialized),
    }
    write(path, description, flow.arrays, flow_of)


def in_library(flow: StoredFlow, like: Array | None, argument: str, path: str) -> Any:
    """Return a flow of NumPy arrays as a flow of the library, dtype and device of ``like``."""
    library = "numpy" if like is None else ops_of(like).name
    if like is None or library not in FLOWS:
        raise TypeError(
            f"{argument}: {path} holds a flow, and {library} has none; expected an array of a "
            "library with flows, such as PyTorch's or JAX's"
        )
    judge_range(flow.arrays, like, argument)
    arrays = {name: from_host(array, like) for name, array in flow.arrays.items()}
    return FLOWS[library].build(dataclasses.replace(flow, arrays=arrays), like)


def flow_of(stored: Stored) -> StoredFlow:
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
