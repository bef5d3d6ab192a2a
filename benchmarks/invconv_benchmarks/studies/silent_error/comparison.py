"""What is said of an inverse beside what is left of it."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from rich.console import Console
from rich.progress import track

import invconv as ic
from invconv.operators.base import judgement
from invconv_benchmarks.studies.silent_error.constructions import Construction, Shape
from invconv_benchmarks.studies.silent_error.truth import digits, error_of

LOST, ENOUGH = 2.0, 3.0  # digits: what must warn, and what must not
CLOSE, FAR = 0.5, 1.0  # digits between what is said and what is left


@dataclass(frozen=True)
class Compared:
    """An operator's digits as they are said and as they are left, and what warns.

    Its inverse may, or its way forward where that has an inverse in it.
    """

    name: str
    conv: ic.InvertibleConv
    shape: Shape
    said: float
    left: float
    inverse_warns: bool
    forward_warns: bool

    @property
    def hopeful(self) -> float:
        """How many digits too many are said; negative where too few are."""
        return self.said - self.left

    @property
    def silent(self) -> bool:
        """Whether an inverse is lost and nothing warns, by more than samples differ."""
        return not (self.inverse_warns or self.forward_warns) and self.left < LOST - CLOSE

    @property
    def false_alarm(self) -> bool:
        """Whether the inverse warns though three digits are left."""
        return self.inverse_warns and self.left >= ENOUGH


def compare(construction: Construction, rng: np.random.Generator) -> Compared | None:
    """Return the comparison of an operator; None where it is refused as singular."""
    name, conv, shape = construction
    precision = str(conv._reference()[1].dtype)
    zeros = np.zeros((1, conv.channels, *shape), precision)
    with np.errstate(all="ignore"):
        try:
            warned = [_warns(lambda: conv.prepare(shape)), _warns(lambda: conv.forward(zeros))]
            left = digits(error_of(conv, shape, rng), precision)
        except (ic.SingularConvError, np.linalg.LinAlgError):
            return None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ic.IllConditionedWarning)
            said = judgement.judge(conv, shape, precision).digits(precision)
    return Compared(name, conv, shape, said, left, *warned)


def _warns(call: Callable[[], object]) -> bool:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ic.IllConditionedWarning)
        call()
    return any(issubclass(w.category, ic.IllConditionedWarning) for w in caught)


def compare_all(constructions: Iterable[Construction], what: str) -> list[Compared]:
    """Compare operators, with a bar that shows how far it is."""
    rng = np.random.default_rng()
    shown = track(list(constructions), what, console=Console(stderr=True), transient=True)
    compared = (compare(one, rng) for one in shown)
    return [one for one in compared if one is not None]
