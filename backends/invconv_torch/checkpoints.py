"""What a `state_dict` says of the layer that it was taken from: its tensors would fit others, too.

A PeriodicConv's kernel has the shape of an ExponentialConv's, and a mask, a direction or a bound
leaves no trace in a tensor. Class and settings travel in PyTorch's own metadata of a state, beside
its version number: no key is added, and a state without metadata, such as one of an earlier version
or from a safetensors file, is loaded as it is.
"""

from __future__ import annotations

from typing import Any, TypeAlias

Kind: TypeAlias = dict[str, Any]
_KEY = "invconv"


def kind_of(module: Any) -> Kind:
    """Return what decides beside its tensors which map a layer is; the number of axes does not."""
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
    """Have the next call validate the tensors, and refuse those of another kind; a hook, too."""
    module._kinds = None
    own, told = kind_of(module), metadata.get(_KEY, {})
    if any(own.get(name, value) != value for name, value in told.items()):
        errors.append(
            f"{prefix.removesuffix('.') or 'state_dict'}: expected the state of {_shown(own)}, got "
            f"that of {_shown(told)}, whose numbers mean another map here; dict(state_dict) says "
            "nothing of its kind and is loaded all the same"
        )


def _shown(kind: Kind) -> str:
    settings = ", ".join(f"{n}={v!r}" for n, v in kind.items() if n != "class" and v is not None)
    return f"{kind['class']}({settings})"
