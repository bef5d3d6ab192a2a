"""Base classes of the convolutions with a kernel (C, C, *k)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from invconv.arrays.derived import derived
from invconv.arrays.namespaces import Array, Shape, size
from invconv.kernels import maps, rules
from invconv.kernels.primitives import matmul, shifted
from invconv.operators.base.linear import Linear
from invconv.operators.base.operator import InvertibleConv
from invconv.operators.base.parameters import require_shape
from invconv.operators.base.protocol import BOTH, Gradients


@dataclass(frozen=True, eq=False, repr=False)
class WithKernel(InvertibleConv, abstract=True):
    """A map with a kernel (C, C, *k) and a bias."""

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

    @derived
    def _stacked(self) -> str | None:
        # a further axis of the kernel may be spatial: compare it with the dilation and the bias
        outputs, inputs, *sizes = self.kernel.shape
        axes = len(getattr(self, "dilation", sizes))
        biases = 1 if self.bias is None else self.bias.ndim
        return "kernel" if outputs != inputs or axes != len(sizes) or biases > 1 else None

    @property
    def _kernel_size(self) -> Shape:
        return tuple(map(int, self.kernel.shape[2:]))  # a tracer may have its own integers


@dataclass(frozen=True, eq=False, repr=False)
class Convolution(WithKernel, Linear, abstract=True):
    """A map that is linear in its kernel."""

    def _weights(self) -> Array:
        return self.kernel

    def _weights_vjp(self, w_bar: Array, memo: Any = None) -> Gradients:
        return {"kernel": w_bar}

    def _free(self, x: Array) -> Any:
        """Return the family of K W for C x C matrices W, or None if K (W x) is less work."""
        free = getattr(self._family, "free", None)
        fewer = free is not None and len(free.offsets) < x.shape[0] * size(x.shape[2:])
        return free if fewer else None

    def _taps(self) -> Array:
        family: Any = self._family
        return family.taps(self.kernel)

    def _apply_after(self, weight: Array, x: Array) -> Array:
        family = self._free(x)
        if family is None:
            return super()._apply_after(weight, x)
        return maps.apply(family, matmul(self._taps(), weight), x)

    def _forward_after_saving(self, weight: Array, x: Array) -> tuple[Array, Any]:
        family = self._free(x)
        if family is None:
            return super()._forward_after_saving(weight, x)
        taps = self._taps()
        after = matmul(taps, weight)
        y, bias = maps.apply(family, after, x), self.bias
        return y if bias is None else shifted(y, bias), (weight, x, taps, after)

    def _forward_after_vjp(
        self, memo: Any, y_bar: Array, wanted: tuple[bool, bool] = BOTH
    ) -> tuple[Gradients, Array, Array]:
        family: Any = self._free(y_bar)
        if family is None:
            return super()._forward_after_vjp(memo, y_bar, wanted)
        weight, x, taps, after = memo
        after_bar, x_bar = rules.apply_vjp(family, after, x, y_bar, wanted)
        if not wanted[0]:
            return {}, None, x_bar
        taps_bar, weight_bar = rules.matmul_vjp(taps, weight, after_bar, BOTH)
        own: Any = self._family
        gradients = self._weights_vjp(own.kernel(taps_bar))
        return self._with_bias_gradient(gradients, y_bar, 1), weight_bar, x_bar
