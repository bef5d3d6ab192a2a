"""A module that knows how its parameters begin: the base of all layers."""

from __future__ import annotations

import inspect
import itertools
import sys
from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar

import numpy as np
import torch

import invconv as ic
from invconv_torch.module import InvertibleModule
from invconv_torch.private import without_modes


class Layer(InvertibleModule):
    """A module that knows how its parameters begin."""

    def __init__(
        self,
        init: Callable[..., ic.InvertibleConv],
        bias: bool,
        max_gain: float | None,
        device: Any,
        dtype: Any,
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
        # rounded when it is copied: what is here may be memory that nobody has filled yet
        fresh = InvertibleModule(self._begin(), dtype=torch.float64).state_dict()
        own = self.state_dict(keep_vars=True)
        if missing := fresh.keys() - own.keys():
            raise RuntimeError(
                f"reset_parameters: expected parameters named {', '.join(sorted(missing))}, which "
                "this layer computes from others; reset those"
            )
        with torch.no_grad():
            for name, tensor in fresh.items():
                own[name].copy_(tensor)


def _begin(init: Callable[..., ic.InvertibleConv], bias: bool) -> ic.InvertibleConv:
    with without_modes():  # inside FakeTensorMode, too, a number and not a fake one
        seed = int(torch.randint(2**63 - 1, (), device="cpu"))
    conv = init(rng=np.random.default_rng(seed))
    return conv.replace(bias=np.zeros(conv.channels) if bias else None)


_EVERY = """
    max_gain, device, dtype : optional
        See `InvertibleModule`.

    Examples
    --------
    >>> import torch, invconv_torch
    >>> layer, x = invconv_torch.{name}(3), torch.randn(5, 3{grid})
    >>> z, log_det = layer(x)
    >>> torch.allclose(layer.inverse(z)[0], x, atol=1e-5)
    True
    """  # the end of each layer's docstring


class Convolution(Layer):
    """A layer with a kernel.

    A subclass adds its docstring, its class of operators (``of``), and the arguments of that one's
    ``init``. Its subclasses of one, two and three axes (``ndim``) add an example.
    """

    _of: ClassVar[Any]
    _ndim: ClassVar[int]

    def __init_subclass__(cls, of: Any = None, ndim: int | None = None) -> None:
        super().__init_subclass__()
        if of is not None:
            cls._of, cls.__signature__ = of, _signature(cls, of)
        if ndim is not None:
            cls._ndim, grid = ndim, ", 8" * ndim
            described = str(cls.__base__.__doc__).rstrip()
            cls.__doc__ = described + _EVERY.format(name=cls.__name__, grid=grid)

    def __init__(
        self,
        *sizes: Any,
        bias: bool = True,
        max_gain: float | None = None,
        device: Any = None,
        dtype: Any = None,
        **settings: Any,
    ) -> None:
        try:
            given = inspect.signature(type(self)).bind(*sizes, **settings)
        except TypeError as error:
            raise TypeError(f"{type(self).__name__}.__init__() {error}") from None
        given.apply_defaults()
        own = inspect.signature(self._of.init).parameters
        init = partial(self._of.init, ndim=self._ndim)
        init.keywords.update({n: v for n, v in given.arguments.items() if n in own})
        self._require_size(given.arguments["kernel_size"])
        super().__init__(init, bias, max_gain, device, dtype)

    def _require_size(self, kernel_size: Any) -> None:
        """Raise if a kernel size is that of a layer of other axes."""
        ndim, cls = self._ndim, type(self)
        count = len(kernel_size) if isinstance(kernel_size, tuple | list) else ndim
        if count != ndim:
            other = cls.__name__.removesuffix(f"{ndim}d") + f"{count}d"
            known = hasattr(sys.modules[cls.__module__], other)
            raise ValueError(
                f"kernel_size: expected an integer, or {ndim} of them, one per spatial axis, got "
                f"{count}: {kernel_size!r}" + (f"; {other} takes so many" if known else "")
            )


def _signature(cls: type[Convolution], of: Any) -> inspect.Signature:
    """Return the arguments of an operator's ``init``, and those of the layer, by keyword."""
    own = inspect.signature(of.init).parameters.values()
    layers = [inspect.signature(c.__init__).parameters.values() for c in (cls, Convolution)]
    named = [p for p in itertools.chain(*layers) if p.kind is p.KEYWORD_ONLY]
    sizes = [p for p in own if p.name in ("channels", "kernel_size")]
    settings = [p for p in own if p.name not in ("channels", "kernel_size", "ndim", "rng", "like")]
    keywords = {p.name: p.replace(kind=p.KEYWORD_ONLY) for p in (*settings, *named)}
    return inspect.Signature([*sizes, *keywords.values()])
