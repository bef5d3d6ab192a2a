"""An operator as a list of factors, from which its maps and their derivatives follow.

    K = A_n ... A_1,    y = K x + b

A class says its factors, and how gradients by their weights become gradients by its own arrays.
A part, and a bias, are factors by themselves. `invconv.families` has the factors.
"""

from __future__ import annotations

import itertools
from abc import abstractmethod
from typing import Any

from invconv.arrays.namespaces import Array, Shape, namespace, readable, size
from invconv.families import path as paths
from invconv.families.factored import State
from invconv.families.family import BOTH, Wanted
from invconv.families.path import Bars, Path
from invconv.families.route import Memo, Route, runs
from invconv.operators.base.factors import Gradients, Traits, require_regular


class Factored(Traits, abstract=True):
    """What follows from an operator's factors, on arrays (B, C, *spatial) that can be solved in."""

    def _route(self, x: Array) -> Route:
        """Return the route of K x + b for images like x."""
        shape = tuple(x.shape[2:])
        guard = require_regular(self, shape) if self._inverts_forward else None
        return Route(self._path(), shape, guard, pixels=x.shape[0] * size(shape))

    @abstractmethod
    def _factor(self, shape: Shape) -> State:
        """Return the factored map, with its bias."""

    def _pull_back(
        self, memo: Memo, y_bar: Any, log_det_bar: Any = None, wanted: Wanted = BOTH
    ) -> tuple[Gradients, Any]:
        """Return the gradients of <y_bar, K x + b> + log_det_bar log|det K|, and those by x."""
        bars, x_bar = memo.pull_back(y_bar, log_det_bar, wanted)
        gradients = self._gradients(self._filled(memo.route.path, bars)) if wanted[0] else {}
        return gradients, x_bar

    def _inverse_vjp(
        self, y: Any, x: Array, x_bar: Array, log_det_bar: Any = None
    ) -> tuple[Gradients, Array]:
        """Pull x_bar back through x = inverse(y), without solving for x again.

        y may be None unless `_needs_y`. ``log_det_bar`` is the cotangent of log|det K|.
        """
        path, shape = self._path(), tuple(x.shape[2:])
        back = paths.inverse(path)
        guard = None if readable(x) else require_regular(self, shape, back=True)
        route = Route(back, shape, guard, bare=True)
        ends = _ends(back, route, y, x)
        bars, y_bar = route.pull_back(list(itertools.pairwise(ends)), x_bar)
        bars = bars[::-1]
        if log_det_bar is not None:
            memos = paths.log_det(path, shape, saving=True)[1]
            bars = paths.add_log_det_vjp(bars, path, shape, memos, log_det_bar)
        return self._gradients(self._filled(path, bars)), y_bar

    def _filled(self, path: Path, bars: Bars) -> Bars:
        """Return the gradients, with zeros for None if another factor of the part has one."""
        labels = self._labels
        given = {label for label, bar in zip(labels, bars, strict=True) if bar is not None}
        return [
            _zeros(factor.w, bar) if label in given and not factor.is_shift else bar
            for factor, label, bar in zip(path, labels, bars, strict=True)
        ]


def _ends(back: Path, route: Route, y: Any, x: Array) -> list[Any]:
    """Return y and the result of each leg of the inverse: from x, by the forward map."""
    points, split = [x], runs(back)
    biased = len(split) > 1 and split[0][0].is_shift
    for run in split[:biased:-1]:
        leg = Route(paths.inverse(run), tuple(x.shape[2:]))
        points.append(leg(points[-1]))
    if biased:
        points.append(None if y is None else route.legs[0](y))
    return [y, *points[::-1]]


def _zeros(w: Any, bar: Any) -> Any:
    if isinstance(w, tuple):
        return tuple(map(_zeros, w, (None,) * len(w) if bar is None else bar))
    return namespace(w).zeros_like(w) if bar is None else bar
