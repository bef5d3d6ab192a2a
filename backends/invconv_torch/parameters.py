"""An operator that is made of the present parameters and buffers of a module.

Class and settings of a layer are in the metadata of its `state_dict`, and refuse the state of
another layer: tensors alone do not tell layers apart. States without metadata, such as those of
earlier versions or from a safetensors file, are loaded as they are.
"""

from collections.abc import Callable
from typing import Any, ClassVar, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

import invconv as ic
from invconv.operators.base.factors import require_operator
from invconv_torch.private import is_tracing

Read: TypeAlias = Callable[[Tensor], Any]


class HeldOperator(nn.Module):  # type: ignore[misc]
    """The part of `InvertibleModule` that holds an operator's arrays as parameters and buffers."""

    _of_part: ClassVar[type[nn.Module]]  # the class of the modules of parts
    _class: type[ic.InvertibleConv]
    _max_gain: float | None
    _settings: dict[str, Any]
    _array_names: tuple[str, ...]
    _part_names: tuple[str, ...]
    _static: Any  # the operator that was validated last, without tensors,
    _kinds: list[Any] | None  # and the dtypes, devices and shapes of its tensors

    def __init__(
        self,
        conv: ic.InvertibleConv,
        *,
        max_gain: float | None = None,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        require_operator("conv", conv)
        if conv._bounded_from is not None:
            conv, own = conv._bounded_from
            if max_gain not in (None, own):
                raise ValueError(
                    f"max_gain: expected {own}, by which conv is bounded, got {max_gain!r}; "
                    "conv.replace() has its values and no bound"
                )
            max_gain = own
        if max_gain is not None:
            ic.bounded(conv, max_gain)  # raises if the class or the number allows no bound
        self._max_gain = max_gain
        self._class = type(conv)
        self._static = None
        self._kinds = None
        parts = conv._parts()
        self._part_names = tuple(parts)
        self._settings = {name: getattr(conv, name) for name in conv._setting_names}
        for prefix, part in parts.items():
            assert isinstance(part, ic.InvertibleConv)
            # not by `add_module`, which refuses names of Module's own attributes, such as "half"
            self._modules[prefix] = self._of_part(part, device=device, dtype=dtype)
        for name in conv._array_names:
            array = getattr(conv, name)
            value = None if array is None else nn.Parameter(copied(array, device, dtype))
            self._parameters[name] = value
        for name in conv._constant_names:
            self.register_buffer(name, copied(getattr(conv, name), device, dtype))
        self._array_names = (*conv._array_names, *conv._constant_names)
        self.register_state_dict_post_hook(note_kind)
        self.register_load_state_dict_pre_hook(before_loading)


class OperatorParameters(HeldOperator):
    """The part of `InvertibleModule` that makes an operator of the module's present tensors."""

    def operator(self) -> ic.InvertibleConv:
        """Return the core's operator of the current parameters, differentiable in them.

        Examples
        --------
        >>> from invconv_torch import EmergingConv2d
        >>> list(EmergingConv2d(2).operator().parameters())
        ['first.kernel', 'second.kernel', 'bias']
        """
        return self._current(torch.compiler.is_compiling() or is_tracing())

    def _current(self, traced: bool, read: Read | None = None) -> ic.InvertibleConv:
        conv = self._unbounded(traced, read)
        return conv if self._max_gain is None else ic.bounded(conv, self._max_gain)

    def _unbounded(self, traced: bool, read: Read | None = None) -> ic.InvertibleConv:
        """Return the operator without ``max_gain``, with the current tensors.

        If ``read`` is given, its results replace the tensors.

        The tensors are put into the operator that was validated last; they are validated again only
        if a dtype, device or shape changed. Code that torch.compile traces validates anew, once.
        """
        own, modules = self._parameters, self._modules
        arrays, parts, kinds = {}, [], []
        for name in self._array_names:
            tensor = own[name] if name in own else self._computed(name)
            arrays[name] = tensor if read is None or tensor is None else read(tensor)
            if tensor is not None:
                kinds.append((tensor.dtype, tensor.device, tensor.shape))
        for name in self._part_names:
            parts.append(modules[name]._current(traced, read))
            kinds.append(modules[name]._kinds)
        if traced:
            return self._validated(arrays, parts)
        if kinds != self._kinds:
            static = self._validated(arrays, parts)
            static._prime()
            # without tensors: they may hold a graph
            self._static = static._with(dict.fromkeys(arrays), [None] * len(parts))
            self._kinds = kinds
        current: ic.InvertibleConv = self._static._with(arrays, parts)
        return current

    def _validated(self, arrays: dict[str, Any], parts: list[Any]) -> ic.InvertibleConv:
        named = self._class._part_fields(dict(zip(self._part_names, parts, strict=True)))
        conv: ic.InvertibleConv = self._class(**arrays, **named, **self._settings)
        return conv

    def _computed(self, name: str) -> Any:
        """Return what is no parameter: a buffer, or a tensor that is computed of parameters."""
        for hook in self._hooks_of(name):
            hook(self, ())
        return getattr(self, name)

    def _hooks_of(self, name: str) -> list[Any]:
        """Return hooks such as `torch.nn.utils.prune`'s, which set an attribute before a call.

        They run before ``forward`` only, not before ``inverse``, nor in the modules of parts.
        """
        hooks = self._forward_pre_hooks.values()
        named = ("name", "_tensor_name")  # weight_norm's and spectral_norm's; prune's
        return [hook for hook in hooks if name in [getattr(hook, n, None) for n in named]]

    def _takes_values(self, name: str) -> bool:
        """Tell whether an array may be set, although it may be computed of parameters."""
        steps = getattr(getattr(self, "parametrizations", None), name, ())
        return not self._hooks_of(name) and all(hasattr(s, "right_inverse") for s in steps)

    def _collect(self, tensors: list[Tensor]) -> None:
        own = self._parameters
        for name in self._array_names:
            tensor = own[name] if name in own else self._computed(name)
            if tensor is not None:
                tensors.append(tensor)
        for name in self._part_names:
            self._modules[name]._collect(tensors)

    def extra_repr(self) -> str:
        """Return channels, sizes and settings as text."""
        conv = self.operator()
        shown = [str(conv.channels)]
        if hasattr(self, "kernel"):
            shown.append(f"kernel_size={tuple(self.kernel.shape[2:])}")
        settings = self._settings | {"max_gain": self._max_gain}
        shown += [f"{k}={v!r}" for k, v in settings.items() if v is not None]
        if "bias" in self._array_names:
            shown.append(f"bias={self.bias is not None}")
        named = type(self).__name__.startswith(self._class.__name__)
        return ", ".join(shown if named else [self._class.__name__, *shown])


def copied(array: Any, device: Any, dtype: Any) -> Tensor:
    """Copy an array; integers keep their dtype."""
    if isinstance(array, torch.Tensor):
        real = array.is_floating_point()
        return array.detach().to(device=device, dtype=dtype if real else None, copy=True)
    values = np.asarray(array)
    if values.dtype.kind != "f":
        return torch.tensor(values, device=device)
    native = values.astype(values.dtype.newbyteorder("="), order="C", copy=False)
    return torch.tensor(native, device=device, dtype=dtype)


def kind_of(module: Any) -> dict[str, Any]:
    """Return class, settings (but ndim) and bound, which with the tensors determine the map."""
    settings = {name: value for name, value in module._settings.items() if name != "ndim"}
    return {"class": module._class.__name__} | settings | {"max_gain": module._max_gain}


def note_kind(module: Any, state: Any, prefix: str, metadata: dict[str, Any]) -> None:
    """Write a layer's kind into the metadata of its state; a hook of `torch.nn.Module`."""
    metadata["invconv"] = kind_of(module)


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
    own, stored = kind_of(module), metadata.get("invconv", {})
    if any(own.get(name, value) != value for name, value in stored.items()):
        errors.append(
            f"{prefix.removesuffix('.') or 'state_dict'}: expected the state of {_shown(own)}, got "
            f"that of {_shown(stored)}, whose numbers mean another map here; dict(state_dict) says "
            "nothing of its kind and is loaded all the same"
        )


def _shown(kind: dict[str, Any]) -> str:
    settings = ", ".join(f"{n}={v!r}" for n, v in kind.items() if n != "class" and v is not None)
    return f"{kind['class']}({settings})"
