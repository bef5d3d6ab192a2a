"""The inverse of an operator, and its transpose, as operators."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Self

from invconv.arrays.derived import derived
from invconv.arrays.namespaces import Array, Shape, zeros
from invconv.families import path as paths
from invconv.families.path import FactorLike
from invconv.operators.base.factors import Gradients, inside, require_operator
from invconv.operators.base.fields import part
from invconv.operators.base.judgement import warn_of_loss
from invconv.operators.base.operator import InvertibleConv


class OfOne(InvertibleConv, abstract=True):
    """An operator made of another one."""

    conv: InvertibleConv = part()

    def validate(self) -> None:
        require_operator("conv", self.conv)  # not several


class Inverse(OfOne):
    r"""Forward and inverse exchanged: forward(x) solves conv(y) = x.

    $$y = K^{-1} (x - b), \qquad \log|\det K^{-1}| = -\log|\det K|$$

    Parameters
    ----------
    conv : InvertibleConv
        Its arrays are named "conv.kernel", ...

    Examples
    --------
    >>> import numpy as np
    >>> from invconv import EmergingConv
    >>> conv = EmergingConv.init(3, rng=np.random.default_rng(0))
    >>> x = np.ones((3, 8, 8))
    >>> np.allclose(Inverse(conv).forward(conv.forward(x)), x)
    True
    """

    def factors(self) -> Sequence[FactorLike]:
        return paths.inverse(self.conv._path())

    def factors_vjp(self, bars: Sequence[Any]) -> Gradients:
        return super().factors_vjp(bars[::-1])

    @derived
    def _labels(self) -> tuple[tuple[str, str], ...]:
        return inside("conv", self.conv._labels)[::-1]

    def transpose(self) -> "Inverse":
        """Return the inverse of the transposed operator, without bias."""
        return Inverse(self.conv.transpose())

    def within(self, gain: float) -> Self:
        """Raise TypeError: the inverse of an inverse is another operator's forward map."""
        raise TypeError(
            "conv: expected an operator whose class bounds its inverse, got Inverse; bound what it "
            "is the inverse of"
        )

    def _check_forward(self, shape: Shape, result: Array) -> None:
        warn_of_loss(self.conv, shape, result)


class Transposed(OfOne):
    """The operator of K^T, without bias, in the parameters of K; those of biases get no gradient.

    It is the transpose of an operator whose class has no other.

    Parameters
    ----------
    conv : InvertibleConv
        K.

    Examples
    --------
    >>> import numpy as np
    >>> from invconv import EmergingConv
    >>> from invconv.extend import Transposed
    >>> conv, x = EmergingConv.init(2, rng=np.random.default_rng(0)), np.ones((2, 4, 4))
    >>> bool(np.allclose(Transposed(conv).forward(x), conv.transpose().forward(x)))
    True
    """

    def factors(self) -> Sequence[FactorLike]:
        return paths.transposed(self.conv._path())

    def factors_vjp(self, bars: Sequence[Any]) -> Gradients:
        rest = iter(bars[::-1])
        own = [
            0 * f.w if f.is_shift else f.family.transposed_vjp(next(rest))
            for f in self.conv._path()
        ]
        return super().factors_vjp(own)

    @derived
    def _labels(self) -> tuple[tuple[str, str], ...]:
        pairs = zip(self.conv._path(), inside("conv", self.conv._labels), strict=True)
        return tuple(label for factor, label in pairs if not factor.is_shift)[::-1]

    def within(self, gain: float) -> Self:
        """See `Operator`; the transpose of an inverse has its norm."""
        return replace(self, conv=self.conv.within(gain))

    def transpose(self) -> InvertibleConv:
        """Return K, without bias."""
        return _without_bias(self.conv)


InvertibleConv._inverse, InvertibleConv._transposed = Inverse, Transposed


def _without_bias(conv: InvertibleConv) -> InvertibleConv:
    """Return a copy whose biases are None, or zeros where a class asks for one."""
    own = {
        name: None if conv._specs[name].optional else zeros(bias.shape, bias)
        for name, bias in conv._own().items()
        if name == "bias"
    }
    return conv._rebuild(own, [_without_bias(part) for part in conv._parts().values()])
