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

    The views into a buffer take longer to make than a small solve takes to run. Who takes a
    workspace has it alone: a signal's handler or a destructor that runs meanwhile takes another.
    Who is interrupted does not give it back.
    """

    def __init__(self) -> None:
        self._kept: OrderedDict[Hashable, W] = OrderedDict()

    def take(self, key: Hashable, make: Callable[[], W]) -> W:
        """Return the workspace that was given back under a key, or a new one."""
        found = self._kept.pop(key, None)
        if found is not None:
            return found
        made = make()
        while self._kept and self._nbytes() + made.nbytes > _KEPT_BYTES:
            self._kept.popitem(last=False)
        return made

    def give_back(self, key: Hashable, workspace: W) -> None:
        """Keep a workspace under a key."""
        self._kept[key] = workspace

    def _nbytes(self) -> int:
        return sum(w.nbytes for w in self._kept.values())
