"""Every digit of float32: TF32, bfloat16 passes and autocast never decide a result."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

Switch = tuple[Any, str]
_REDUCED = ("tf32", "bf16", True)

_lock = threading.Lock()  # the switches are the process's, not the thread's
_depth: dict[str, int] = {}
_saved: dict[str, list[tuple[Switch, Any]]] = {}


def _switches(device_type: str) -> list[Switch]:
    """Return (module, attribute) of what may reduce the precision of products on a device."""
    if device_type == "cpu":
        modules = [torch.backends.mkldnn]
    elif device_type == "cuda":
        modules = [torch.backends.cuda, torch.backends.cudnn]
    else:
        return []
    parts = [getattr(m, name, None) for m in modules for name in ("matmul", "conv")]
    new = [(part, "fp32_precision") for part in parts if hasattr(part, "fp32_precision")]
    if new or device_type == "cpu":
        return new
    return [(torch.backends.cuda.matmul, "allow_tf32"), (torch.backends.cudnn, "allow_tf32")]


def _inherited(switch: Switch) -> str:
    """Return the value of the switch that one falls back on while it is "none" itself."""
    module = switch[0]
    parents = {"mkldnn": torch.backends.mkldnn, "cuda": torch.backends.cudnn}
    name = "mkldnn" if module in vars(torch.backends.mkldnn).values() else "cuda"
    value: str = getattr(parents[name], "fp32_precision", "none")
    return value


def _enter(device_type: str) -> None:
    with _lock:
        depth = _depth.get(device_type, 0)
        _depth[device_type] = depth + 1
        if depth:
            return
        _saved[device_type] = saved = []
        for module, name in _switches(device_type):
            value = getattr(module, name)
            if value in _REDUCED:
                # "none" follows the switch above; only that restores a switch which did so
                back = (
                    "none" if value is not True and value == _inherited((module, name)) else value
                )
                saved.append(((module, name), back))
                setattr(module, name, False if value is True else "ieee")


def _leave(device_type: str) -> None:
    with _lock:
        _depth[device_type] -= 1
        if _depth[device_type] == 0:
            for (module, name), value in _saved.pop(device_type):
                setattr(module, name, value)


@contextmanager
def full_precision(x: torch.Tensor) -> Iterator[None]:
    """Compute in the dtype of the operands on the device of ``x``, and put everything back.

    Where several threads compute, the last one to leave puts it back.
    """
    kind = x.device.type
    _enter(kind)
    try:
        if torch.is_autocast_enabled(kind):
            with torch.autocast(kind, enabled=False):
                yield
        else:
            yield
    finally:
        _leave(kind)
