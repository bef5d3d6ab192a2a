"""JAX's private parts that this package uses, looked up once.

Importing this module refuses a version that lacks a part. `VERSIONS` has the oldest version, as in
pyproject.toml: before it, XLA asked a handler for its metadata without a table of its functions,
which `invconv.kernels.cpu.compiler.frame` reads.
"""

import ctypes
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
from jax.sharding import AxisType

from invconv.arrays.errors import Versions

VERSIONS = Versions("JAX", "jax", oldest="0.8.1", newest="0.10.2")
VERSIONS.require(jax.__version__)

try:
    from jax.experimental.custom_partitioning import custom_partitioning as custom_partitioning
    from jax.extend.core import Primitive as Primitive
    from jax.extend.core import jaxpr_as_fun as jaxpr_as_fun
    from jax.interpreters.ad import Zero as Zero
    from jax.interpreters.ad import deflinear2 as deflinear2
    from jax.interpreters.ad import is_undefined_primal as is_undefined_primal
    from jax.interpreters.ad import primitive_jvps as primitive_jvps
    from jax.interpreters.ad import primitive_transposes as primitive_transposes
    from jax.interpreters.batching import primitive_batchers as primitive_batchers
    from jax.interpreters.mlir import LoweringParameters, ModuleContext
    from jax.interpreters.mlir import lower_fun as lower_fun
    from jax.interpreters.mlir import register_lowering as register_lowering

    _parts = (
        LoweringParameters.for_export,
        ModuleContext.__annotations__["lowering_parameters"],
        ModuleContext.__annotations__["axis_context"],
    )
except (ImportError, AttributeError, KeyError) as error:
    raise VERSIONS.refusal(jax.__version__, error) from error


def is_exported(context: Any) -> bool:
    """Tell whether the lowered program is exported, to run in other processes."""
    return bool(context.module_context.lowering_parameters.for_export)


def primitive_of(
    name: str, function: Callable[..., Any], **kernels: Callable[..., Any]
) -> Primitive:
    """Return a primitive that runs a function of JAX's operations, or a platform's kernel.

    Its result has the type of the last argument unless it is told otherwise. Kernels exist in this
    process only: an exported program runs the function.
    """
    primitive = Primitive(name)
    primitive.def_impl(function)  # where JAX compiles nothing
    primitive.def_abstract_eval(lambda *types, **_: types[-1].update(weak_type=False))

    def lower(kernel: Callable[..., Any], context: Any, *arrays: Any, **settings: Any) -> Any:
        way = function if is_exported(context) else kernel
        return lower_fun(way, multiple_results=False)(context, *arrays, **settings)

    register_lowering(primitive, partial(lower, function))
    for platform, kernel in kernels.items():
        register_lowering(primitive, partial(lower, kernel), platform=platform)
    return primitive


def can_split(context: Any) -> bool:
    """Tell whether `custom_partitioning` can lower the code here: it needs the devices.

    They are unknown in an exported program, inside `jax.shard_map`, and in code that another
    library's primitive traces only when it is lowered, as `lineax.linear_solve` does.
    """
    axes = context.module_context.axis_context
    unknown = getattr(axes, "device_assignment", ()) is None
    return not (is_exported(context) or unknown or getattr(axes, "manual_axes", False))


def automatic_mesh(context: Any) -> Any:
    """Return the mesh along which XLA splits the lowered code, or None if it splits nothing."""
    mesh = context.avals_in[-1].sharding.mesh  # types have a mesh inside `jax.shard_map`
    if mesh.empty:
        mesh = getattr(context.module_context.axis_context, "abstract_mesh", None)
    return mesh if mesh is not None and AxisType.Auto in mesh.axis_types else None


_registered: set[str] = set()
_registering = threading.Lock()


def register(name: str, code: Any, platform: str) -> None:
    """Register a handler with XLA, which may run it until the process ends: its code stays.

    XLA refuses a second handler of a name, such as one that another thread has compiled.
    """
    with _registering:
        if name not in _registered:
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(code))
            capsule = jax.ffi.pycapsule(code.address)
            jax.ffi.register_ffi_target(name, capsule, platform=platform)
            _registered.add(name)
