"""The base class of the convolutions with a kernel (C, C, *k): the weight of one factor."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

from invconv.arrays.derived import derived
from invconv.arrays.namespaces import Array
from invconv.families.family import Family
from invconv.operators.base.factors import Gradients
from invconv.operators.base.fields import array
from invconv.operators.base.operator import InvertibleConv


class WithKernel(InvertibleConv, abstract=True):
    """A map with a kernel (C, C, *k) and a bias."""

    kernel: Array = array("C", "C", "*k")
    bias: Array | None = array("C", optional=True)

    @derived
    def ndim(self) -> int:
        """Return the number of spatial axes."""
        return len(self._kernel_size)

    @property
    @abstractmethod
    def _family(self) -> Family:
        """The family whose weight is the kernel."""

    def factors(self) -> Sequence[tuple[Family, Any]]:
        return [(self._family, self.kernel)]

    def factors_vjp(self, bars: Sequence[Any]) -> Gradients:
        return {"kernel": bars[0]}
