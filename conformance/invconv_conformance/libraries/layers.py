"""What adapters have that remembers: layers that keep factors, chains that were judged."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from invconv.arrays.namespaces import Array
from invconv_conformance.libraries.library import Run


def torch_layers(conv: Any, y: Array, factor: float) -> Iterator[tuple[str, Array, Any]]:
    """Yield how a layer was changed, its inverse of y then, and the operator that it then is."""
    import torch

    from invconv_torch import InvertibleModule

    for how, change in _CHANGES.items():
        layer = InvertibleModule(conv).eval()  # which keeps the factors of its inverse
        images = y if conv.ndim is None else y.reshape(-1, *y.shape[y.ndim - 1 - conv.ndim :])
        with torch.no_grad():
            layer.inverse(images)
            change(layer, factor)
            found, _ = layer.inverse(images)
            yield how, found.reshape(y.shape), layer.operator()


def torch_layer(conv: Any) -> Callable[[Array], tuple[Array, Array]]:
    """Return the inverse of a layer in eval mode, which keeps the factors of several grids."""
    from invconv_torch import InvertibleModule

    inverse: Callable[[Array], tuple[Array, Array]] = InvertibleModule(conv).eval().inverse
    return inverse


def _loaded(layer: Any, factor: float) -> None:
    trained = dict(layer.named_parameters())
    state = {n: factor * t if n in trained else t for n, t in layer.state_dict().items()}
    layer.load_state_dict(state)


def _all_at_once(layer: Any, factor: float) -> None:
    import torch

    torch._foreach_mul_(list(layer.parameters()), factor)


_CHANGES: dict[str, Callable[[Any, float], object]] = {
    "in place": lambda layer, factor: [p.mul_(factor) for p in layer.parameters()],
    "through .data": lambda layer, factor: [p.data.mul_(factor) for p in layer.parameters()],
    "load_state_dict": _loaded,
    "all at once, as optimisers do": _all_at_once,
}


def torch_recomputing(chain: Any, x: Array) -> Run:
    """Return a chain of parameters and images without stored activations, judged on a grid."""
    import torch

    from invconv_torch import InvertibleModule, ReversibleChain

    layers = ReversibleChain([InvertibleModule(step) for step in chain.steps])
    with torch.no_grad():
        layers(x)
    return lambda parameters, x: torch.func.functional_call(layers, parameters, (x,))


def jax_recomputing(chain: Any, x: Array) -> Run:
    """Return a chain of parameters and images without stored activations, judged on a grid."""
    from invconv_jax import reversible

    flow = reversible(chain, x.shape[2:])
    return lambda parameters, x: replace(
        flow, chain=chain.replace(**parameters)
    ).forward_and_log_det(x)
