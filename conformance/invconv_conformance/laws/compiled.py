"""All that an operator computes of an image, and an operator whose methods run compiled.

A program a method would be closer to what users do, and would take a compiler ten times as long;
what differs from eager code, traced values and fused operations, is the same in one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import invconv as ic
from invconv.arrays.namespaces import Array, Shape, copy_of

Compile = Callable[[Callable[..., Any]], Callable[..., Any]]

# what is no method of an image: of an operator, a grid and an image
MORE: dict[str, Callable[[ic.InvertibleConv, Shape, Array], Array]] = {
    "log_det": lambda conv, shape, x: conv.log_det(shape),
    "log_det of the inverse": lambda conv, shape, x: ic.Inverse(conv).log_det(shape),
    "transpose": lambda conv, shape, x: conv.transpose().forward(x),
}
DIRECTIONS = ("forward_and_log_det", "inverse_and_log_det")
PULLBACKS = ("forward_vjp", "inverse_vjp")


def everything(conv: Any, x: Array) -> dict[str, Array]:
    """Return the result of every method that computes, by name: "forward_vjp by kernel"."""
    found = {}
    for what in DIRECTIONS:
        found[what], found[f"log_det of {what}"] = getattr(conv, what)(x)
    for what in PULLBACKS:
        gradients, found[what] = getattr(conv, what)(x, x)
        found |= {f"{what} by {name}": gradient for name, gradient in gradients.items()}
    return found


class Compiled:
    """An operator as users have it who compile every call.

    Its methods are the operator's: ``forward_and_log_det``, ``inverse_vjp``, ...; ``compile`` is
    such as ``jax.jit``, and ``zeros`` makes an array of a log-determinant's kind, of a batch's
    shape.
    """

    def __init__(
        self,
        conv: ic.InvertibleConv,
        spatial_shape: Shape,
        compile: Compile,  # noqa: A002
        zeros: Callable[[Shape], Array],
    ) -> None:
        self.conv, self.parameters = conv, conv.parameters
        self.spatial_shape = spatial_shape
        self._zeros = zeros
        self._program = compile(self._everything)

    def _everything(
        self, parameters: dict[str, Array], x: Array, bar: Array, log_det_bar: Array
    ) -> dict[str, Any]:
        conv = self.conv.replace(**parameters)
        found = {what: getattr(conv, what)(x) for what in DIRECTIONS}
        found |= {what: getattr(conv, what)(x, bar, log_det_bar) for what in PULLBACKS}
        return found | {what: run(conv, self.spatial_shape, x) for what, run in MORE.items()}

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
        if name in ("forward", "inverse"):
            return lambda x: self.run(f"{name}_and_log_det", x)[0]
        return lambda *arrays: self.run(name, *arrays)
