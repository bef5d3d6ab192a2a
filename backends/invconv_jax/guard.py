"""The core's guard for operators in pytrees."""

from typing import Any

import jax

from invconv.operators.base.operator import InvertibleConv
from invconv.stability import guard
from invconv_jax.pytrees import require_values


class InverseGuard(guard.InverseGuard):
    """Warn during training if an operator in a pytree is about to lose its inverse.

    Every operator in the pytree ``model`` is a layer; of a `Chain`, every step is. A pytree records
    no grids, as PyTorch's modules do: ``spatial_shape`` is required. The arguments are those of
    `invconv.stability.guard.InverseGuard`, as in `invconv_torch`.

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
