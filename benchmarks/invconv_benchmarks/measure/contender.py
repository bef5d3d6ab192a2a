"""A call to time, its name, and its role in the comparison."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from invconv_conformance.libraries.table import Target

Floats = np.ndarray[Any, Any]
Call = Callable[[], Any]


@dataclass(frozen=True)
class Contender:
    """A call to time.

    Attributes
    ----------
    name : str
    role : {"ours", "plain", "peer"}
        Ours; what it is compared with, in most suites a plain convolution of the same library; what
        a user would pick instead of ours.
    does : str
        Which of the group's ``does`` it does.
    target : Target
    build : callable
        Plans and returns the call.
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
    images: Callable[[Any], Floats] | None = None
    before: Call | None = None


def wait(target: Target, result: Any) -> None:
    """Wait until the arrays that a call returned are computed."""
    for part in result if isinstance(result, (tuple, list)) else (result,):
        if isinstance(part, dict):
            wait(target, list(part.values()))
        else:
            target.library.synchronise(part)
