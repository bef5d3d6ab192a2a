"""The class and settings of a layer in its `state_dict`, which refuse the state of another layer.

Tensors alone do not tell layers apart: a PeriodicConv's kernel has the shape of an
ExponentialConv's, and a mask, a direction or a bound leaves no trace in a tensor. Class and
settings travel in PyTorch's own metadata of a state, beside its version number: no key is added,
and a state without metadata, such as one of an earlier version or from a safetensors file, is
loaded as it is.
"""

from __future__ import annotations

from typing import Any, TypeAlias

Kind: TypeAlias = dict[str, Any]
_KEY = "invconv"


def kind_of(module: Any) -> Kind:
    """Return class, settings (but ndim) and bound, which with the tensors determine the map."""
    settings = {name: value for name, value in module._settings.items() if name != "ndim"}
    return {"class": module._class.__name__} | settings | {"max_gain": module._max_gain}


def note_kind(module: Any, state: Any, prefix: str, metadata: dict[str, Any]) -> None:
    """Write a layer's kind into the metadata of its state; a hook of `torch.nn.Module`."""
    metadata[_KEY] = kind_of(module)


def before_loading(
    module: Any,
    state: Any,
    prefix: str,
    metadata: dict[str, Any],
    strict: bool,
    missing: list[str],
    unexpected: list[str],
    errors: list[str],
) -> None:
    """Refuse the state of another kind of layer, and let the next call validate; a hook, too."""
    module._kinds = None
    own, stored = kind_of(module), metadata.get(_KEY, {})
    if any(own.get(name, value) != value for name, value in stored.items()):
        errors.append(
            f"{prefix.removesuffix('.') or 'state_dict'}: expected the state of {_shown(own)}, got "
            f"that of {_shown(stored)}, whose numbers mean another map here; dict(state_dict) says "
            "nothing of its kind and is loaded all the same"
        )


def _shown(kind: Kind) -> str:
    settings = ", ".join(f"{n}={v!r}" for n, v in kind.items() if n != "class" and v is not None)
    return f"{kind['class']}({settings})"
