"""Hill-climbs that look for a silent error: parameters that make an inverse worse while none warns.

A (1 + 1) evolution strategy: every parameter is moved by a random amount of a random size, and the
move is kept where the error of the inverse is larger and nothing is said. Both must be so twice, on
samples of their own and by a judgement of their own, and the lesser error counts: of all samples of
a climb the luckiest one tells nothing of an operator.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from rich.console import Console
from rich.progress import track

import invconv as ic
from invconv.operators.base import judgement
from invconv.operators.base.checks import TOLERATED
from invconv_benchmarks.studies.silent_error.constructions import Construction, Shape
from invconv_benchmarks.studies.silent_error.truth import error_of

_SAMPLES = 9  # of each kind of y
_FORGETS = 0.999  # an evaluation, of a height that luck may have made so large
_FLOAT32 = np.empty(0, np.float32)


@dataclass(frozen=True)
class Climb:
    """Where a climb ended.

    Attributes
    ----------
    evaluations : int
    warned : int
        How many of them would have been worse, but warned.
    silent : float
        The largest error that was found twice without a warning.
    end : (name, operator, grid)
        The operator that has it, without what it remembers.
    """

    evaluations: int
    warned: int
    silent: float
    end: Construction


Start = Callable[[np.random.Generator], ic.InvertibleConv]


def _corner(rng: np.random.Generator, channels: int) -> ic.InvertibleConv:
    return ic.AutoregressiveConv.init(channels, 2, 1, rng=rng)


def _undone(rng: np.random.Generator) -> ic.InvertibleConv:
    first, second = (ic.Conv1x1.init(3, rng=rng) for _ in range(2))
    return ic.Chain([first, ic.Inverse(second)])


STARTS: tuple[tuple[str, Start, Shape], ...] = (
    ("PLU factors", lambda rng: ic.PLUConv1x1.init(3, rng=rng), (4,)),
    ("an emerging pair", lambda rng: ic.EmergingConv.init(2, rng=rng), (3, 3)),
    ("a step and an inverse", _undone, (4,)),
    ("12 channels in a row", partial(_corner, channels=12), (6,)),
)


def climb(name: str, start: Start, shape: Shape, evaluations: int, seed: int = 0) -> Climb:
    """Climb from an operator and return where that ends."""
    rng = np.random.default_rng(seed)
    best = found = start(rng).asarrays(_FLOAT32)
    height, silent, warned = 0.0, 0.0, 0
    shown = track(range(evaluations), name, console=Console(stderr=True), transient=True)
    with np.errstate(all="ignore"):
        for _ in shown:
            moved = _moved(best, rng)
            error, loud = _tried(moved, shape, rng)
            warned += loud and error > height
            if not loud and error > height:
                again, loud = _tried(moved.replace(), shape, rng)  # which has forgotten what it is
                error = min(error, again)
            if not loud and error > height:
                best, height = moved, error
            if not loud and error > silent:
                found, silent = moved, error
            height *= _FORGETS
    return Climb(evaluations, warned, silent, (name, found.replace(), shape))


def _tried(conv: ic.InvertibleConv, shape: Shape, rng: np.random.Generator) -> tuple[float, bool]:
    """Return the error of an inverse, and whether it is refused or warns."""
    try:
        error = error_of(conv, shape, rng, _SAMPLES)
        return error, judgement.exceeds(conv, shape, "float32", TOLERATED)
    except (ic.SingularConvError, np.linalg.LinAlgError):
        return 0.0, True


def _moved(conv: ic.InvertibleConv, rng: np.random.Generator) -> ic.InvertibleConv:
    """Return a copy with parameters moved, relative to their size and by a little more."""
    strength = 10.0 ** rng.uniform(-4, 0.5)
    arrays = {}
    for name, array in conv.parameters().items():
        moves = rng.standard_normal((2, *array.shape))
        chosen = rng.uniform(size=array.shape) < rng.choice([0.1, 0.5, 1.0])
        step = strength * chosen * (moves[0] * array + 0.1 * moves[1])
        arrays[name] = (array + step).astype(array.dtype)
    return conv.replace(**arrays)
