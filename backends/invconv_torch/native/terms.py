"""How many terms an exponential's series has, remembered as long as its kernel stays as it was.

The number is the host's business and depends on values. On a device it is read once for every
version of a kernel that torch counts. An edit that no version tells of, such as one through
``.data`` or by a graph that is replayed, is seen by the device: taps of a larger norm than was
counted for become NaN there, so that no result has too few terms.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeAlias

import torch
from torch.utils.weak import WeakTensorKeyDictionary

from invconv.kernels import series
from invconv.kernels.families import StencilFamily
from invconv.kernels.series import Counts, counts_for, counts_of, largest_norm, norm_bound
from invconv_torch.native import host
from invconv_torch.traced import traced, unwatched

Tensor: TypeAlias = torch.Tensor
Shape: TypeAlias = tuple[int, ...]

_GRIDS = 8  # how many are remembered of a kernel


@dataclass
class _Known:
    """The numbers of terms of one version of a kernel, by family and grid."""

    version: tuple[int, int]
    counts: dict[tuple[StencilFamily, Shape], Counts] = field(default_factory=dict)


_known = WeakTensorKeyDictionary()


def has_values(w: Tensor) -> bool:
    """Tell whether there are values by which to count terms; fake and meta tensors have none."""
    return type(w) in host.PLAIN and not w.is_meta


def counted(
    family: StencilFamily, w: Tensor, kernel: Tensor, shape: Shape
) -> tuple[Tensor, Counts | None]:
    """See `invconv.kernels.exponential`."""
    if traced() or not has_values(w):
        return w, None
    if host.in_host_memory(w):  # NumPy takes less time for few numbers; of a copy, since what it
        taps = w.detach().clone()  # sees cannot be resized any more, as FSDP does with parameters
        return w, counts_of(family, taps.resolve_neg().numpy())
    eps = torch.finfo(w.dtype).eps
    if kernel.is_inference():  # which has no versions
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


def without_mean(family: StencilFamily, w: Tensor) -> tuple[Tensor, Tensor]:
    """See `invconv.kernels.series.without_mean`: in the place of a copy."""
    here = (0,) * len(family.offsets[0])
    if here not in family.offsets or not unwatched():
        taps, mean = series.without_mean.agnostic(family, w)
        return taps, mean
    taps = w.clone()
    centre = taps[family.offsets.index(here)].diagonal()
    mean = centre.mean()
    centre.sub_(mean)
    return taps, mean


def _norm(family: StencilFamily, w: Tensor) -> Tensor:
    found: Tensor = norm_bound(without_mean(family, w.detach())[0])
    return found


def _read(norm: Tensor) -> float:
    """Return a number, for which the host waits."""
    return float(norm)
