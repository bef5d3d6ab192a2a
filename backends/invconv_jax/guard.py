"""The core's guard for operators in pytrees: `invconv_jax.ConditionGuard`, in a training loop."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax

from invconv.arrays.namespaces import Shape
from invconv.operators.base.operator import InvertibleConv
from invconv.operators.chain import Chain
from invconv.stability.guard import Guard, LayerCondition
from invconv_jax.pytrees import require_values


class ConditionGuard:
    """Name the operator in a pytree whose inverse is about to be lost, while it trains.

    Parameters
    ----------
    spatial_shape : tuple of int, or a function from names to such
        On which grid the operators run.
    digits : float
        Warn below so many decimal digits; with fewer than two an inverse counts as lost.
    budget : float
        The share of the time that may be spent on looking.

    Examples
    --------
    >>> import invconv, invconv_jax, jax
    >>> guard = invconv_jax.ConditionGuard((8, 8))
    >>> flow = {"mix": invconv_jax.init(jax.random.key(0), invconv.EmergingConv, 3)}
    >>> guard.step(flow).name  # after a training step, outside jit
    "['mix']"
    """

    def __init__(
        self,
        spatial_shape: Shape | Callable[[str], Shape],
        *,
        digits: float = 3.0,
        budget: float = 0.005,
    ) -> None:
        self._guard = Guard(digits=digits, budget=budget)
        self._grid = spatial_shape if callable(spatial_shape) else lambda name: spatial_shape

    @property
    def worst(self) -> LayerCondition | None:
        """The operator with the fewest digits left, None before the first look."""
        return self._guard.worst

    def step(self, flow: Any) -> LayerCondition | None:
        """Look at one operator if there is time for it, and return the worst known.

        Parameters
        ----------
        flow : pytree
            Every operator in it is watched, of a chain each step. Not inside traced code.

        Raises
        ------
        TypeError, ValueError
            If there is no operator in it, or one inside traced code.

        Warns
        -----
        IllConditionedWarning
            That names the operator, once until it has recovered.

        Examples
        --------
        >>> import invconv, invconv_jax, jax
        >>> guard = invconv_jax.ConditionGuard((8, 8))
        >>> flow = [invconv_jax.init(jax.random.key(0), invconv.EmergingConv, 2)]
        >>> guard.step(flow).digits > 5
        True
        """
        return self._guard.step(lambda: self._operators(flow))

    def look_at_all(self, flow: Any) -> LayerCondition | None:
        """Look at every operator, whatever time it takes, and return the worst.

        All else is as of `step`.

        Examples
        --------
        >>> import invconv, invconv_jax, jax
        >>> guard = invconv_jax.ConditionGuard((8, 8))
        >>> flow = [invconv_jax.init(jax.random.key(0), invconv.EmergingConv, 2)]
        >>> guard.look_at_all(flow).name
        '[0]'
        """
        return self._guard.look_at_all(lambda: self._operators(flow))

    def _operators(self, flow: Any) -> dict[str, tuple[InvertibleConv, Shape]]:
        found, _ = jax.tree_util.tree_flatten_with_path(flow, is_leaf=_is_operator)
        named = {
            jax.tree_util.keystr(path) or type(leaf).__name__: leaf
            for path, leaf in found
            if _is_operator(leaf)
        }
        if not named:
            raise ValueError("flow: expected a pytree with operators of invconv, got none")
        for name, conv in named.items():
            require_values("flow", f"{name}.", conv)
        return {name: (conv, self._grid(name)) for name, conv in named.items()}


def _is_operator(node: Any) -> bool:
    return isinstance(node, InvertibleConv) and not isinstance(node, Chain)
