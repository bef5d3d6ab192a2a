"""JAX's native primitives and `ArrayOps`, which `invconv.arrays.registry` looks up here."""

from typing import Any

import jax
import numpy as np
from jax import numpy as jnp

from invconv.arrays.namespaces import Array, ArrayOps
from invconv_jax.native.exponential import counted as counted
from invconv_jax.native.exponential import exponential as exponential
from invconv_jax.native.exponential import exponential_gram as exponential_gram
from invconv_jax.native.filters import filtered as filtered
from invconv_jax.native.partition import mesh_axes, on_the_mesh_of
from invconv_jax.native.products import correlate as correlate
from invconv_jax.native.products import correlate_kernel_vjp as correlate_kernel_vjp
from invconv_jax.native.products import matmul as matmul
from invconv_jax.native.products import triangular_solve as triangular_solve
from invconv_jax.native.spectrum import spectral_solver as spectral_solver
from invconv_jax.native.wavefront import causal_solver as causal_solver


class JaxOps(ArrayOps):
    """JAX's answers, for arrays and for tracers.

    XLA takes subnormal numbers for zero.
    """

    flushes_subnormals = True
    gathers_transforms = True

    def require(self, name: str, x: Array) -> None:
        """Raise TypeError for float64 where JAX would take its bits for float32, or round it."""
        if not _exists(x.dtype):
            raise TypeError(
                f"{name}: expected float32, got float64, which JAX has here only inside "
                'jax.enable_x64(True), or after jax.config.update("jax_enable_x64", True)'
            )

    require_usable = require

    def nan_where(self, mask: Array, x: Array) -> Array:
        """See `ArrayOps.nan_where`; no array of NaN is made, which jax.debug_nans would tell of."""
        return jnp.where(mask, jnp.nan, x)

    def without_derivative(self, x: Array) -> Array:
        """See `ArrayOps.without_derivative`."""
        return jax.lax.stop_gradient(x)

    def device(self, x: Array) -> None:
        """Return None: constants move to their operands, and a tracer has no device."""

    def placement(self, x: Array) -> frozenset[Any] | None:
        """Return the devices that an array is committed to, None for one that JAX may move."""
        free = isinstance(x, jax.core.Tracer) or not x.committed
        return None if free else frozenset(x.devices())

    def place(self, x: Array, there: frozenset[Any]) -> Array:
        """Return an array on a device; the split between several cannot be followed."""
        (device,) = there if len(there) == 1 else (None,)
        return self.xp.asarray(x, device=device)

    def spread(self, x: Array, like: Array, axes: int | None = None) -> Array:
        """See `ArrayOps.spread`."""
        spec = mesh_axes(like)[:axes]
        return x if mesh_axes(x) == spec else on_the_mesh_of(x, x, spec)

    def readable(self, x: Array) -> bool:
        """Say True of an array in host memory, outside traced code."""
        traced = isinstance(x, jax.core.Tracer)
        return not traced and all(d.platform == "cpu" for d in x.devices())

    def same_kind(self, x: Array, like: Array) -> bool:
        """See `ArrayOps.same_kind`; False for an image that is split along its channels too."""
        return bool(
            x.dtype == like.dtype
            and x.dtype.itemsize != 2
            and _exists(x.dtype)
            and self.placement(x) == self.placement(like)
            and not any(mesh_axes(x)[1:])
        )

    def copy(self, x: Array) -> Array:
        """Return the array itself, which nobody can edit."""
        return x

    def to_numpy(self, x: Array) -> np.ndarray[Any, Any]:
        """Copy the values of an array to the host, in float32 if it is of a half type."""
        half = x.dtype.itemsize == 2 and x.dtype.kind not in "iu"
        return np.array(x, dtype=np.float32 if half else x.dtype)


def _exists(dtype: Any) -> bool:
    return bool(dtype != np.float64 or jax.config.jax_enable_x64)


ARRAY_OPS = JaxOps


@jax.custom_jvp  # type: ignore[untyped-decorator]
def nan_where_singular(x: Array, log_det: Array) -> Array:
    """See `primitives`; the derivative of `where` itself would keep an image of zeros."""
    return jnp.where(log_det == -jnp.inf, jnp.nan, x)


@nan_where_singular.defjvp  # type: ignore[untyped-decorator]
def _(primals: tuple[Array, Array], tangents: tuple[Array, Array]) -> tuple[Array, Array]:
    x, log_det = primals
    scale = jnp.where(log_det == -jnp.inf, jnp.nan, jnp.ones_like(log_det))
    return nan_where_singular(x, log_det), tangents[0] * scale
