"""The arrays of a PyTorch model, on their way into the flow of `jax_flow`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

import jax
import numpy as np
from jax import numpy as jnp

import invconv as ic
from invconv.arrays.namespaces import Array

Arrays: TypeAlias = Mapping[str, np.ndarray[Any, Any]]
Conv: TypeAlias = tuple[Array, Array]  # weight (C_out, C_in, k, k) and bias (C_out,)


class Given:
    """The arrays of a PyTorch model, each of which is to be used once."""

    def __init__(self, arrays: Arrays) -> None:
        flags = ".initialized"  # of actnorms, which the operators have not
        self._left = {name: array for name, array in arrays.items() if not name.endswith(flags)}

    def take(self, name: str, shape: tuple[int, ...]) -> Array:
        """Return an array, and require that it has a shape and is finite."""
        if name not in self._left:
            raise ValueError(f"arrays: expected {name}, which is not there")
        values = self._left.pop(name)
        if values.shape != shape:
            raise ValueError(f"arrays: expected {name} of shape {shape}, got {values.shape}")
        if not np.isfinite(values).all():
            raise ValueError(f"arrays: expected finite numbers, but {name} holds NaN or inf")
        array = jnp.asarray(values)
        if values.dtype.kind == "f" and array.dtype != values.dtype:
            raise ValueError(
                f"arrays: {name} is {values.dtype}, which JAX has only after "
                f'jax.config.update("jax_enable_x64", True)'
            )
        return array

    def conv(self, name: str, outputs: int, inputs: int, size: int) -> Conv:
        """Return weight and bias of a convolution."""
        weight = self.take(f"{name}.weight", (outputs, inputs, size, size))
        return weight, self.take(f"{name}.bias", (outputs,))

    def fill(self, conv: ic.InvertibleConv, name: str) -> ic.InvertibleConv:
        """Return an operator with the arrays of these names in place of its own."""

        def given(path: Any, like: np.ndarray[Any, Any]) -> Array:
            own = jax.tree_util.keystr(path, simple=True, separator=".")
            return self.take(f"{name}.{own}", like.shape)

        filled: ic.InvertibleConv = jax.tree_util.tree_map_with_path(given, conv)
        return filled.replace()  # which looks at the arrays

    def require_none_left(self) -> None:
        """Raise if an array was not used."""
        if self._left:
            raise ValueError(f"arrays: the architecture has no {', '.join(sorted(self._left)[:9])}")
