"""An operator of the core as a module of PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.func import functional_call

from invconv.operators.base.calls import PreparedInverse, as_batch
from invconv.operators.base.operator import evaluate
from invconv_torch.exporting import constant
from invconv_torch.exporting.graphs import values_of
from invconv_torch.native.host import laid_out
from invconv_torch.native.whole import invert
from invconv_torch.parameters import OperatorParameters
from invconv_torch.precision import AUTOCAST, autocasting, require_alike
from invconv_torch.private import is_tracing
from invconv_torch.remembered import RememberedInverses, may_be_kept
from invconv_torch.traced import (
    PLAIN,
    TRACERS,
    device_kind,
    exporting_to_onnx,
    refused_trace,
    traced,
)

Pair: TypeAlias = tuple[Tensor, Tensor]


class InvertibleModule(OperatorParameters):
    """A module with the arrays of any operator of the core as parameters.

    Each direction returns its own log-determinants, one number per sample, float32 for half types.
    Under autocast the work is done in the parameters' dtype; nothing else is promoted.

    In eval mode an inverse is factored once for each of the last grids and reused until a parameter
    changes. On a CPU the parameters are compared by value, so the inverse is never out of date. On
    an accelerator they are compared by identity and version. All of PyTorch's own updates change
    the version; edits through ``.data``, replayed graphs and FSDP do not: call ``train()`` and
    ``eval()`` after them. Compiled code and `torch.func` always factor.

    Parameters
    ----------
    conv : invconv.InvertibleConv
        An operator of NumPy or PyTorch arrays; they are copied.
    max_gain : float, optional
        The largest gain of the inverse, by `invconv.bounded`. An operator with a bound, from
        `invconv.bounded` or `invconv.load`, keeps its own.
    device, dtype : optional
        The device and dtype of ``conv`` unless given; for NumPy arrays PyTorch's default device.

    Examples
    --------
    >>> import numpy as np
    >>> from invconv import Chain, PeriodicConv, QRConv1x1
    >>> from invconv_torch import InvertibleModule
    >>> rng = np.random.default_rng(0)
    >>> chain = Chain([QRConv1x1.init(3, rng=rng), PeriodicConv.init(3, rng=rng)])
    >>> layer = InvertibleModule(chain, dtype=torch.float32)
    >>> z, log_det = layer(torch.ones(5, 3, 8, 8))
    >>> x, inverse_log_det = layer.inverse(z)
    >>> [name for name, _ in layer.named_parameters()]
    ['0.reflectors', '0.upper', '0.scale', '1.kernel']
    """

    _inverses: RememberedInverses | None = None

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return z = K x + b and log|det K|.

        Parameters
        ----------
        x : tensor, shape (B, C, *spatial)

        Returns
        -------
        z : tensor, shape (B, C, *spatial)
        log_det : tensor, shape (B,)
        """
        return self._call(self._forward, "x", x)

    def inverse(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Return x = K^-1 (z - b) and log|det K^-1|.

        ``layer.operator().prepare(shape)`` and `invconv.diagnose` judge the inverse, this does not.

        Parameters
        ----------
        z : tensor, shape (B, C, *spatial)

        Returns
        -------
        x : tensor, shape (B, C, *spatial)
        log_det : tensor, shape (B,)
        """
        return self._call(self._inverse, "z", z)

    def _call(self, run: Callable[[Tensor, bool], Pair], name: str, x: Tensor) -> Pair:
        """Run a direction, in the parameters' dtype under autocast, else in the dtype of x."""
        kind = x.device.type if isinstance(x, torch.Tensor) else device_kind(name, x)
        if type(x) not in PLAIN and hasattr(x, "placements"):
            return _on_shards(self, "inverse" if name == "z" else "forward", name, x)
        tracing = torch.compiler.is_compiling()
        if not tracing and is_tracing():
            raise refused_trace()
        if tracing and exporting_to_onnx():
            call, inverse = as_batch(self._unbounded(True), name, x), run == self._inverse
            return constant.evaluate(call, self._current(True, values_of), inverse=inverse)
        if autocasting(kind):
            with torch.autocast(kind, enabled=False):
                return self._call(run, name, self._autocast(x))
        if tracing:
            return run(x, True)
        try:
            return run(x, False)
        except (TypeError, ValueError):
            require_alike(name, x, self.operator()._reference()[1])
            raise

    def _autocast(self, x: Tensor) -> Tensor:
        """Return x in the parameters' dtype, if it has a dtype that autocast may have given it."""
        return x.to(self.operator()._reference()[1].dtype) if x.dtype in AUTOCAST else x

    def _forward(self, x: Tensor, tracing: bool) -> Pair:
        conv = self._current(tracing)
        if conv._inverts_forward:  # which is judged
            return conv.forward_and_log_det(x)
        call = as_batch(conv, "x", x)
        z, log_det = evaluate(call.x, call.conv)
        return call.restore_shape(z), log_det.reshape(call.batch_shape)

    def _inverse(self, z: Tensor, tracing: bool) -> Pair:
        kept = None if self.training else _kept(self, z)
        if kept is not None and not torch.is_grad_enabled():
            x, log_det = kept.inverse_and_log_det(z)
            return laid_out(x, z), log_det
        conv = self._current(tracing)
        call = as_batch(conv, "z", z)
        if kept is None and traced():
            return conv.prepare(call.spatial_shape, check=False).inverse_and_log_det(z)
        x, log_det = invert(call.x, call.conv, kept._state if kept else None)
        return call.restore_shape(x), call.broadcast(log_det)

    def train(self, mode: bool = True) -> InvertibleModule:
        """Set the mode, and forget remembered inverses."""
        if self._inverses is not None:
            self._inverses.forget()
        super().train(mode)
        return self

    def __prepare_scriptable__(self) -> Any:
        """Refuse torch.jit.script, which compiles only a part of Python, too little for us."""
        raise TypeError(f"torch.jit.script cannot compile {type(self).__name__}; {TRACERS}")

    def __getstate__(self) -> dict[str, Any]:
        """Leave remembered inverses out of pickles and copies."""
        return self.__dict__ | {"_inverses": None, "_static": None, "_kinds": None}


InvertibleModule._of_part = InvertibleModule


def _kept(module: InvertibleModule, z: Tensor) -> PreparedInverse | None:
    """Return the remembered inverse for a grid, or None if it may not be remembered."""
    tensors: list[Tensor] = []
    module._collect(tensors)
    if not may_be_kept(tensors, z):
        return None
    if module._inverses is None:
        module._inverses = RememberedInverses()
    shape = tuple(z.shape[2:])
    prepared = module._inverses.find(shape, tensors)
    if prepared is None:
        with torch.inference_mode(False), torch.no_grad():
            conv = module.operator()
        as_batch(conv, "z", z)  # raises if z does not fit
        prepared = module._inverses.prepare(conv, shape, tensors)
    return prepared


class Direction(nn.Module):  # type: ignore[misc]
    """A layer whose forward is one of its directions, for `functional_call`."""

    def __init__(self, layer: nn.Module, direction: str) -> None:
        super().__init__()
        self.layer, self.direction = layer, direction

    def forward(self, x: Tensor) -> Pair:
        """Run the direction."""
        return getattr(self.layer, self.direction)(x)  # type: ignore[no-any-return]


def _on_shards(layer: nn.Module, direction: str, name: str, x: Any) -> Pair:
    """Run a direction on the images of a DTensor that each process has, with whole parameters."""
    from torch.distributed.tensor import DTensor, Partial, Replicate, Shard
    from torch.distributed.tensor.experimental import local_map  # here: they take long to import

    module = Direction(layer, direction)
    state = module.state_dict(keep_vars=True)
    whole, parts = Replicate(), Shard(0)
    if not all(place in (whole, parts) for place in x.placements):
        raise NotImplementedError(
            f"{name}: expected a DTensor of whole images, {whole} or {parts}, got {x.placements}; "
            f"call {name}.redistribute(placements=[Shard(0)])"
        )
    if not all(isinstance(tensor, DTensor) for tensor in state.values()):
        raise TypeError(
            f"{name}: expected a tensor as the layer's parameters are, got a DTensor; call "
            "torch.distributed.tensor.distribute_module(layer, mesh)"
        )
    wholes = tuple(whole for _ in x.placements)
    sums = tuple(Partial() if place == parts else whole for place in x.placements)

    def run(x: Tensor, *tensors: Tensor) -> Pair:
        return functional_call(module, dict(zip(state, tensors, strict=True)), (x,))  # type: ignore[no-any-return]

    return local_map(  # type: ignore[no-any-return]
        run,
        out_placements=(x.placements, x.placements),
        in_placements=(x.placements, *(wholes for _ in state)),
        in_grad_placements=(x.placements, *(sums for _ in state)),
    )(x, *state.values())
