"""The number of terms of an exponential's series, remembered until its kernel changes.

The host needs the number, which depends on values. From a device it is read once for every version
of a kernel that torch counts. Edits through ``.data`` or by a replayed graph change no version. The
device detects them: taps with a larger norm than the number allows become NaN there, so that no
result has too few terms.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeAlias

import torch
from torch.utils.weak import WeakTensorKeyDictionary

from invconv.kernels.families import StencilFamily
from invconv.kernels.series import (
    Counts,
    counts_for,
    counts_of,
    largest_norm,
    norm_bound,
    without_mean,
)
from invconv_torch.native import host
from invconv_torch.traced import traced

Tensor: TypeAlias = torch.Tensor
Shape: TypeAlias = tuple[int, ...]

_GRIDS = 8  # numbers of terms that are remembered for a kernel


@dataclass
class _Known:
    """The numbers of terms for one version of a kernel, by family and grid."""

    version: tuple[int, int]
    counts: dict[tuple[StencilFamily, Shape], Counts] = field(default_factory=dict)


_known = WeakTensorKeyDictionary()


def has_values(w: Tensor) -> bool:
    """Tell whether a tensor has values, to count terms by; fake and meta tensors have none."""
    return type(w) in host.PLAIN and not w.is_meta


def counted(
    family: StencilFamily, w: Tensor, kernel: Tensor, shape: Shape
) -> tuple[Tensor, Counts | None]:
    """See `invconv.kernels.exponential`."""
    if traced() or not has_values(w):
        return w, None
    if host.in_host_memory(w):
        # NumPy is quicker for few numbers; of a copy: FSDP could not resize a tensor that it views
        taps = w.detach().clone()
        return w, counts_of(family, taps.resolve_neg().numpy())
    eps = torch.finfo(w.dtype).eps
    if kernel.is_inference():  # inference tensors have no versions
        return w, counts_for(_read(_norm(family, w)), eps)
    version = host.version_of(kernel)
    known = _known.get(kernel)
    if known is None or known.version != version:
        known = _known[kernel] = _Known(version)
    counts = known.counts.get((family, shape))
    if counts is None:
        counts = counts_for(_read(_norm(family, w)), eps)
        if len(known.counts) >= _GRIDS:
            known.counts.clear()
        known.counts[family, shape] = counts
        return w, counts
    enough = _norm(family, w) <= largest_norm(counts, eps)
    return torch.where(enough, w, torch.nan), counts


def _norm(family: StencilFamily, w: Tensor) -> Tensor:
    norm: Tensor = norm_bound(without_mean(family, w.detach())[0])
    return norm


def _read(norm: Tensor) -> float:
    """Return a 0-d tensor's number; the host waits for it."""
    return float(norm)
