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
Gradients = dict[str, Array]


class Compiled:
    """What a user has who compiles every call.

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

    def _run(self, x: Array, bar: Array | None = None, log_det_bar: Array | None = None) -> Any:
        if log_det_bar is None:
            log_det_bar = self._zeros(tuple(x.shape[: x.ndim - 1 - len(self.spatial_shape)]))
        if bar is None or bar is x:  # torch.compile makes a program of its own for one array twice
            bar = copy_of(x)
        return self._program(self.parameters(), x, bar, log_det_bar)

    def parameters(self) -> dict[str, Array]:
        """Return the operator's own."""
        return self.conv.parameters()

    def forward(self, x: Array) -> Array:
        """Return y."""
        return self.forward_and_log_det(x)[0]

    def inverse(self, y: Array) -> Array:
        """Return x."""
        return self.inverse_and_log_det(y)[0]

    def forward_and_log_det(self, x: Array) -> tuple[Array, Array]:
        """Return y and the log-determinant."""
        y, log_det = self._run(x)["forward_and_log_det"]
        return y, log_det

    def inverse_and_log_det(self, y: Array) -> tuple[Array, Array]:
        """Return x and the inverse's log-determinant."""
        x, log_det = self._run(y)["inverse_and_log_det"]
        return x, log_det

    def forward_vjp(self, *arrays: Array) -> tuple[Gradients, Array]:
        """Return gradients."""
        gradients, x_bar = self._run(*arrays)["forward_vjp"]
        return gradients, x_bar

    def inverse_vjp(self, *arrays: Array) -> tuple[Gradients, Array]:
        """Return gradients."""
        gradients, y_bar = self._run(*arrays)["inverse_vjp"]
        return gradients, y_bar

    def log_det_and_transpose(self, x: Array) -> tuple[Array, Array]:
        """Return the log-determinant of one sample, and K^T x."""
        found = self._run(x)
        return found["log_det"], found["transpose"]

    def log_det_of_inverse(self, x: Array) -> Array:
        """Return the log-determinant of the inverse as an operator, for one sample."""
        return self._run(x)["log_det_of_inverse"]
