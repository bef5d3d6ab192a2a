"""Full precision of float32: TF32, bfloat16 passes and autocast never decide a result."""

import os
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch

from invconv.arrays.namespaces import dtype_name
from invconv_torch.private import get_fp32_precision, set_fp32_precision

_REDUCED, _BACKENDS = {"tf32", "bf16"}, {"cpu": "mkldnn", "cuda": "cuda"}

AUTOCAST = (torch.float32, torch.float16, torch.bfloat16)  # the dtypes that it casts from or to
_AS_IT_IS = nullcontext()
# the switches belong to the process, not to a thread; reentrant, for signal handlers
_lock = threading.RLock()
_depth: Counter[str] = Counter()
_saved: dict[str, list[tuple[str, str, str]]] = {}


def _switches(kind: str) -> list[tuple[str, str, str]]:
    """Return (backend, product, value to restore) of each switch that reduces precision now."""
    found, backend = [], _BACKENDS.get(kind, "")
    for product in ("matmul", "conv") if backend else ():
        if (value := get_fp32_precision(backend, product)) in _REDUCED:
            # a switch set to "none" shows the value of the switch above: restore it as "none"
            follows = value == get_fp32_precision(backend, "all")
            found.append((backend, product, "none" if follows else value))
    return found


if hasattr(os, "register_at_fork"):  # not on Windows; a child must find the lock free
    os.register_at_fork(
        before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_lock.release
    )


def autocasting(kind: str) -> bool:
    """Tell whether autocast is on for a type of device (some types do not have it)."""
    known = kind in ("cpu", "cuda") or torch.amp.is_autocast_available(kind)
    return bool(known and torch.is_autocast_enabled(kind))


def full_precision(x: torch.Tensor) -> AbstractContextManager[None]:
    """Return a context of full precision on the device of ``x``; it restores all switches.

    If several threads are inside, the last one to leave restores them.
    """
    kind = x.device.type
    with _lock:  # no other thread changes the switches meanwhile
        plain = not (_depth or autocasting(kind) or _switches(kind))
    return _AS_IT_IS if plain else _switched(kind)


@contextmanager
def _switched(kind: str) -> Iterator[None]:
    with _lock:
        if not _depth[kind]:
            _saved[kind] = _switches(kind)
            for backend, product, _ in _saved[kind]:
                set_fp32_precision(backend, product, "ieee")
        _depth[kind] += 1
    try:
        with torch.autocast(kind, enabled=False) if autocasting(kind) else _AS_IT_IS:
            yield
    finally:
        with _lock:
            _depth[kind] -= 1
            if not _depth[kind]:
                del _depth[kind]
                for switch in _saved.pop(kind):
                    set_fp32_precision(*switch)


_METHODS = {torch.float64: "double", torch.float32: "float", torch.float16: "half"}


def require_alike(name: str, x: torch.Tensor, own: torch.Tensor) -> None:
    """Raise if x has another floating dtype, or is on another device, than a layer's parameters."""
    if x.dtype != own.dtype and x.is_floating_point():
        there, here = (_METHODS.get(kind, dtype_name(kind)) for kind in (x.dtype, own.dtype))
        raise TypeError(
            f"{name}: expected dtype {dtype_name(own.dtype)} as the layer's parameters have, got "
            f"{dtype_name(x.dtype)}; nothing is promoted silently: call layer.{there}() or "
            f"{name}.{here}()"
        ) from None
    if x.device != own.device:
        raise ValueError(
            f"{name}: expected a tensor on {own.device} as the layer's parameters are, got one on "
            f"{x.device}; nothing is moved silently: call layer.to({str(x.device)!r}) or "
            f"{name}.to({str(own.device)!r})"
        ) from None
