"""An operator whose methods run as compiled functions of its parameters and their arguments."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import invconv as ic

Array = Any
Compile = Callable[[Callable[..., Any]], Callable[..., Any]]


class Compiled:
    """What a user has who compiles every call.

    Parameters
    ----------
    conv : InvertibleConv
    compile : callable
        Such as ``jax.jit``.
    """

    def __init__(self, conv: ic.InvertibleConv, compile: Compile) -> None:  # noqa: A002
        self.conv = conv
        self._compile = compile

    @functools.cache  # noqa: B019 - lives as long as the case that it belongs to
    def _function(self, method: str, *fixed: Any) -> Callable[..., Any]:
        """Return a method as a compiled function of (parameters, *arrays)."""

        def call(parameters: dict[str, Array], *arrays: Array) -> Any:
            return getattr(self.conv.replace(**parameters), method)(*fixed, *arrays)

        return self._compile(call)

    def _run(self, method: str, *arrays: Array) -> Any:
        return self._function(method)(self.conv.parameters(), *arrays)

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
        y, log_det = self._run("forward_and_log_det", x)
        return y, log_det

    def inverse_and_log_det(self, y: Array) -> tuple[Array, Array]:
        """Return x and the inverse's log-determinant."""
        x, log_det = self._run("inverse_and_log_det", y)
        return x, log_det

    def log_det(self, shape: tuple[int, ...]) -> Array:
        """Return the log-determinant of one sample."""
        return self._function("log_det", shape)(self.conv.parameters())

    def forward_vjp(self, *arrays: Array) -> tuple[dict[str, Array], Array]:
        """Return gradients."""
        gradients, x_bar = self._run("forward_vjp", *arrays)
        return gradients, x_bar

    def inverse_vjp(self, *arrays: Array) -> tuple[dict[str, Array], Array]:
        """Return gradients."""
        gradients, y_bar = self._run("inverse_vjp", *arrays)
        return gradients, y_bar

    def transpose(self) -> Compiled:
        """Return the compiled transpose."""
        return Compiled(self.conv.transpose(), self._compile)
