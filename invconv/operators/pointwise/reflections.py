"""The base class of 1x1 convolutions with Householder reflections."""

from __future__ import annotations

from invconv.arrays.namespaces import Array, readable, to_numpy
from invconv.operators.base.fields import array
from invconv.operators.pointwise.conv1x1 import Pointwise


class Reflecting(Pointwise, abstract=True):
    """A 1x1 convolution with H_1 ... H_m, H_i = I - 2 v_i v_i^T / (v_i^T v_i), of rows v_i."""

    reflectors: Array = array("m", "C")

    def validate(self) -> None:
        super().validate()
        if readable(self.reflectors):
            zero = ~to_numpy(self.reflectors).any(axis=1)
            if zero.any():
                raise ValueError(
                    f"reflectors: expected no zero vector, got one in row {int(zero.argmax())}"
                )
