"""The layers with a kernel, with the arguments that PyTorch's users expect.

Each is initialised as in the paper, from PyTorch's random generator.
"""

from functools import partial
from typing import Any, ClassVar, TypeAlias

import invconv as ic
from invconv.operators.base.fields import mixings, require_mixing
from invconv_torch.module import Read
from invconv_torch.pointwise_layers import Conv1x1, Init, Layer

Sizes: TypeAlias = int | tuple[int, ...]


class Convolution(Layer):
    """The base of layers with a kernel, each of which has subclasses for one, two and three axes.

    A kernel's size may be the second argument without its name, unless it is even and 8 or more, or
    is even where it has to be odd: that is taken for a number of channels, and raises.

    The subclasses take the layer's docstring and ``__init__``, and add nothing else.
    """

    named: ClassVar[dict[str, Any]] = {}  # the subclasses for one, two and three axes
    _ndim: ClassVar[int]
    _channels_from: ClassVar[int] = 8  # even numbers from here on are no kernel's size if not named

    def __init_subclass__(cls, ndim: int | None = None) -> None:
        super().__init_subclass__()
        if ndim is not None:
            cls._ndim, cls.__doc__, cls.named[cls.__name__] = ndim, cls.__base__.__doc__, cls

    def __new__(cls, *given: Any, **named: Any) -> Any:
        """Raise if a second number of channels is passed, as `torch.nn.Conv2d` takes it."""
        if cls.__module__ == __name__ and len(given) > 1:  # not for a user's subclass
            size, twice = given[1], len(given) > 2 or "kernel_size" in named
            like = isinstance(size, int) and size % 2 == 0 and size >= cls._channels_from
            if twice or like:
                name = cls.__name__
                raise TypeError(
                    f"{name}{given}: expected one number of channels, since as many come out as go "
                    f"in; say the kernel's size by name, as in {name}({given[0]}, kernel_size=3)"
                )
        return super().__new__(cls)

    def __init__(self, init: Init, channels: int, kernel_size: Sizes, *others: Any) -> None:
        """Draw a kernel of this size along the layer's axes; pass the others to `Layer`."""
        ndim, name = self._ndim, type(self).__name__
        count = len(kernel_size) if isinstance(kernel_size, tuple | list) else ndim
        if count != ndim:
            other = name.removesuffix(f"{ndim}d") + f"{count}d"
            raise ValueError(
                f"kernel_size: expected an integer, or {ndim} of them, one per spatial axis, got "
                f"{count}: {kernel_size!r}"
                + (f"; {other} takes so many" if other in self.named else "")
            )
        super().__init__(partial(init, channels, kernel_size, ndim), *others)


class AutoregressiveConv(Convolution):
    """A convolution that sees only pixels on one side of each pixel, zero outside the grid.

    With direction -1 it is a cross-correlation with its kernel, with +1 a convolution:
    `invconv.AutoregressiveConv` shows how to pass a point-spread function. Run a long signal or a
    tall image in blocks: ``forward`` and ``inverse`` of ``layer.operator()`` take ``before=``.

    Parameters
    ----------
    channels : int
    kernel_size : int or tuple of int
        Taps along each axis, the pixel itself included; a raster of 2 has a kernel (2, 3, ...).
    dilation : int or tuple of int
    bias : bool
    mask : {"corner", "raster"}
        Which pixels it sees; `invconv.AutoregressiveConv` shows them, by mask and direction.
    direction : int or tuple of int
        +1 or -1, per axis for corners.
    channel_order : {"lower", "upper"}
        The triangle in which the C x C matrix at the pixel itself is nonzero.
    max_gain, device, dtype : optional
        See `InvertibleModule`.

    Examples
    --------
    >>> import torch
    >>> from invconv_torch import AutoregressiveConv2d
    >>> layer = AutoregressiveConv2d(3, kernel_size=2, mask="raster")
    >>> x = torch.randn(5, 3, 8, 8)
    >>> z, log_det = layer(x)
    >>> torch.allclose(layer.inverse(z)[0], x, atol=1e-5)
    True
    """

    def __init__(
        self,
        channels: int,
        kernel_size: Sizes = 2,
        *,
        dilation: Sizes = 1,
        bias: bool = True,
        mask: str = "corner",
        direction: Sizes = 1,
        channel_order: str = "lower",
        max_gain: float | None = None,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        init = partial(ic.AutoregressiveConv.init, dilation=dilation, mask=mask)
        init = partial(init, direction=direction, channel_order=channel_order)
        super().__init__(init, channels, kernel_size, bias, max_gain, device, dtype)


class EmergingConv(Convolution):
    """Two autoregressive convolutions of opposite directions: a standard one's receptive field.

    Their directions are -1 and +1, as `invconv.AutoregressiveConv` shows them. The equations:
    `invconv.EmergingConv`.

    Parameters
    ----------
    channels : int
    kernel_size : int or tuple of int
        The size of the standard convolution with the same receptive field; odd.
    dilation : int or tuple of int
    bias : bool
        Added last.
    mask : {"corner", "raster"}
        The mask of both convolutions.
    mixing : str or None
        The parametrisation of a 1x1 convolution before the pair, as in the paper: "plain", "plu",
        "qr", ..., as `Conv1x1` has them.
    max_gain, device, dtype : optional
        See `InvertibleModule`.

    Examples
    --------
    >>> import torch
    >>> from invconv_torch import EmergingConv2d
    >>> layer = EmergingConv2d(3, kernel_size=5, mixing="qr")
    >>> x = torch.randn(5, 3, 8, 8)
    >>> z, log_det = layer(x)
    >>> torch.allclose(layer.inverse(z)[0], x, atol=1e-5)
    True
    """

    _channels_from = 2

    def __init__(
        self,
        channels: int,
        kernel_size: Sizes = 3,
        *,
        dilation: Sizes = 1,
        bias: bool = True,
        mask: str = "corner",
        mixing: str | None = None,
        max_gain: float | None = None,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        init = partial(ic.EmergingConv.init, dilation=dilation, mask=mask)
        super().__init__(init, channels, kernel_size, bias, max_gain, device, dtype)
        self._chain: Any = None  # as `_static` and `_kinds`, for both steps
        self._chain_kinds: list[Any] | None = None
        self.mixing = None
        if mixing is not None:
            require_mixing("mixing", mixing, mixings(ic.extend.Pointwise))
            self.mixing = Conv1x1(channels, mixing, bias=False, device=device, dtype=dtype)

    def _current(
        self, traced: bool, read: Read | None = None, *, within: bool = True
    ) -> ic.InvertibleConv:
        if self.mixing is None:
            return super()._current(traced, read, within=within)
        steps = self.mixing._current(traced, read), super()._current(traced, read, within=False)
        kinds = [self.mixing._kinds, self._kinds]
        if traced or kinds != self._chain_kinds:
            chain = ic.Chain(steps)
            if not traced:
                self._chain, self._chain_kinds = chain._primed(), kinds
        if not traced:
            chain = self._chain._with({}, steps)
        return chain if self._max_gain is None or not within else ic.bounded(chain, self._max_gain)

    def reset_parameters(self) -> None:
        """Draw the parameters anew, as at the start."""
        super().reset_parameters()
        if self.mixing is not None:
            self.mixing.reset_parameters()


class PeriodicConv(Convolution):
    """A convolution with circular padding.

    Its kernel is a cross-correlation, as in `torch.nn.Conv2d`: flip a point-spread function. The
    equations: `invconv.PeriodicConv`.

    Parameters
    ----------
    channels : int
    kernel_size : int or tuple of int
        Odd, even, or wider than the grid.
    dilation : int or tuple of int
    bias : bool
    max_gain, device, dtype : optional
        See `InvertibleModule`.

    Examples
    --------
    >>> import torch
    >>> from invconv_torch import PeriodicConv2d
    >>> layer = PeriodicConv2d(3, kernel_size=3)
    >>> x = torch.randn(5, 3, 8, 8)
    >>> z, log_det = layer(x)
    >>> torch.allclose(layer.inverse(z)[0], x, atol=1e-5)
    True
    """

    def __init__(
        self,
        channels: int,
        kernel_size: Sizes = 3,
        *,
        dilation: Sizes = 1,
        bias: bool = True,
        max_gain: float | None = None,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        init = partial(ic.PeriodicConv.init, dilation=dilation)
        super().__init__(init, channels, kernel_size, bias, max_gain, device, dtype)


class SymmetricConv(Convolution):
    """A convolution of an even kernel with an image that is continued beyond its border.

    Parameters
    ----------
    channels : int
    kernel_size : int or tuple of int
        The size of the whole kernel, odd; the parameter has (kernel_size + 1)/2 taps per axis.
        Along a periodic axis it may be even, and the parameter has all taps.
    boundary : {"symmetric", "mirror", "odd", "zero", "periodic"} or tuple of these, one per axis
        See `invconv.SymmetricConv`.
    bias : bool
    max_gain, device, dtype : optional
        See `InvertibleModule`.

    Examples
    --------
    >>> import torch
    >>> from invconv_torch import SymmetricConv2d
    >>> layer = SymmetricConv2d(3, kernel_size=3)
    >>> x = torch.randn(5, 3, 8, 8)
    >>> z, log_det = layer(x)
    >>> torch.allclose(layer.inverse(z)[0], x, atol=1e-5)
    True
    """

    def __init__(
        self,
        channels: int,
        kernel_size: Sizes = 3,
        *,
        boundary: str | tuple[str, ...] = "symmetric",
        bias: bool = True,
        max_gain: float | None = None,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        init = partial(ic.SymmetricConv.init, boundary=boundary)
        super().__init__(init, channels, kernel_size, bias, max_gain, device, dtype)

    def extra_repr(self) -> str:
        """Return channels, the size of the whole kernel, and settings as text."""
        taps = tuple(self.kernel.shape[2:])
        pairs = zip(taps, self._settings["boundary"], strict=True)
        whole = tuple(k if word == "periodic" else 2 * k - 1 for k, word in pairs)
        return str(super().extra_repr()).replace(f"kernel_size={taps}", f"kernel_size={whole}")


class ExponentialConv(Convolution):
    r"""The exponential of a convolution: invertible with every kernel, on every grid.

    $$z = e^M x + b, \qquad \log|\det e^M| = \text{tr}\, M$$

    M is a cross-correlation, as in `torch.nn.Conv2d`. A new layer is nearly the identity. For its
    time and memory see `invconv.ExponentialConv`.

    Parameters
    ----------
    channels : int
    kernel_size : int or tuple of int
        Odd; it may be wider than the grid.
    padding : {"zeros", "circular"}
        The pixels that M reads beyond the border.
    dilation : int or tuple of int
    bias : bool
    max_gain, device, dtype : optional
        See `InvertibleModule`.

    Examples
    --------
    >>> import torch
    >>> from invconv_torch import ExponentialConv2d
    >>> layer = ExponentialConv2d(3, kernel_size=3)
    >>> x = torch.randn(5, 3, 8, 8)
    >>> z, log_det = layer(x)
    >>> torch.allclose(layer.inverse(z)[0], x, atol=1e-5)
    True
    """

    _channels_from = 2

    def __init__(
        self,
        channels: int,
        kernel_size: Sizes = 3,
        *,
        padding: str = "zeros",
        dilation: Sizes = 1,
        bias: bool = True,
        max_gain: float | None = None,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        init = partial(ic.ExponentialConv.init, padding=padding, dilation=dilation)
        super().__init__(init, channels, kernel_size, bias, max_gain, device, dtype)


# fmt: off
class AutoregressiveConv1d(AutoregressiveConv, ndim=1): ...  # noqa: D101
class AutoregressiveConv2d(AutoregressiveConv, ndim=2): ...  # noqa: D101
class AutoregressiveConv3d(AutoregressiveConv, ndim=3): ...  # noqa: D101
class EmergingConv1d(EmergingConv, ndim=1): ...  # noqa: D101
class EmergingConv2d(EmergingConv, ndim=2): ...  # noqa: D101
class EmergingConv3d(EmergingConv, ndim=3): ...  # noqa: D101
class PeriodicConv1d(PeriodicConv, ndim=1): ...  # noqa: D101
class PeriodicConv2d(PeriodicConv, ndim=2): ...  # noqa: D101
class PeriodicConv3d(PeriodicConv, ndim=3): ...  # noqa: D101
class SymmetricConv1d(SymmetricConv, ndim=1): ...  # noqa: D101
class SymmetricConv2d(SymmetricConv, ndim=2): ...  # noqa: D101
class SymmetricConv3d(SymmetricConv, ndim=3): ...  # noqa: D101
class ExponentialConv1d(ExponentialConv, ndim=1): ...  # noqa: D101
class ExponentialConv2d(ExponentialConv, ndim=2): ...  # noqa: D101
class ExponentialConv3d(ExponentialConv, ndim=3): ...  # noqa: D101
