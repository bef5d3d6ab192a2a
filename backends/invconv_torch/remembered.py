"""Inverses that were factored once, kept as long as the parameters stay as they were."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any, TypeAlias

import torch
from torch import nn
from torch.autograd import Function, forward_ad

import invconv as ic
from invconv.operators.base.prepared import PreparedInverse
from invconv_torch.traced import traced

Tensor: TypeAlias = torch.Tensor
Shape: TypeAlias = tuple[int, ...]

_GRIDS = 4  # how many are kept for a module


class Snapshot:
    """What a module's tensors were: their values on a CPU, else who they were and which version."""

    def __init__(self, module: nn.Module) -> None:
        self._tensors = [
            t.detach().clone() if t.device.type == "cpu" else (t, *_version(t))
            for t in _tensors(module)
        ]

    def holds(self, module: nn.Module) -> bool:
        """Tell whether the module's tensors are still the same."""
        now = _tensors(module)
        return len(now) == len(self._tensors) and all(
            _same(was, t) for was, t in zip(self._tensors, now, strict=True)
        )


def _tensors(module: nn.Module) -> list[Tensor]:
    """Return parameters, buffers, and tensors that somebody put in their places."""
    parts = [*module.modules()]
    plain = [t for part in parts for t in vars(part).values() if torch.is_tensor(t)]
    return [*module.parameters(), *module.buffers(), *plain]


def _version(t: Tensor) -> tuple[int, int]:
    return t.data_ptr(), 0 if t.is_inference() else t._version


def _same(was: Any, t: Tensor) -> bool:
    if isinstance(was, tuple):
        return was[0] is t and was[1:] == _version(t)
    alike = was.dtype == t.dtype and was.device == t.device and was.shape == t.shape
    return bool(alike and torch.equal(was, t))


class RememberedInverses:
    """The last inverses of a module, by grid."""

    def __init__(self) -> None:
        self._kept: OrderedDict[Shape, tuple[Snapshot, PreparedInverse]] = OrderedDict()

    @staticmethod
    def apply_to(module: nn.Module, z: Tensor) -> bool:
        """Tell whether tensors are what they look like: not traced, and with no tangent."""
        if traced() or type(z) not in (torch.Tensor, nn.Parameter):
            return False
        return all(forward_ad.unpack_dual(t).tangent is None for t in (z, *_tensors(module)))

    def run(
        self, module: nn.Module, conv: ic.InvertibleConv, shape: Shape, z: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return ``conv.inverse_and_log_det(z)`` for ``conv``, the module's operator."""
        kept = self._kept.pop(shape, None)
        if kept is None or not kept[0].holds(module):
            with torch.inference_mode(False), torch.no_grad():
                kept = Snapshot(module), conv.prepare(shape, check=False)
        self._kept[shape] = kept
        if len(self._kept) > _GRIDS:
            self._kept.popitem(last=False)
        named = conv.parameters()
        result: tuple[Tensor, Tensor] = _Prepared.apply(
            kept[1], conv, tuple(named), z, *named.values()
        )
        return result


class _Prepared(Function):  # type: ignore[misc]
    """A prepared inverse, with the core's own derivative."""

    @staticmethod
    def forward(
        prepared: PreparedInverse,
        conv: ic.InvertibleConv,
        names: tuple[str, ...],
        z: Tensor,
        *arrays: Tensor,
    ) -> tuple[Tensor, Tensor]:
        return prepared.inverse_and_log_det(z)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        _, ctx.conv, ctx.names, z, *arrays = inputs
        ctx.save_for_backward(z, *arrays)

    @staticmethod
    def backward(ctx: Any, x_bar: Tensor, log_det_bar: Tensor) -> tuple[Any, ...]:
        z, *arrays = ctx.saved_tensors
        conv = ctx.conv.replace(**dict(zip(ctx.names, arrays, strict=True)))
        gradients, z_bar = conv.inverse_vjp(z, x_bar.contiguous(), log_det_bar, check=False)
        return None, None, None, z_bar, *(gradients[name] for name in ctx.names)
