"""The base class of the convolutions with a kernel (C, C, *k): the weight of one factor."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

from invconv.arrays.derived import derived
from invconv.arrays.namespaces import Array
from invconv.arrays.validation import sizes
from invconv.families.family import Family
from invconv.operators.base.factors import Gradients
from invconv.operators.base.fields import array
from invconv.operators.base.operator import InvertibleConv


class WithKernel(InvertibleConv, abstract=True):
    """A map with a kernel (C, C, *k) and a bias."""

    kernel: Array = array("C", "C", "*k")
    bias: Array | None = array("C", optional=True)

    def validate(self) -> None:
        """Normalise the dilation, if the class has one, and make the family."""
        if "dilation" in self._setting_names:
            dilation = sizes("dilation", vars(self)["dilation"], len(self._kernel_size))
            object.__setattr__(self, "dilation", dilation)
        _ = self._family  # torch.compile can look a family up, but cannot make one

    @derived
    def ndim(self) -> int:
        """Return the number of spatial axes."""
        return len(self._kernel_size)

    @property
    @abstractmethod
    def _family(self) -> Any:
        """The family whose weight is the kernel."""

    def transpose(self) -> InvertibleConv:
        """Return the operator of K^T, without bias: transposed matrices, and flipped taps.

        Axes along which the kernel is even stay as they are. Along a periodic axis of even size,
        whose centre is the left one of the two middle taps, a zero tap behind the flipped ones
        moves the centre back.
        """
        return self.replace(kernel=self._family.transposed(self.kernel)[1], bias=None)

    def factors(self) -> Sequence[tuple[Family, Any]]:
        return [(self._family, self.kernel)]

    def factors_vjp(self, bars: Sequence[Any]) -> Gradients:
        return {"kernel": bars[0]}
