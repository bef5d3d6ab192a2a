"""Emerging convolutions (the paper's section 3.1): two autoregressive ones in a row."""

from dataclasses import replace
from functools import partial
from typing import Self

import numpy as np

from invconv.arrays.derived import derived
from invconv.arrays.namespaces import Array
from invconv.arrays.validation import positive_int, sizes
from invconv.operators.autoregressive import AutoregressiveConv
from invconv.operators.base.fields import array, part
from invconv.operators.base.operator import InvertibleConv


class EmergingConv(InvertibleConv, mixing="emerging"):
    r"""``second`` after ``first``, two autoregressive convolutions of opposite directions.

    $$y = K_2 K_1 x + b, \qquad \log|\det K| = \log|\det K_1| + \log|\det K_2|$$

    The pair has the receptive field of a standard convolution. Kernels and directions are as in
    `AutoregressiveConv`. A point-spread function is not the kernel of either part.

    Parameters
    ----------
    first, second : AutoregressiveConv
        Their arrays are named "first.kernel", "second.kernel"; they may have biases of their own.
    bias : array, shape (C,), optional
        Added last.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> conv = EmergingConv.init(12, kernel_size=3, rng=rng)
    >>> conv.first.kernel.shape, conv.first.direction, conv.second.direction
    ((12, 12, 2, 2), (-1, -1), (1, 1))
    >>> x = rng.standard_normal((5, 12, 16, 16))
    >>> z, log_det = conv.forward_and_log_det(x)
    >>> bool(np.allclose(conv.inverse(z), x)), log_det.shape
    (True, (5,))
    """

    first: AutoregressiveConv = part()
    second: AutoregressiveConv = part()
    bias: Array | None = array("C", optional=True)

    def validate(self) -> None:
        for name in ("first", "second"):
            if not isinstance(conv := getattr(self, name), AutoregressiveConv):
                raise TypeError(
                    f"{name}: expected an AutoregressiveConv, got {type(conv).__name__}"
                )
        one, two = self.first.direction, self.second.direction
        assert isinstance(one, tuple)
        assert isinstance(two, tuple)
        if any(a != -b for a, b in zip(one, two, strict=True)):
            raise ValueError(f"second: expected the direction opposite to first's {one}, got {two}")

    @classmethod
    def init(
        cls,
        channels: int,
        kernel_size: int | tuple[int, ...] = 3,
        ndim: int = 2,
        dilation: int | tuple[int, ...] = 1,
        *,
        mask: str = "corner",
        rng: np.random.Generator | None = None,
        like: Array | None = None,
    ) -> Self:
        """Return the paper's pair: identity + N(0, 0.02^2), directions -1 then +1.

        Parameters
        ----------
        channels, ndim : int
            The number of channels, and of spatial axes.
        kernel_size : int or tuple of int
            Size of the standard convolution with the same receptive field; odd. Each part has
            (kernel_size + 1)/2 taps per axis.
        dilation, mask
            Of both parts, as for `AutoregressiveConv`.
        rng, like
            As for `Conv1x1.init`.
        """
        field = sizes("kernel_size", kernel_size, positive_int("ndim", ndim))
        if any(k % 2 == 0 for k in field):
            raise ValueError(
                f"kernel_size: expected odd sizes, since two corners of k make one of 2 k - 1, "
                f"got {kernel_size!r}"
            )
        taps = tuple((k + 1) // 2 for k in field)

        init = partial(AutoregressiveConv.init, channels, taps, ndim, mask=mask, dilation=dilation)
        first = init(direction=-1, channel_order="lower", rng=rng, like=like)
        return cls(first, init(direction=1, channel_order="upper", rng=rng, like=like))

    @derived
    def ndim(self) -> int:
        """Return the number of spatial axes."""
        return self.first.ndim

    def within(self, gain: float) -> Self:
        first, second = self.first.within(gain**0.5), self.second.within(gain**0.5)
        return replace(self, first=first, second=second)

    def transpose(self) -> "EmergingConv":
        """Return the transposed parts in the opposite order, without biases."""
        return EmergingConv(self.second.transpose(), self.first.transpose())
