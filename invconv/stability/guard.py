"""A guard for training: it warns before the inverse of a layer is lost.

A judgement costs up to six solves and 200 ms, so a call judges one layer, and most calls none.
"""

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from invconv.arrays.errors import IllConditionedWarning
from invconv.arrays.namespaces import Shape, callers_level
from invconv.arrays.validation import is_number, positive_int
from invconv.operators.base import judgement
from invconv.operators.base.calls import grid_of, require_spatial_shape
from invconv.operators.base.operator import InvertibleConv
from invconv.operators.chain import Chain
from invconv.trust.condition import EPS

MOST_DIGITS = int(-math.log10(EPS["float64"]))
Layers = dict[str, tuple[InvertibleConv, Shape | None]]


@dataclass(frozen=True)
class LayerCondition:
    """The last judgement of a layer."""

    name: str
    spatial_shape: Shape  # the grid on which the layer was judged
    error: float  # the largest error of an entry of the inverse over the largest entry
    digits: float  # decimal digits that are left in the precision of the layer's solves


class InverseGuard:
    """Judge an operator, or each step of a chain in turn; the adapters judge layers of models.

    The first of every ``every`` calls of `step` judges one layer, with its present values. The
    layers take turns, so that a bad layer is named within ``every`` calls for each layer. The
    values of a layer on an accelerator are copied to the host.

    Parameters
    ----------
    model : operator, nn.Module or pytree
    spatial_shape : tuple of int, or a function from a layer's name to one, optional
        The grid on which to judge; None for a layer that is not to be judged.
    digits : float
        Warn below this number of decimal digits; with fewer than two an inverse counts as lost.
    every : int
        The number of calls from one judgement to the next; 1 judges a layer at every call.

    Attributes
    ----------
    known : dict of str to LayerCondition
        The last judgement of each layer.

    Raises
    ------
    TypeError, ValueError
        If the model has no layers, a grid does not fit a layer, or a number is out of range.
    """

    def __init__(
        self,
        model: Any,
        spatial_shape: Shape | Callable[[str], Shape | None] | None = None,
        *,
        digits: float = 3.0,
        every: int = 100,
    ) -> None:
        if not (is_number(digits) and 0 <= digits <= MOST_DIGITS):
            raise ValueError(f"digits: expected a number from 0 to {MOST_DIGITS}, got {digits!r}")
        self.digits, self.every = digits, positive_int("every", every)
        self.known: dict[str, LayerCondition] = {}
        self._given, self._calls = spatial_shape, 0
        self._warned: set[str] = set()
        self._on_grids(model)  # raises now, not in the last layer's turn

    def step(self, model: Any) -> LayerCondition:
        """Judge the next layer, at the first of every ``every`` calls, and return the worst known.

        Parameters
        ----------
        model : nn.Module, or pytree of operators
            The model with its present values, outside traced code.

        Raises
        ------
        TypeError, ValueError
            If the model has no layers, or none with a grid, or is traced.

        Warns
        -----
        IllConditionedWarning
            With the layer's name, once until it has recovered.
        """
        turn, since = divmod(self._calls, self.every)
        if not since:
            layers = self._on_grids(model)
            if not layers:
                raise ValueError(
                    "spatial_shape: expected a grid such as x.shape[2:], or a model whose layers "
                    f"have run under the guard, got {self._given!r}"
                )
            self.known = {n: known for n, known in self.known.items() if n in layers}
            name = list(layers)[turn % len(layers)]
            self._judge(name, *layers[name])
        self._calls += 1
        return min(self.known.values(), key=lambda condition: condition.digits)

    def _layers(self, model: Any) -> Layers:
        """Return a model's operators by name, each with the shape of its last input."""
        return steps_of("", model) if isinstance(model, InvertibleConv) else {}

    def _on_grids(self, model: Any) -> dict[str, tuple[InvertibleConv, Shape]]:
        """Return the operators that have a grid, with their grids."""
        layers = self._layers(model)
        if not layers:
            raise ValueError(
                "model: expected an operator or a model with layers of invconv in it, got "
                f"{type(model).__name__} without any"
            )
        on_grids = {}
        for name, (conv, last) in layers.items():
            grid = self._given(name) if callable(self._given) else self._given
            if self._given is None and last is not None:
                grid = grid_of(conv, last)
            if grid is not None:
                on_grids[name] = conv, require_spatial_shape(conv, grid)
        return on_grids

    def _judge(self, name: str, conv: InvertibleConv, shape: Shape) -> None:
        precision = judgement.solved_in(conv)
        judged = judgement.judge(conv, shape, precision)
        digits = judged.digits(precision)
        self.known[name] = LayerCondition(name, shape, judged.error, digits)
        if digits >= self.digits:
            self._warned.discard(name)
        elif name not in self._warned:
            self._warned.add(name)
            lost = judgement.blame(conv, shape, precision)
            title = f"{name} ({type(conv).__name__})"
            text = judgement.off_by(title, shape, precision, judged, lost)
            advice = "lower the learning rate, or train with max_gain (invconv.bounded)"
            warnings.warn(f"{text}; {advice}", IllConditionedWarning, stacklevel=callers_level())


def steps_of(name: str, conv: InvertibleConv) -> Layers:
    """Return an operator by name, or each step if it is a chain."""
    if not isinstance(conv, Chain):
        return {name or type(conv).__name__: (conv, None)}
    steps = (steps_of(f"{name}.steps[{i}]", step) for i, step in enumerate(conv.steps))
    return {key: layer for step in steps for key, layer in step.items()}
