"""An operator whose methods run inside one compiled program.

A program a method would be closer to what users do, and would take a compiler ten times as long;
what differs from eager code, traced values and fused operations, is the same in one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import invconv as ic
from invconv.arrays.namespaces import Array, Shape, copy_of

Compile = Callable[[Callable[..., Any]], Callable[..., Any]]


class Compiled:
    """An operator as users have it who compile every call.

    Its methods are the operator's: ``forward_and_log_det``, ``inverse_vjp``, ``log_det``, ...

    Parameters
    ----------
    conv : InvertibleConv
    spatial_shape : tuple of int
        The grid.
    compile : callable
        Such as ``jax.jit``.
    zeros : callable
        Makes an array of a log-determinant's kind, of a batch's shape.
    """

    def __init__(
        self,
        conv: ic.InvertibleConv,
        spatial_shape: Shape,
        compile: Compile,  # noqa: A002
        zeros: Callable[[Shape], Array],
    ) -> None:
        self.conv = conv
        self.spatial_shape = spatial_shape
        self._zeros = zeros
        self._program = compile(self._everything)

    def _everything(
        self, parameters: dict[str, Array], x: Array, bar: Array, log_det_bar: Array
    ) -> dict[str, Any]:
        conv = self.conv.replace(**parameters)
        return {
            "forward_and_log_det": conv.forward_and_log_det(x),
            "inverse_and_log_det": conv.inverse_and_log_det(x),
            "forward_vjp": conv.forward_vjp(x, bar, log_det_bar),
            "inverse_vjp": conv.inverse_vjp(x, bar, log_det_bar),
            "log_det": conv.log_det(self.spatial_shape),
            "log_det_of_inverse": ic.Inverse(conv).log_det(self.spatial_shape),
            "transpose": conv.transpose().forward(x),
        }

    def run(self, what: str, x: Array, bar: Array = None, log_det_bar: Array = None) -> Any:
        """Return one result of the program."""
        if log_det_bar is None:
            log_det_bar = self._zeros(tuple(x.shape[: x.ndim - 1 - len(self.spatial_shape)]))
        if bar is None or bar is x:  # torch.compile makes a program of its own for one array twice
            bar = copy_of(x)
        return self._program(self.parameters(), x, bar, log_det_bar)[what]

    def __getattr__(self, name: str) -> Callable[..., Any]:
        """Return a method: a result of the program."""
        if name.startswith("_"):
            raise AttributeError(name)
        both = f"{name}_and_log_det"
        if name in ("forward", "inverse"):
            return lambda x: self.run(both, x)[0]
        return lambda *arrays: self.run(name, *arrays)

    def parameters(self) -> dict[str, Array]:
        """Return the operator's own."""
        return self.conv.parameters()
