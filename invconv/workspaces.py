"""What a thread keeps from one solve to the next: buffers and the views into them."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, Protocol, TypeVar

_KEPT_BYTES = 2**26


class Sized(Protocol):
    """Anything that says how much memory it takes."""

    @property
    def nbytes(self) -> int:
        """Bytes of memory."""


W = TypeVar("W", bound=Sized)


class Workspaces(threading.local, Generic[W]):
    """The workspaces that a thread used last, up to 64 MiB but at least one.

    The views into a buffer take longer to make than a small solve takes to run.
    """

    def __init__(self) -> None:
        self._kept: OrderedDict[Hashable, W] = OrderedDict()

    def get(self, key: Hashable, make: Callable[[], W]) -> W:
        """Return the workspace kept under a key, or a new one."""
        found = self._kept.get(key)
        if found is not None:
            self._kept.move_to_end(key)
            return found
        found = self._kept[key] = make()
        while len(self._kept) > 1 and sum(w.nbytes for w in self._kept.values()) > _KEPT_BYTES:
            self._kept.popitem(last=False)
        return found
