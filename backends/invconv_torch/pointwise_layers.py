"""The base of all layers, and those without a kernel: 1x1 convolutions, actnorm, and squeezes."""

from collections.abc import Callable
from functools import partial
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

import invconv as ic
from invconv.arrays.validation import positive_int
from invconv.flows.architecture import without_bias
from invconv.operators.base.fields import mixings, require_mixing
from invconv_torch.module import Described, InvertibleModule
from invconv_torch.native.host import device_kind, gathered, shared_out
from invconv_torch.private import without_modes

Init: TypeAlias = Callable[..., ic.InvertibleConv]


class Layer(InvertibleModule):
    """A module that can draw its initial parameters: the base of all layers."""

    def __init__(
        self, init: Init, bias: bool, max_gain: float | None, device: Any, dtype: Any
    ) -> None:
        self._begin = partial(_begin, init, bias)
        dtype = dtype or torch.get_default_dtype()
        super().__init__(self._begin(), max_gain=max_gain, device=device, dtype=dtype)

    def reset_parameters(self) -> None:
        """Draw the parameters anew, as at the start.

        Examples
        --------
        >>> from invconv_torch import Conv1x1
        >>> layer = Conv1x1(3)
        >>> before = layer.weight.detach().clone()
        >>> layer.reset_parameters()
        >>> torch.equal(layer.weight, before)
        False
        """
        # rounded by the copy: the layer's own tensors may be memory that is not filled yet
        fresh = InvertibleModule(self._begin(), device="cpu", dtype=torch.float64).state_dict()
        own = self.state_dict(keep_vars=True)
        if missing := fresh.keys() - own.keys():
            raise RuntimeError(
                f"reset_parameters: expected parameters named {', '.join(sorted(missing))}, which "
                "this layer computes from others; reset those"
            )
        if meshes := [tensor.device_mesh for tensor in own.values() if shared_out(tensor)]:
            from torch.distributed.tensor import distribute_tensor  # sends process 0's values

            fresh = {name: distribute_tensor(t, meshes[0]) for name, t in fresh.items()}
        with torch.no_grad():
            for name, tensor in fresh.items():
                own[name].copy_(tensor if shared_out(own[name]) else gathered(tensor))


def _begin(init: Init, bias: bool) -> ic.InvertibleConv:
    with without_modes():  # a real number, inside FakeTensorMode too
        seed = int(torch.randint(2**63 - 1, (), device="cpu"))
    conv = init(rng=np.random.default_rng(seed))
    return conv.replace(bias=np.zeros(conv.channels)) if bias else without_bias(conv)


class Conv1x1(Layer):
    """One C x C matrix at every pixel, for any number of spatial axes.

    The equations: `invconv.Conv1x1`, `invconv.PLUConv1x1`, `invconv.QRConv1x1`, ...

    Parameters
    ----------
    channels : int
    parametrization : {"plain", "plu", "qr", "orthogonal", "circulant", "householder"}
        The matrix itself, or its factors, whose determinant costs little; or reflections. Or the
        ``mixing`` of a class of your own, an `invconv.extend.Pointwise`.
    bias : bool
    ndim : int, optional
        The number of spatial axes; then any number of batch axes, or none, may come before the
        channels. Without it images have one batch axis and any number of spatial axes.
    max_gain, device, dtype : optional
        See `InvertibleModule`.

    Examples
    --------
    >>> import torch
    >>> from invconv_torch import Conv1x1
    >>> layer = Conv1x1(3, "qr")
    >>> x = torch.randn(5, 3, 8, 8)
    >>> z, log_det = layer(x)
    >>> torch.allclose(layer.inverse(z)[0], x, atol=1e-5)
    True
    """

    def __init__(
        self,
        channels: int,
        parametrization: str = "plain",
        *,
        bias: bool = True,
        ndim: int | None = None,
        max_gain: float | None = None,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        matrices = mixings(ic.extend.Pointwise)
        require_mixing("parametrization", parametrization, matrices)
        init = partial(matrices[parametrization].init, channels, ndim=ndim)
        super().__init__(init, bias, max_gain, device, dtype)


class ActNorm(Layer):
    """A scale and a shift per channel; the identity at the start, unless `initialize` is called.

    Parameters
    ----------
    channels : int
    bias : bool
    ndim : int, optional
        As for `Conv1x1`.
    max_gain, device, dtype : optional
        See `InvertibleModule`.

    Attributes
    ----------
    initialized : real tensor, shape ()
        1 if `initialize` chose the parameters, else 0; in the ``state_dict``.

    Examples
    --------
    >>> from invconv_torch import ActNorm
    >>> layer = ActNorm(3)
    >>> x = torch.randn(5, 3, 8, 8)
    >>> z, log_det = layer(x)
    >>> torch.equal(z, x), log_det.tolist()
    (True, [0.0, 0.0, 0.0, 0.0, 0.0])
    """

    def __init__(
        self,
        channels: int,
        *,
        bias: bool = True,
        ndim: int | None = None,
        max_gain: float | None = None,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        init = partial(ic.ActNorm.init, channels, ndim=ndim)
        super().__init__(init, bias, max_gain, device, dtype)
        place = self.log_scale.device
        # a real number: averages of buffers, as in `AveragedModel`, would truncate an integer
        self.register_buffer("initialized", torch.zeros((), dtype=torch.float32, device=place))

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def initialize(self, x: Tensor) -> None:
        """Choose scale and shift so that z has mean 0 and variance 1 for these images, once.

        A layer that was initialized, or loaded from one that was, is left as it is. If there are
        several processes, one calls it, and the others load its ``state_dict``. With ``max_gain``
        the scale is then brought within the bound.

        Parameters
        ----------
        x : tensor, shape (B, C, *spatial)
            The images that reach this layer.

        Raises
        ------
        ValueError
            If a channel is constant or not finite (on a CPU).
        RuntimeError
            If a parametrization has no ``right_inverse``.

        Examples
        --------
        >>> import torch
        >>> from invconv_torch import ActNorm, EmergingConv2d
        >>> x, flow = torch.randn(64, 3, 8, 8), [EmergingConv2d(3), ActNorm(3)]
        >>> for layer in flow:
        ...     if isinstance(layer, ActNorm):
        ...         layer.initialize(x)
        ...     x, _ = layer(x)
        """
        if not self.initialized:
            super().initialize(x)
            self.initialized.fill_(1)

    def reset_parameters(self) -> None:
        """Return to the identity, which counts as not initialized."""
        super().reset_parameters()
        with torch.no_grad():
            self.initialized.fill_(0)


class Squeeze(Described):
    """A layer that turns blocks of factor^ndim pixels into channels; the log-determinant is 0.

    Parameters
    ----------
    factor : int
    ndim : int
        The number of spatial axes.
    basis : {"pixels", "haar", "dct"}
        As for `invconv.squeeze`.

    Examples
    --------
    >>> import torch
    >>> from invconv_torch import Squeeze
    >>> layer = Squeeze(basis="haar")
    >>> x = torch.randn(5, 3, 8, 8)
    >>> z, log_det = layer(x)
    >>> z.shape, torch.allclose(layer.inverse(z)[0], x, atol=1e-5)
    (torch.Size([5, 12, 4, 4]), True)
    """

    def __init__(self, factor: int = 2, *, ndim: int = 2, basis: str = "pixels") -> None:
        super().__init__()
        factor, ndim = positive_int("factor", factor), positive_int("ndim", ndim)
        block = torch.zeros(1, *[factor] * ndim, device="meta")
        ic.squeeze(block, factor, ndim=ndim, basis=basis)  # validates the settings
        self._settings: dict[str, Any] = {"factor": factor, "ndim": ndim, "basis": str(basis)}
        self._kind = {"class": "Squeeze"} | self._settings

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return z, shape (*batch, C f^ndim, *(spatial / f)), and zeros, shape batch."""
        device_kind("x", x)
        return ic.squeeze(x, **self._settings), self._log_det(x)

    def inverse(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Return x, shape (*batch, C, *spatial), and zeros, shape batch."""
        device_kind("z", z)
        return ic.unsqueeze(z, **self._settings), self._log_det(z)

    def _log_det(self, x: Tensor) -> Tensor:
        return x.new_zeros(x.shape[: x.ndim - 1 - self._settings["ndim"]])
