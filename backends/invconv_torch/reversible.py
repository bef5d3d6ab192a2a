"""Backpropagation without stored activations: inputs are recomputed by inversion.

A. N. Gomez, M. Ren, R. Urtasun, R. B. Grosse, The Reversible Residual Network: Backpropagation
Without Storing Activations, NeurIPS 2017.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeAlias

import torch
from torch import nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.func import functional_call

from invconv.arrays.namespaces import Shape, readable
from invconv.operators.base.calls import grid_of
from invconv.operators.base.checks import relative_error, require_invertible
from invconv.operators.base.operator import InvertibleConv
from invconv.operators.chain import Chain
from invconv_torch.module import InvertibleModule
from invconv_torch.precision import autocasting
from invconv_torch.traced import device_kind, traced

Tensor: TypeAlias = torch.Tensor
Places: TypeAlias = tuple[tuple[int, str], ...]  # a layer's, and the name of a weight in it

_is_exporting = getattr(torch.compiler, "is_exporting", bool)  # which PyTorch 2.6 does not tell


class ReversibleChain(nn.ModuleList):  # type: ignore[misc]
    """Layers one after the other that keep only the chain's input and output for the gradient.

    Memory does not grow with depth. The backward pass inverts each layer, runs it again and
    differentiates it: about twice the time. Gradients are those of the stored version up to
    rounding, which the condition of the layers amplifies. So a layer whose inverse cannot be
    right is refused, when a grid is first seen, and if what is recomputed of the input is not the
    input, the backward pass raises instead of returning a wrong gradient. On an accelerator, where
    to look at numbers would make the host wait, neither is done, and the gradient of the input
    becomes NaN instead; `ConditionGuard` names the layer. torch.compile runs it with breaks in the
    graph, not with ``fullgraph=True``.

    Parameters
    ----------
    layers : iterable of nn.Module
        At least one; each with ``forward(x) -> (z, log_det)`` and ``inverse(z) -> (x, log_det)``,
        one log-determinant a sample: layers of this package, couplings, ... They must be
        deterministic.

    Raises
    ------
    TypeError, ValueError
        If something else is among them, or nothing.

    Examples
    --------
    >>> import torch
    >>> from invconv_torch import ActNorm, EmergingConv2d, ReversibleChain
    >>> flow = ReversibleChain([ActNorm(3), EmergingConv2d(3), EmergingConv2d(3)])
    >>> z, log_det = flow(torch.zeros(2, 3, 8, 8))
    >>> log_det.mean().backward()
    """

    def __init__(self, layers: Iterable[nn.Module]) -> None:
        super().__init__(_invertible(layers))
        self._seen: set[tuple[int, Shape]] = set()

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return z and the sum of the log-determinants, one a sample.

        Raises
        ------
        ValueError
            If a layer's inverse cannot be right on this grid, with the layer's name.
        """
        if _is_exporting():  # a program without gradients
            return _one_after_another(self, x)
        named = [
            (i, name, weight)
            for i, layer in enumerate(self)
            for name, weight in layer.named_parameters(remove_duplicate=False)
        ]
        places = tuple((i, name) for i, name, _ in named)
        weights = (weight for *_, weight in named)
        result: tuple[Tensor, Tensor] = _Reversible.apply(self, places, x, *weights)
        return result

    def inverse(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Return x and the sum of the log-determinants of the inverses; activations are stored.

        Examples
        --------
        >>> from invconv_torch import Conv1x1, EmergingConv2d, ReversibleChain
        >>> flow = ReversibleChain([Conv1x1(2), EmergingConv2d(2)])
        >>> x, log_det = flow.inverse(torch.zeros(3, 2, 8, 8))
        >>> x.shape, log_det.shape
        (torch.Size([3, 2, 8, 8]), torch.Size([3]))
        """
        return _one_after_another([layer.inverse for layer in reversed(self)], z)

    def operator(self) -> Chain:
        """Return the core's chain of the current parameters, differentiable in them.

        Raises
        ------
        TypeError
            If a layer is none of this package.

        Examples
        --------
        >>> from invconv_torch import Conv1x1, EmergingConv2d, ReversibleChain
        >>> flow = ReversibleChain([Conv1x1(2), EmergingConv2d(2)])
        >>> len(flow.operator())
        2
        """
        for i, layer in enumerate(self):
            if not hasattr(layer, "operator"):
                raise TypeError(
                    f"layers: expected layers of invconv_torch, got {type(layer).__name__} at {i}, "
                    "which is no operator"
                )
        return Chain([layer.operator() for layer in self])

    def judge(self, i: int, x: Tensor) -> None:
        """Raise ValueError if layer i cannot invert on the grid of its input, once a grid.

        The last of several layers of this package in a row is judged with those before it, too.

        Examples
        --------
        >>> from invconv_torch import Conv1x1, EmergingConv2d, ReversibleChain
        >>> flow = ReversibleChain([Conv1x1(2), EmergingConv2d(2)])
        >>> flow.judge(1, torch.zeros(3, 2, 8, 8))  # fine
        """
        key = i, tuple(x.shape[1:])
        if key in self._seen or traced():
            return
        with torch.no_grad():
            row = self._in_a_row(i)
            if row:
                grid = grid_of(row[-1], x.shape)
                require_invertible(f"layer {i}", row[-1], grid)
            if len(row) > 1 and not self._in_a_row(i + 1):
                require_invertible(f"layers {i + 1 - len(row)} to {i}", Chain(row), grid)
        self._seen.add(key)

    def _in_a_row(self, i: int) -> list[InvertibleConv]:
        """Return the operators of this package's layers in a row up to layer i."""
        row: list[InvertibleConv] = []
        while 0 <= i < len(self) and isinstance(self[i], InvertibleModule):
            row.insert(0, self[i].operator())
            i -= 1
        return row


def _one_after_another(
    maps: Iterable[Callable[[Tensor], tuple[Tensor, Tensor]]], x: Tensor
) -> tuple[Tensor, Tensor]:
    """Return what maps make of x, and the sum of their log-determinants."""
    log_dets = []
    for run in maps:
        x, log_det = run(x)
        log_dets.append(log_det)
    return x, sum(log_dets[1:], start=log_dets[0])


def _invertible(layers: Iterable[nn.Module]) -> list[nn.Module]:
    """Return layers in a list, or raise unless each can be inverted."""
    what = "modules with forward(x) -> (z, log_det) and inverse(z) -> (x, log_det)"
    if not isinstance(layers, Iterable):
        raise TypeError(f"layers: expected {what}, in a list, got one {type(layers).__name__}")
    found = list(layers)
    if not found:
        raise ValueError(f"layers: expected {what}, at least one, got none")
    for i, layer in enumerate(found):
        if not (isinstance(layer, nn.Module) and callable(getattr(layer, "inverse", None))):
            hint = "; InvertibleModule(conv) is one" if isinstance(layer, InvertibleConv) else ""
            raise TypeError(f"layers: expected {what}, got {type(layer).__name__} at {i}{hint}")
    return found


class _Reversible(Function):  # type: ignore[misc]
    @staticmethod
    def forward(
        ctx: Any, chain: ReversibleChain, places: Places, x: Tensor, *weights: Tensor
    ) -> Any:
        z, log_dets = x, []
        for i, layer in enumerate(chain):
            chain.judge(i, z)
            z, log_det = layer(z)
            log_dets.append(log_det)
        ctx.layers, ctx.places = list(chain), places
        ctx.autocast = _autocast(device_kind("x", x))
        ctx.save_for_backward(x, z, *weights)
        return z, sum(log_dets[1:], start=log_dets[0])

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, z_bar: Tensor, log_det_bar: Tensor) -> tuple[Any, ...]:
        start, end, *weights = ctx.saved_tensors
        z = end
        # the modules may hold other weights by now, and those that were saved may be copies
        own: list[dict[str, Tensor]] = [{} for _ in ctx.layers]
        for (i, name), weight, wanted in zip(
            ctx.places, weights, ctx.needs_input_grad[3:], strict=True
        ):
            own[i][name] = weight.detach().requires_grad_(wanted)
        gradients: dict[tuple[int, str], Tensor | None] = {}
        for i, layer in reversed(list(enumerate(ctx.layers))):
            trained = {name: weight for name, weight in own[i].items() if weight.requires_grad}
            with ctx.autocast:
                x = functional_call(_Backwards(layer), _within(own[i]), (z,))[0]
                with torch.enable_grad():
                    x = x.detach().requires_grad_()
                    outputs = zip(
                        functional_call(layer, own[i], (x,)), (z_bar, log_det_bar), strict=True
                    )
            found, bars = zip(*((o, b) for o, b in outputs if o.requires_grad), strict=True)
            z_bar, *more = torch.autograd.grad(
                found, (x, *trained.values()), bars, allow_unused=True
            )
            gradients |= {(i, name): g for name, g in zip(trained, more, strict=True)}
            z = x.detach()
        trust = _trust(start, z, end)
        every = [z_bar, *(gradients.get(place) for place in ctx.places)]
        return None, None, *(g if g is None or trust is None else g * trust for g in every)


class _Backwards(nn.Module):  # type: ignore[misc]
    """A layer that runs backwards when it is called."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        found: tuple[Tensor, Tensor] = self.layer.inverse(z)
        return found


def _within(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"layer.{name}": weight for name, weight in weights.items()}


def _autocast(kind: str) -> AbstractContextManager[Any]:
    """Return the context that autocasts as it is done now."""
    if not torch.amp.is_autocast_available(kind):
        return nullcontext()
    enabled, dtype = autocasting(kind), torch.get_autocast_dtype(kind)
    return torch.autocast(kind, dtype, enabled)  # type: ignore[no-any-return]


def _trust(x: Tensor, again: Tensor, z: Tensor) -> Tensor | None:
    """Return what gradients are to be multiplied by: None for 1, or NaN if they would be wrong.

    Raises
    ------
    RuntimeError
        In place of the NaN, where it is possible to look.
    """
    if x.numel() == 0:
        return None
    error, right = relative_error(x, again, z)
    right = right | ~x.isfinite().all()  # NaN in, NaN out, and no inverse's fault
    if not readable(x):
        return torch.where(right, 1.0, torch.nan)
    if not bool(right):
        raise RuntimeError(
            f"ReversibleChain: the input that was recomputed for the gradient differs from the "
            f"input by {float(error):.1e} of its norm, so the gradient would be wrong: "
            "a layer's inverse is lost. Use the layers without ReversibleChain, or with max_gain"
        )
    return None
