"""Remembered inverses: factored once, and kept as long as the parameters do not change.

No stream of a CUDA device waits for a remembered inverse, so each stream has its own. An inverse
that is factored while a graph is recorded exists in the graph only, and is not kept. An inverse
that a recorded graph uses lives as long as the module.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

import invconv as ic
from invconv.arrays.namespaces import Shape
from invconv.operators.base.calls import PreparedInverse
from invconv_torch.private import version_of

_GRIDS = 4  # inverses that a module keeps, for different grids and streams


@dataclass(frozen=True, eq=False)
class Kept:
    """A prepared inverse, and a record of the tensors from which it was factored."""

    prepared: PreparedInverse
    tensors: list[Any]  # copies of those on a CPU; else each tensor with its address and version

    @staticmethod
    def of(factor: Callable[[], PreparedInverse], tensors: list[Tensor]) -> "Kept":
        """Record the tensors, and then factor: a thread may edit them meanwhile."""
        was = [
            t.detach().clone() if t.device.type == "cpu" else (t, *version_of(t)) for t in tensors
        ]
        return Kept(factor(), was)

    def holds(self, tensors: list[Tensor]) -> bool:
        """Tell whether the tensors are unchanged."""
        return len(tensors) == len(self.tensors) and all(
            (was[0] is t and was[1:] == version_of(t))
            if isinstance(was, tuple)
            else (was.dtype == t.dtype and was.device == t.device and torch.equal(was, t))
            for t, was in zip(tensors, self.tensors, strict=True)
        )


class RememberedInverses:
    """The last inverses of a module, by grid and stream."""

    def __init__(self) -> None:
        # by grid and stream; the one that was used last is last
        self._kept: dict[tuple[Shape, int | None], Kept] = {}
        self._in_graphs: list[Kept] = []

    def find(
        self, operator: Callable[[], ic.InvertibleConv], shape: Shape, tensors: list[Tensor]
    ) -> PreparedInverse:
        """Return the inverse for a grid; factor the operator if none is kept for these tensors.

        While a graph is recorded, the inverse of any stream will do: PyTorch waits for the device
        before it records.
        """
        stream, recorded = queue_of(tensors[0])
        key = shape, stream
        if recorded and key not in self._kept:
            key = next((k for k in reversed(list(self._kept)) if k[0] == shape), key)
        kept = self._kept.get(key)
        if kept is None or not kept.holds(tensors):
            with torch.no_grad():
                kept = Kept.of(lambda: operator().prepare(shape, check=False), tensors)
            if recorded:
                return kept.prepared
        # put last; if another thread does the same, an inverse may be missing and is factored anew
        self._kept.pop(key, None)
        self._kept[key] = kept
        for first in list(self._kept)[:-_GRIDS]:
            self._kept.pop(first, None)
        if recorded and not any(kept is other for other in self._in_graphs):
            self._in_graphs.append(kept)
        return kept.prepared

    def grids(self) -> list[Shape]:
        """Return the grids of the inverses that are kept."""
        return list(dict.fromkeys(shape for shape, _ in self._kept))

    def forget(self) -> None:
        """Forget all inverses but those that recorded graphs use."""
        self._kept.clear()


def queue_of(t: Tensor) -> tuple[int | None, bool]:
    """Return the current stream of a tensor's device, and whether a graph records it."""
    if t.device.type != "cuda":
        return None, False
    with torch.cuda.device(t.device):
        stream = torch.cuda.current_stream().cuda_stream
        return stream, torch.cuda.is_current_stream_capturing()
