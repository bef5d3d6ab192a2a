"""A call to time, its name and its role in the comparison; its threads, and its end."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from invconv.kernels.cpu import threads
from invconv_conformance.libraries.table import Target

Floats = np.ndarray[Any, Any]
Call = Callable[[], Any]


@dataclass(frozen=True)
class Contender:
    """A call to time."""

    name: str
    role: str  # "ours"; "plain", what ours is compared with; "peer", what else a user could run
    does: str  # which of the group's ``does``
    target: Target
    build: Callable[[], Call]  # plans and returns the call
    images: Callable[[Any], Floats] | None = None  # of an inverse: makes its result NumPy's
    before: Call = lambda: None  # is called when its turn comes, before the clock starts


def wait(target: Target, result: Any) -> None:
    """Wait until the arrays that a call returned are computed."""
    for part in result if isinstance(result, (tuple, list)) else (result,):
        target.library.synchronise(part)


def set_threads(library: str, count: int) -> None:
    """Set how many threads a library's solves use, where that can be set in a running process."""
    if library == "torch":
        import torch

        torch.set_num_threads(count)
    elif library == "numpy":
        threads.set_num_threads(count)
