"""A chain of operators, one after another."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Self, overload

from invconv.arrays.errors import of_one_list
from invconv.arrays.namespaces import Array
from invconv.operators.base.calls import as_batch
from invconv.operators.base.fields import part
from invconv.operators.base.operator import InvertibleConv


class Chain(InvertibleConv):
    r"""One operator after another.

    $$K = K_n \cdots K_1, \qquad \log|\det K| = \sum_i \log|\det K_i|$$

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

    def initialize(self, x: Array) -> "Chain":
        """Return a copy whose actnorms are initialized in turn, each by what reaches it.

        So are other steps with a method ``initialize``; those without one are as they were.

        Parameters
        ----------
        x : array, shape (*batch, C, *spatial)
            The inputs of the chain.

        Raises
        ------
        ValueError
            If a channel that reaches an actnorm is constant or not finite (if values are readable).

        Examples
        --------
        >>> import numpy as np
        >>> from invconv import ActNorm, Chain, QRConv1x1
        >>> rng = np.random.default_rng(0)
        >>> x = rng.normal(3.0, 10.0, (8, 2, 16, 16))
        >>> chain = Chain([ActNorm.init(2), QRConv1x1.init(2, rng=rng), ActNorm.init(2)])
        >>> y = chain.initialize(x).forward(x)
        >>> bool(np.allclose(y.mean((0, 2, 3)), 0)), bool(np.allclose(y.std((0, 2, 3)), 1))
        (True, True)
        """
        x, steps = as_batch(self, "x", x).x, list(self.steps)
        for i, step in enumerate(steps):
            if (initialize := getattr(step, "initialize", None)) is not None:
                try:
                    steps[i] = step = initialize(x)
                except ValueError as error:
                    raise ValueError(f"step {i}: {error}") from None
            x = step.forward(x)
        return replace(self, steps=steps)

    def within(self, gain: float) -> Self:
        return replace(self, steps=[s.within(gain ** (1 / len(self))) for s in self.steps])

    def transpose(self) -> "Chain":
        """Return the transposed steps in the opposite order, without biases."""
        return Chain(tuple(step.transpose() for step in reversed(self.steps)))


Chain.__init__ = of_one_list(Chain.__init__, "steps")  # type: ignore[method-assign]
