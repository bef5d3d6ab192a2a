"""What an operator's class says, its factors, and what they tell without their values."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any, Self

import numpy as np

from invconv.arrays.derived import derived
from invconv.arrays.errors import SingularConvError
from invconv.arrays.namespaces import Array, Shape, grid_text, readable, to_float
from invconv.families import path as paths
from invconv.families.family import SHIFT, Family
from invconv.families.path import Factor, FactorLike, Path
from invconv.families.route import runs, undone_as_one
from invconv.operators.base.copies import Carried

Gradients = dict[str, Array]


class FactorList(Carried, abstract=True):
    """The factors of an operator, in the order in which they run."""

    # --- what a class says -------------------------------------------------------------------

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
            own = conv._gradients(list(itertools.islice(rest, conv._count)))
            gradients |= {f"{prefix}.{name}": gradient for name, gradient in own.items()}
        return gradients

    def within(self, gain: float) -> Self:
        """Return an operator with other arrays; its inverse has a 2-norm of at most ``gain``.

        Raises
        ------
        TypeError
            Where the class has no such parametrisation.
        """
        raise TypeError(
            f"conv: expected an operator whose class bounds its inverse, got {type(self).__name__}"
        )

    # --- the path ----------------------------------------------------------------------------

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

    @derived
    def _count(self) -> int:
        return len(self._labels)


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
        """Tell whether K is one matrix a frequency."""
        return len(self._families) == 1 and self._families[0].spectral and not self._inverts_forward

    @derived
    def _solves_by_applying(self) -> bool:
        """Tell whether the inverse is a map of the forward map's kind: nothing is factored."""
        return len(self._families) == 1 and self._families[0].solves_by_applying

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
        _ = self.channels, self.ndim, self._parameter_names, self._stacked, self._count
        _ = self._inverts_forward, self._needs_y, self._keeps_y


def inside(prefix: str, labels: Sequence[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
    """Return the labels of a part, as they are in the whole."""
    return tuple((f"{prefix}.{name}" if name else prefix, kind) for name, kind in labels)


def require_regular(
    conv: FactorList, shape: Shape, *, back: bool = False, log_det: Any = None
) -> Array | None:
    """Raise if a factor that is solved is exactly singular, as far as it is readable.

    Parameters
    ----------
    back : bool
        True for the factors that the inverse solves, False for those of the forward map.
    log_det : 0-d array, optional
        log|det| of these factors, if it is known.

    Returns
    -------
    0-d array or None
        log|det| of these factors if it is not readable.
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


def log_det_and_guard(conv: Traits, path: Path, shape: Shape) -> tuple[Array, Array | None]:
    """Return log|det K|, and that of the factors that the inverse solves if it is not readable.

    Raises if one of them is exactly singular, as far as it is readable.
    """
    guard = require_regular(conv, shape, back=True) if conv._inverts_forward else None
    log_det = paths.log_det(path, shape)[0]
    if not conv._inverts_forward:  # the inverse solves all factors
        guard = require_regular(conv, shape, back=True, log_det=log_det)
    return log_det, guard


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
