"""An operator as a list of factors, from which its maps and their derivatives follow.

    K = A_n ... A_1,    y = K x + b

A class says its factors, and how gradients by their weights become gradients by its own arrays.
A part, and a bias, are factors by themselves. `invconv.families` has the factors.
"""

import itertools
import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, Self

import numpy as np

from invconv.arrays.derived import derived
from invconv.arrays.errors import SingularConvError
from invconv.arrays.namespaces import Array, Shape, grid_text, namespace, readable, size, to_float
from invconv.families import path as paths
from invconv.families.factored import State
from invconv.families.family import BOTH, SHIFT, Family, Wanted
from invconv.families.path import Bars, Factor, FactorLike, Path
from invconv.families.route import Memo, Route, runs, undone_as_one
from invconv.operators.base.copies import Carried

Gradients = dict[str, Array]


class FactorList(Carried, abstract=True):
    """The factors of an operator, in the order in which they run."""

    def factors(self) -> Sequence[FactorLike]:
        """Return the factors of K: a family and its weights each, in the order in which they run.

        Unless a class says otherwise, the factors of its parts, one part after the other.
        """
        if not self._part_names:
            raise TypeError(f"{type(self).__name__}: expected a method `factors`, or parts")
        return [factor for conv in self._parts().values() for factor in conv._path()]

    def factors_vjp(self, bars: Sequence[Any]) -> Gradients:
        """Return the gradients by the own arrays, given those by the weights of each factor.

        Unless a class says otherwise, those of its parts.
        """
        if type(self).factors is not FactorList.factors and not self._part_names:
            raise TypeError(
                f"{type(self).__name__}: expected a method `factors_vjp` beside `factors`"
            )
        gradients: Gradients = {}
        rest = iter(bars)
        for prefix, conv in self._parts().items():
            own = conv._gradients(list(itertools.islice(rest, len(conv._labels))))
            gradients |= {f"{prefix}.{name}": gradient for name, gradient in own.items()}
        return gradients

    def within(self, gain: float) -> Self:
        """Return an operator with other arrays; its inverse has a 2-norm of at most ``gain``.

        A class without such a parametrisation raises TypeError.
        """
        raise TypeError(
            f"conv: expected an operator whose class bounds its inverse, got {type(self).__name__}"
        )

    def advice(self, channel: int | None) -> str:
        """Return the change of parameters that `diagnose` recommends if too few digits are left.

        ``channel`` is the channel whose errors grow most, if it is known.
        """
        most = "" if channel is None else f": errors in channel {channel} grow most"
        return f"make the matrix less singular{most}"

    def _path(self) -> list[Factor]:
        """Return the factors, the bias last."""
        factors = self.factors()
        try:
            path = [Factor(*factor) for factor in factors]
        except TypeError:
            raise self._no_pairs(factors) from None
        if (bias := getattr(self, "bias", None)) is not None:
            path.append(Factor(SHIFT, bias))
        return path

    def _no_pairs(self, factors: Any) -> TypeError:
        return TypeError(
            f"{type(self).__name__}.factors: expected pairs of a family, such as Matrix(), and its "
            f"weights, got {factors!r:.80}"
        )

    def _gradients(self, bars: Sequence[Any]) -> Gradients:
        """Return the gradients by the arrays, given those by the weights of `_path`."""
        if all(bar is None for bar in bars):
            return {}
        bias = getattr(self, "bias", None)
        gradients = self.factors_vjp(bars if bias is None else bars[:-1])
        if unknown := gradients.keys() - set(self._parameter_names):
            raise ValueError(
                f"{type(self).__name__}.factors_vjp: expected gradients by "
                f"{', '.join(self._parameter_names)}, got one by {', '.join(sorted(unknown))}"
            )
        return gradients if bias is None or bars[-1] is None else gradients | {"bias": bars[-1]}

    @derived
    def _labels(self) -> tuple[tuple[str, str], ...]:
        """Return the part that each factor belongs to: its prefix and its class."""
        if type(self).factors is not FactorList.factors:
            return (("", type(self).__name__),) * len(self._path())
        parts = self._parts().items()
        inner = tuple(label for prefix, conv in parts for label in inside(prefix, conv._labels))
        return inner if getattr(self, "bias", None) is None else (*inner, ("bias", "bias"))


class Traits(FactorList, abstract=True):
    """The traits of an operator that follow from its factors without their values."""

    @derived
    def _families(self) -> tuple[Family, ...]:
        return tuple(factor.family for factor in paths.linear(self._path()))

    @derived
    def _closed(self) -> bool:
        """Tell whether a factor continues the grid periodically or by mirroring."""
        return any(family.closed for family in self._families)

    @derived
    def _inverts_forward(self) -> bool:
        """Tell whether the forward map contains a solve, which must be judged."""
        path = self._path()
        if not all(isinstance(factor.family, Family) for factor in path):  # once an operator
            raise self._no_pairs(path)
        return any(factor.inverted and not factor.is_shift for factor in path)

    @derived
    def _pixelwise(self) -> bool:
        """Tell whether K acts on each pixel alone and alike, so that the grid does not matter."""
        return all(family.pixelwise for family in self._families)

    @derived
    def _spectral(self) -> bool:
        """Tell whether K is one matrix per frequency."""
        return len(self._families) == 1 and self._families[0].spectral and not self._inverts_forward

    @derived
    def _needs_y(self) -> bool:
        """Tell whether the derivative of x = inverse(y) needs y besides x."""
        back = paths.inverse(self._path())
        first = next(run for run in runs(back) if not run[0].is_shift)
        applied = not first[0].inverted
        return applied or undone_as_one(first) or first[0].family.needs_y

    @derived
    def _keeps_y(self) -> bool:
        """Tell whether the derivative of y = forward(x) holds y."""
        last = self._path()[-1]
        return last.inverted and not last.is_shift

    def _prime(self) -> None:
        """Compute the cached properties that depend on no values, so that copies share them."""
        _ = self.channels, self.ndim, self._parameter_names, self._stacked, self._labels
        _ = self._inverts_forward, self._needs_y, self._keeps_y


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
        route, x_bar = memo.route, None
        bars: Bars = [None] * len(route.path)
        if y_bar is not None:
            bars, x_bar = route.pull_back(memo.kept, y_bar, wanted)
        if not wanted[0]:
            return {}, x_bar
        if log_det_bar is not None:
            bars = paths.add_log_det_vjp(bars, route.path, route.shape, memo.memos, log_det_bar)
        return self._gradients(self._filled(route.path, bars)), x_bar

    def _inverse_vjp(
        self, y: Any, x: Array, x_bar: Array, log_det_bar: Any = None
    ) -> tuple[Gradients, Array]:
        """Pull x_bar back through x = inverse(y), without solving for x again.

        y may be None unless `_needs_y`. ``log_det_bar`` is the cotangent of log|det K|.
        """
        path, shape = self._path(), tuple(x.shape[2:])
        back = paths.inverse(path)
        guard = None if readable(x) else require_regular(self, shape, back=True)
        route = Route(back, shape, guard)
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


def inside(prefix: str, labels: Sequence[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
    """Return the labels of a part, as they are in the whole."""
    return tuple((f"{prefix}.{name}" if name else prefix, kind) for name, kind in labels)


def require_regular(
    conv: FactorList, shape: Shape, *, back: bool = False, log_det: Any = None
) -> Array | None:
    """Raise if a factor that is solved is exactly singular, as far as it is readable.

    The factors are those that the inverse solves if ``back``, else those of the forward map;
    ``log_det`` is their log|det|, if it is known. It is returned if it is not readable.
    """
    if log_det is None:
        if not (solved := paths.solved(conv._path(), back)):
            return None
        log_det = paths.log_det([factor for _, factor in solved], shape)[0]
    if not readable(log_det):
        return log_det
    if not math.isfinite(to_float(log_det)):
        for place, factor in paths.solved(conv._path(), back):
            if to_float(paths.log_det([factor], shape)[0]) == -math.inf:
                raise SingularConvError(_singular(conv, factor.family, place, shape))
    return None


def _singular(conv: FactorList, family: Family, place: int, shape: Shape) -> str:
    """Return the error of a singular factor."""
    with np.errstate(all="ignore"):
        host = conv._on_host(np.float64)._path()[place]
        elsewhere = to_float(paths.log_det([Factor(family, host.w)], shape)[0])
        resolved = math.isfinite(elsewhere)
        if resolved and (condition := family.condition(host.w, shape)) is not None:
            resolved = condition.resolved  # else the number may be the rounding of a zero
    note = f", and {elsewhere:.6g} in NumPy's float64: a number is too small here" * resolved
    return (
        f"{conv._labels[place][1]} is exactly singular on a grid of {grid_text(shape)} "
        f"(log_det is -inf{note}), so it has no inverse: {family.hint}"
    )


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
