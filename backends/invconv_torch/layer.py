"""A module that knows how its parameters begin: the base of all layers."""

import sys
from collections.abc import Callable
from functools import partial, update_wrapper
from types import FunctionType
from typing import Any, ClassVar, TypeAlias

import numpy as np
import torch

import invconv as ic
from invconv.flows.architecture import without_bias
from invconv_torch.module import InvertibleModule
from invconv_torch.native.host import gathered, shared_out
from invconv_torch.private import without_modes

Sizes: TypeAlias = int | tuple[int, ...]


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
        fresh = InvertibleModule(self._begin(), device="cpu", dtype=torch.float64).state_dict()
        own = self.state_dict(keep_vars=True)
        if missing := fresh.keys() - own.keys():
            raise RuntimeError(
                f"reset_parameters: expected parameters named {', '.join(sorted(missing))}, which "
                "this layer computes from others; reset those"
            )
        if meshes := [tensor.device_mesh for tensor in own.values() if shared_out(tensor)]:
            from torch.distributed.tensor import distribute_tensor  # what process 0 has drawn

            fresh = {name: distribute_tensor(t, meshes[0]) for name, t in fresh.items()}
        with torch.no_grad():
            for name, tensor in fresh.items():
                own[name].copy_(tensor if shared_out(own[name]) else gathered(tensor))


def _renamed(function: Any, qualified_name: str) -> Any:
    """Return the same function under the name that Python's own errors about its arguments say."""
    code = function.__code__.replace(co_qualname=qualified_name)
    copy = FunctionType(code, function.__globals__, closure=function.__closure__)
    kept = ("__annotations__", "__defaults__", "__doc__", "__kwdefaults__", "__module__")
    return update_wrapper(copy, function, assigned=kept)


def _begin(init: Callable[..., ic.InvertibleConv], bias: bool) -> ic.InvertibleConv:
    with without_modes():  # inside FakeTensorMode, too, a number and not a fake one
        seed = int(torch.randint(2**63 - 1, (), device="cpu"))
    conv = init(rng=np.random.default_rng(seed))
    return conv.replace(bias=np.zeros(conv.channels)) if bias else without_bias(conv)


class Convolution(Layer):
    """A layer with a kernel, whose subclasses of one, two and three axes add nothing else.

    They have its docstring and its ``__init__``, which Python's errors name after the subclass.
    """

    named: ClassVar[dict[str, Any]] = {}  # those of one, two and three axes
    _ndim: ClassVar[int]

    def __init_subclass__(cls, ndim: int | None = None) -> None:
        super().__init_subclass__()
        if ndim is not None:
            cls._ndim, cls.__doc__, cls.named[cls.__name__] = ndim, cls.__base__.__doc__, cls
            cls.__init__ = _renamed(cls.__init__, f"{cls.__name__}.__init__")  # type: ignore[method-assign]

    def __init__(
        self,
        init: Callable[..., ic.InvertibleConv],
        channels: int,
        kernel_size: Sizes,
        bias: bool,
        max_gain: float | None,
        device: Any,
        dtype: Any,
    ) -> None:
        init = partial(init, channels, self._sizes(kernel_size), self._ndim)
        super().__init__(init, bias, max_gain, device, dtype)

    def _sizes(self, kernel_size: Sizes) -> Sizes:
        """Return a kernel size, or raise where it is that of a layer of other axes."""
        ndim, cls = self._ndim, type(self)
        count = len(kernel_size) if isinstance(kernel_size, tuple | list) else ndim
        if count != ndim:
            other = cls.__name__.removesuffix(f"{ndim}d") + f"{count}d"
            known = hasattr(sys.modules[cls.__module__], other)
            raise ValueError(
                f"kernel_size: expected an integer, or {ndim} of them, one per spatial axis, got "
                f"{count}: {kernel_size!r}" + (f"; {other} takes so many" if known else "")
            )
        return kernel_size
