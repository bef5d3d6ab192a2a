"""Base classes of the convolutions with a kernel (C, C, *k)."""

from __future__ import annotations

from typing import Any

from invconv.arrays.namespaces import Array, size
from invconv.kernels import maps, rules
from invconv.kernels.primitives import matmul, shifted
from invconv.operators.base.fields import array
from invconv.operators.base.linear import Linear
from invconv.operators.base.operator import InvertibleConv
from invconv.operators.base.protocol import BOTH, Gradients


class WithKernel(InvertibleConv, abstract=True):
    """A map with a kernel (C, C, *k) and a bias."""

    kernel: Array = array("C", "C", "*k")
    bias: Array | None = array("C", optional=True)


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
