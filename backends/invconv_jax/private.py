"""Everything that this package uses of JAX without JAX's promise to keep it, looked up once.

A version that lacks a part is refused when this is imported. What only an older version lacks
stands in `VERSIONS`, whose oldest one is that of pyproject.toml: before, XLA asks a handler for its
metadata without a table of its functions, and `invconv.kernels.cpu.compiler.frame` reads it.
"""

from __future__ import annotations

from typing import Any

import jax
from jax.sharding import AxisType

from invconv.arrays.versions import Versions

VERSIONS = Versions("JAX", "jax", oldest="0.8.1", newest="0.10.2")
VERSIONS.require(jax.__version__)

try:
    from jax.experimental.custom_partitioning import custom_partitioning
    from jax.extend.core import Primitive, jaxpr_as_fun
    from jax.interpreters.ad import (
        Zero,
        deflinear2,
        instantiate_zeros,
        is_undefined_primal,
        primitive_jvps,
        primitive_transposes,
    )
    from jax.interpreters.batching import primitive_batchers
    from jax.interpreters.mlir import (
        LoweringParameters,
        ModuleContext,
        lower_fun,
        register_lowering,
    )

    _parts = (
        LoweringParameters.for_export,
        ModuleContext.__annotations__["lowering_parameters"],
        ModuleContext.__annotations__["axis_context"],
    )
except (ImportError, AttributeError, KeyError) as error:
    raise VERSIONS.refusal(jax.__version__, error) from error

__all__ = [
    "Primitive",
    "Zero",
    "automatic_mesh",
    "custom_partitioning",
    "deflinear2",
    "instantiate_zeros",
    "is_exported",
    "is_manual",
    "is_undefined_primal",
    "jaxpr_as_fun",
    "lower_fun",
    "primitive_batchers",
    "primitive_jvps",
    "primitive_transposes",
    "register_lowering",
]


def is_exported(context: Any) -> bool:
    """Tell whether what is lowered is to run in other processes."""
    return bool(context.module_context.lowering_parameters.for_export)


def is_manual(context: Any) -> bool:
    """Tell whether what is lowered is inside `jax.shard_map`, on some axes of a mesh or all."""
    return bool(getattr(context.module_context.axis_context, "manual_axes", False))


def automatic_mesh(context: Any) -> Any:
    """Return the mesh along which XLA splits what is lowered, None where it splits nothing."""
    mesh = context.avals_in[-1].sharding.mesh  # which types have inside `jax.shard_map`
    if mesh.empty:
        mesh = getattr(context.module_context.axis_context, "abstract_mesh", None)
    return mesh if mesh is not None and AxisType.Auto in mesh.axis_types else None
