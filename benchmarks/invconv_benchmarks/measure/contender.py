"""What is timed: a call, who makes it, and what it stands for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from invconv_conformance.libraries.table import Target

Floats = np.ndarray[Any, Any]
Call = Callable[[], Any]


@dataclass(frozen=True)
class Label:
    """What a contender is called, does, and runs on.

    Attributes
    ----------
    contender : str
        Its name.
    role, does : str
        As of a `Contender`.
    library, device, mode : str
        Of its target.
    """

    contender: str
    role: str
    does: str
    library: str
    device: str
    mode: str


@dataclass(frozen=True)
class Contender:
    """A call to time.

    Attributes
    ----------
    name : str
    role : {"ours", "plain", "peer"}
        Ours; a plain convolution of the same library, which cannot be undone; what a user would
        pick instead of ours.
    does : str
        Which of the group's ``does`` it does.
    target : Target
    build : callable
        Plans and returns the call.
    absent : str
        Why it cannot run here, if it cannot.
    images : callable or None
        Turns what the call returns into x (B, C, H, W) with K x = y, in NumPy, if it does that.
    before : callable or None
        Is called when its turn comes, before the clock starts: a setting that it needs.
    """

    name: str
    role: str
    does: str
    target: Target
    build: Callable[[], Call]
    absent: str = ""
    images: Callable[[Any], Floats] | None = None
    before: Call | None = None

    @property
    def label(self) -> Label:
        """What is reported of it."""
        target = self.target
        place = target.library.name, target.device, target.mode
        return Label(self.name, self.role, self.does, *place)


def wait(target: Target, result: Any) -> None:
    """Wait until what a call returned is there."""
    for part in result if isinstance(result, (tuple, list)) else (result,):
        if isinstance(part, dict):
            wait(target, list(part.values()))
        else:
            target.library.synchronise(part)
