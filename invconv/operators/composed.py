"""Operators made of others: a chain of them, the inverse of one, and its transpose."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any, Self, overload

from invconv.arrays.derived import derived
from invconv.arrays.errors import of_one_list
from invconv.arrays.namespaces import Array, Shape, zeros
from invconv.families import path as paths
from invconv.families.path import FactorLike
from invconv.operators.base.factors import Gradients, inside, require_operator
from invconv.operators.base.fields import part
from invconv.operators.base.judgement import warn_of_loss
from invconv.operators.base.operator import InvertibleConv


class Chain(InvertibleConv):
    """One operator after another.

        K = K_n ... K_1,    log|det K| = sum over i of log|det K_i|

    Parameters
    ----------
    steps : sequence of InvertibleConv
        At least one; steps[0] runs first. Their arrays are named "0.weight", "1.kernel", ...

    Notes
    -----
    ``ndim`` comes from the steps that fix it, and holds for 1x1 steps with ndim=None too.
    1x1 steps without bias are multiplied with each other and with the next kernel first; these
    products must not overflow.
    ``condition`` is the number of the whole map, which is not the product of the steps' numbers. If
    one step is singular and another is the inverse of a singular operator, the map does not exist:
    ``log_det`` is NaN, and ``forward`` and ``inverse`` raise SingularConvError.

    Examples
    --------
    The paper's flow step mixes channels before it convolves:

    >>> import numpy as np
    >>> from invconv import Chain, EmergingConv, QRConv1x1
    >>> rng = np.random.default_rng(0)
    >>> conv = Chain([QRConv1x1.init(4, rng=rng), EmergingConv.init(4, rng=rng)])
    >>> x = rng.standard_normal((2, 4, 8, 8))
    >>> bool(np.allclose(conv.inverse(conv.forward(x)), x))
    True
    """

    steps: Sequence[InvertibleConv] = part()

    def __post_init__(self) -> None:
        if isinstance(self.steps, InvertibleConv):
            raise TypeError("steps: expected a list of operators, got one operator; use [conv]")
        if not isinstance(self.steps, Iterable):
            raise TypeError(f"steps: expected a list of operators, got {self.steps!r}")
        steps = tuple(self.steps)
        if not steps:
            raise ValueError("steps: expected at least one operator, got none")
        object.__setattr__(self, "steps", steps)
        super().__post_init__()

    def __len__(self) -> int:
        return len(self.steps)

    def __iter__(self) -> Iterator[InvertibleConv]:
        return iter(self.steps)

    @overload
    def __getitem__(self, index: int) -> InvertibleConv: ...
    @overload
    def __getitem__(self, index: slice) -> "Chain": ...
    def __getitem__(self, index: int | slice) -> InvertibleConv:
        if isinstance(index, slice):
            return Chain(tuple(self.steps)[index])
        return self.steps[index]

    def within(self, gain: float) -> Self:
        return replace(self, steps=[s.within(gain ** (1 / len(self))) for s in self.steps])

    def transpose(self) -> "Chain":
        """Return the transposed steps in the opposite order, without biases."""
        return Chain(tuple(step.transpose() for step in reversed(self.steps)))


Chain.__init__ = of_one_list(Chain.__init__, "steps")  # type: ignore[method-assign]


class OfOne(InvertibleConv, abstract=True):
    """An operator made of another one."""

    conv: InvertibleConv = part()

    def validate(self) -> None:
        require_operator("conv", self.conv)  # not several


class Inverse(OfOne):
    """Forward and inverse exchanged: forward(x) solves conv(y) = x.

        y = K^-1 (x - b),    log det = -log|det K|

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


def _without_bias(conv: InvertibleConv) -> InvertibleConv:
    """Return a copy whose biases are None, or zeros where a class asks for one."""
    own = {
        name: None if conv._specs[name].optional else zeros(bias.shape, bias)
        for name, bias in conv._own().items()
        if name == "bias"
    }
    return conv._rebuild(own, [_without_bias(part) for part in conv._parts().values()])
