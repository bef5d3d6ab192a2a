"""A guard for training: it names the layer whose inverse is about to be lost.

To measure what an inverse loses costs as much as several training steps, so the guard looks at one
layer at a time, and only when it may spend what the costliest look so far has cost.

Public as `invconv.bounded`, `invconv.diagnose`; the guards of torch and JAX derive from `guard`.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from invconv.arrays.errors import IllConditionedWarning
from invconv.arrays.namespaces import Shape
from invconv.arrays.settings import is_number
from invconv.operators.base import judgement
from invconv.operators.base.calls import require_spatial_shape
from invconv.operators.base.checks import callers_level, solved_in
from invconv.operators.base.operator import InvertibleConv

MOST_DIGITS = 15  # float64 has 15.7
Layers = Mapping[str, tuple[InvertibleConv, Shape]]


@dataclass(frozen=True)
class LayerCondition:
    """What the guard knows of a layer.

    Attributes
    ----------
    name : str
    spatial_shape : tuple of int
        The grid it was judged on.
    error : float
        The largest error of an entry of the inverse, over the largest entry, as `diagnose` has it.
    digits : float
        Decimal digits that are left in the precision in which the layer is solved.
    """

    name: str
    spatial_shape: Shape
    error: float
    digits: float


class Guard:
    """Watch the inverses of many layers at a bounded cost.

    The worst layer known and the one that was not looked at for longest take turns.

    Parameters
    ----------
    digits : float
        Warn below so many decimal digits; with fewer than two an inverse counts as lost.
    budget : float
        The share of the time since the first call that may be spent on looking; the first call
        always looks, and with 1 every call does.
    clock : callable
        Seconds, from any start.

    Raises
    ------
    ValueError
        If a number is out of range.
    """

    def __init__(
        self,
        *,
        digits: float = 3.0,
        budget: float = 0.005,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        if not (is_number(budget) and 0 < budget <= 1):
            raise ValueError(f"budget: expected a share above 0, at most 1, got {budget!r}")
        if not (is_number(digits) and 0 <= digits <= MOST_DIGITS):
            raise ValueError(f"digits: expected a number from 0 to {MOST_DIGITS}, got {digits!r}")
        self.digits, self.budget = digits, budget
        self.known: dict[str, LayerCondition] = {}
        self.seconds = 0.0
        self._costliest = 0.0
        self._clock = clock
        self._start: float | None = None
        self._warned: set[str] = set()
        self._again = False  # whether the worst layer's turn is next

    @property
    def worst(self) -> LayerCondition | None:
        """The layer with the fewest digits left, None before the first look."""
        return min(self.known.values(), key=lambda found: found.digits, default=None)

    def step(self, layers: Callable[[], Layers]) -> LayerCondition | None:
        """Look at one layer if there is time for it, and return the worst known.

        Parameters
        ----------
        layers : callable
            Returns each layer's operator and grid by its name; called only when there is time.

        Warns
        -----
        IllConditionedWarning
            That names the layer, once until it has recovered.
        """
        now = self._clock()
        if self._start is None:
            self._start = now
        allowed = self.budget * (now - self._start)
        if self.budget == 1 or self.seconds + self._costliest <= allowed:
            there = layers()
            name = self._next(there)
            if name is not None:
                self._look(name, *there[name])
            self._costliest = max(self._costliest, self._clock() - now)
        worst = self.worst
        self.seconds += self._clock() - now  # glances at the clock count, too
        return worst

    def look_at_all(self, layers: Callable[[], Layers]) -> LayerCondition | None:
        """Look at every layer, whatever time it takes, and return the worst.

        The parameter and the warning are those of `step`, whose budget it uses up.
        """
        now = self._clock()
        if self._start is None:
            self._start = now
        there = layers()
        self.known = {}
        for name, (conv, shape) in there.items():
            self._look(name, conv, shape)
        self.seconds += self._clock() - now
        return self.worst

    def _next(self, there: Layers) -> str | None:
        """Return whose turn it is."""
        self.known = {name: found for name, found in self.known.items() if name in there}
        new = next((name for name in there if name not in self.known), None)
        if new is not None or self.worst is None:
            return new
        self._again = not self._again
        return self.worst.name if self._again else next(iter(self.known))

    def _look(self, name: str, conv: InvertibleConv, shape: Shape) -> None:
        shape = require_spatial_shape(conv, shape)
        precision = solved_in(conv)
        found = judgement.judge(conv, shape, precision)
        digits = found.digits(precision)
        self.known.pop(name, None)  # so that it is the last in turn
        self.known[name] = LayerCondition(name, shape, found.error, digits)
        if digits >= self.digits:
            self._warned.discard(name)
        elif name not in self._warned:
            self._warned.add(name)
            grid = " x ".join(map(str, shape))
            warnings.warn(
                f"the inverse of {name} ({type(conv).__name__}) is off by {found.error:.1e} of its "
                f"largest entry on a grid of {grid}, {found.leg} {found.rests_on}: {digits:.1f} "
                f"digits are left in {precision}; lower the learning rate, or train with max_gain "
                "(invconv.bounded)",
                IllConditionedWarning,
                stacklevel=callers_level(),
            )
