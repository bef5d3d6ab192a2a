"""The core's guard for operators in pytrees."""

from __future__ import annotations

from typing import Any

import jax

from invconv.operators.base.operator import InvertibleConv
from invconv.stability import guard
from invconv_jax.pytrees import require_values


class InverseGuard(guard.InverseGuard):
    """Warn during training if an operator in a pytree is about to lose its inverse.

    The first of every ``every`` calls of `step` judges one layer, with its present values. The
    layers take turns, so that a bad layer is named within ``every`` calls for each layer. The
    values of a layer on an accelerator are copied to the host. `invconv_torch.InverseGuard` has the
    same signature and does the same.

    Parameters
    ----------
    model : pytree
        Every operator in it is a layer; of a `Chain`, every step is.
    spatial_shape : tuple of int, or a function from a layer's name to one
        The grid on which to judge; None for a layer that is not to be judged. It is required: a
        pytree does not record its grids, as PyTorch's modules do.
    digits : float
        Warn below this number of decimal digits; with fewer than two an inverse counts as lost.
    every : int
        1 judges a layer at every call.

    Attributes
    ----------
    known : dict of str to LayerCondition
        The last judgement of each layer.

    Raises
    ------
    TypeError, ValueError
        If the model has no layers, a grid does not fit a layer, or a number is out of range.

    Examples
    --------
    >>> import invconv, invconv_jax, jax
    >>> model = {"mix": invconv_jax.init(jax.random.key(0), invconv.EmergingConv, 3)}
    >>> guard = invconv_jax.InverseGuard(model, (8, 8))
    >>> worst = guard.step(model)  # after a training step, outside jit
    >>> worst.name, worst.digits > 5
    ("['mix']", True)
    """

    def _layers(self, model: Any) -> guard.Layers:
        leaves, _ = jax.tree_util.tree_flatten_with_path(model, is_leaf=_is_operator)
        layers: guard.Layers = {}
        for path, conv in filter(lambda leaf: _is_operator(leaf[1]), leaves):
            name = jax.tree_util.keystr(path)
            require_values("model", f"{name or type(conv).__name__}.", conv)
            layers |= guard.steps_of(name, conv)
        return layers


def _is_operator(node: Any) -> bool:
    return isinstance(node, InvertibleConv)
