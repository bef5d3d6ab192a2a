"""What the convolutions with a kernel (C, C, *k) share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from invconv.arrays.derived import derived
from invconv.arrays.namespaces import Array, Shape
from invconv.operators.base.linear import Linear
from invconv.operators.base.operator import InvertibleConv
from invconv.operators.base.parameters import require_shape
from invconv.operators.base.protocol import Gradients


@dataclass(frozen=True, eq=False, repr=False)
class WithKernel(InvertibleConv):
    """A map with a kernel (C, C, *k), and a bias."""

    kernel: Array
    bias: Array | None = None

    _array_names = ("kernel", "bias")

    def __post_init__(self) -> None:
        self._validate_arrays()
        shape = tuple(self.kernel.shape)
        if len(shape) < 3 or shape[0] != shape[1] or min(shape) < 1:
            one = "; of one channel it is kernel[None, None]" if 1 <= len(shape) <= 2 else ""
            raise ValueError(
                f"kernel: expected shape (C, C, *k), as many outputs as inputs and at least one "
                f"spatial axis, got {shape}{one}"
            )
        if self.bias is not None:
            require_shape("bias", self.bias, (shape[0],), "one number a channel")

    @derived
    def channels(self) -> int:
        """C, the number of channels."""
        return int(self.kernel.shape[0])

    @derived
    def ndim(self) -> int:
        """Return the number of spatial axes."""
        return int(self.kernel.ndim) - 2

    @property
    def _kernel_size(self) -> Shape:
        return tuple(map(int, self.kernel.shape[2:]))  # a tracer may have its own integers


@dataclass(frozen=True, eq=False, repr=False)
class Convolution(WithKernel, Linear):
    """A map that is linear in its kernel."""

    def _weights(self) -> Array:
        return self.kernel

    def _weights_vjp(self, w_bar: Array, memo: Any = None) -> Gradients:
        return {"kernel": w_bar}
