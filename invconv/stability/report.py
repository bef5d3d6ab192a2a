"""The result of `invconv.diagnose`: the numbers, and the block of text that reports them."""

import math
import textwrap
from dataclasses import dataclass

from invconv.arrays.namespaces import Shape, grid_text
from invconv.trust import limits
from invconv.trust.condition import EPS, Condition, digits_left
from invconv.trust.round_trip import Judgement

UNRESOLVED = (
    "not resolved: rounding in float64 alone may account for the smallest singular value, so that "
    "the condition says no more than that no digit is certain"
)
_WIDTH = 96


@dataclass(frozen=True, repr=False, kw_only=True)
class Diagnosis(Condition):
    """The result of `diagnose`; its repr is a block of text.

    Attributes
    ----------
    name : str
        The name of the operator's class.
    spatial_shape : tuple of int
    precision : str
        "float32" or "float64", the precision in which the inverse runs.
    log_det : float
    condition : float
        |K| |K^-1|, as `InvertibleConv.condition`; inf if K is singular or the inverse overflows.
    norm : str
        The norm of the condition: "1-norm" or "2-norm".
    exact : bool
        True if the condition is the number itself. Else it is an estimate from below; on a large
        grid, the estimate on a part of it times the growth of noise from there.
    resolved : bool
        False if rounding in float64 alone may account for the condition: no digit is certain.
    loss : float
        The growth, at worst, of rounding errors of the inverse as it runs, step after step, in the
        1-norm and the infinity norm.
    judgements : dict of str to Judgement
        The error of the inverse as it runs in "float32" and in "float64": the largest error of an
        entry over the largest entry, as measured.
    blame : str
        The name of the step that loses most digits; "" if there is one step, or nothing is lost.
    growth : tuple of float, one per axis, or None
        The factor of |K^-1| for one more pixel along an axis, NaN if the grid is too short for all
        taps; None on a closed grid, where |K^-1| follows no such law.
    channel, pixel, frequency : int, tuple of int, tuple of numbers, or None
        Where an error in y harms x most: a column of K^-1, or for periodic and symmetric
        convolutions a frequency, in periods along each axis of the grid.
    trouble : str
        Why the condition is inf or not resolved, else "".
    steps : tuple of (str, Diagnosis)
        The diagnosis of each step, by its name in `parameters`.
    advice : tuple of str
        Remedies, the most useful first.

    Examples
    --------
    >>> import numpy as np
    >>> from invconv import AutoregressiveConv, diagnose
    >>> diagnosis = diagnose(AutoregressiveConv(np.asarray([[[1.0, -3.0]]])), (30,), "float32")
    >>> round(diagnosis.growth[0], 4), diagnosis.condition > 1e14
    (3.0, True)
    """

    name: str
    spatial_shape: Shape
    precision: str
    log_det: float
    loss: float
    judgements: dict[str, Judgement]
    blame: str
    growth: tuple[float, ...] | None
    steps: "tuple[tuple[str, Diagnosis], ...]" = ()
    advice: tuple[str, ...] = ()

    @property
    def error(self) -> float:
        """The largest error of an entry of the inverse in ``precision``, over the largest entry."""
        return self.judgements[self.precision].error

    @property
    def digits(self) -> float:
        """The number of digits left in ``precision``."""
        return self.judgements[self.precision].digits(self.precision)

    @property
    def digits_float32(self) -> float:
        """The number of digits left of float32's 6.9 decimal digits."""
        return self.judgements["float32"].digits("float32")

    @property
    def digits_float64(self) -> float:
        """The number of digits left of float64's 15.7 decimal digits."""
        return self.judgements["float64"].digits("float64")

    @property
    def worst_float32(self) -> float:
        """The number of float32's digits left for the worst image, by the bound ``loss``."""
        return min(self.digits_float32, digits_left(self.loss, EPS["float32"]))

    @property
    def worst_float64(self) -> float:
        """The number of float64's digits left for the worst image, by the bound ``loss``."""
        return min(self.digits_float64, digits_left(self.loss, EPS["float64"]))

    def __repr__(self) -> str:
        digits = "no digit is" if self.digits < 0.5 else f"{self.digits:.1f} digits are"
        grid = grid_text(self.spatial_shape)
        lines = [f"{self.name} on a grid of {grid}: {digits} left in {self.precision}"]
        for label, text in _rows(self):
            wrapped = [text] if len(text) <= _WIDTH - 15 else textwrap.wrap(text, _WIDTH - 15)
            lines += [f"  {label:<13}{wrapped[0]}", *(" " * 15 + more for more in wrapped[1:])]
        return "\n".join(lines)


def _rows(d: Diagnosis) -> list[tuple[str, str]]:
    kind = "exact" if d.exact else "an estimate" if d.resolved else "not resolved"
    number = f"{d.condition:.3g}" + (f" ({d.norm}, {kind})" if math.isfinite(d.condition) else "")
    rows = [("log-det", f"{d.log_det:.6g}"), ("condition", number)]
    if d.trouble:
        rows.append(("", d.trouble))
    if d.loss > 2 * d.condition:
        rows.append(("loss", f"{d.loss:.3g}, as the steps are solved one after the other"))
    for label, single, double, leg in (
        ("digits left", d.digits_float32, d.digits_float64, "measured"),
        ("", d.worst_float32, d.worst_float64, "at worst"),
    ):
        text = f"{single:.1f} of 6.9 in float32, {double:4.1f} of 15.7 in float64, {leg}"
        rows.append((label, text))
    lost = f"; most is lost by step {d.blame}" if d.blame else ""
    rows.append(("measured", f"on round trips of random images{lost}"))
    rows.append(("growth", _growth(d)))
    rows.append(("worst", _worst(d)))
    if d.steps:
        rows.append(("steps", f"{'':28}{'condition':>10}  {'float32':>7} {'float64':>7}  growth"))
        rows += [("", _step(name, step)) for name, step in d.steps]
    first, *others = d.advice
    return [*rows, ("to do", first), *(("", text) for text in others)]


def _growth(d: Diagnosis) -> str:
    """Return the growth along each axis, and the digits that a pixel costs, as text."""
    if d.growth is None:
        return "not defined: " + ("see above" if d.trouble else "its pixels have no order")
    texts = []
    for axis, (g, n) in enumerate(zip(d.growth, d.spatial_shape, strict=True)):
        lost = n // 2 * math.log10(g)
        if g >= limits.GROWING:
            texts.append(f"{g:.3g} per pixel on axis {axis} ({math.log10(g):.2f} digits)")
        elif lost >= limits.SLOW:
            texts.append(f"slow on axis {axis}: its last half costs {lost:.1f} digits")
    short = [str(axis) for axis, g in enumerate(d.growth) if math.isnan(g)]
    if short:
        texts.append(f"not known along axis {' and '.join(short)}, too short for all taps")
    return ", ".join(texts) or "none: a larger grid loses no more"


def _worst(d: Diagnosis) -> str:
    """Return the place or frequency where an error does most harm, as text."""
    if d.frequency is not None:
        pairs = zip(d.frequency, d.spatial_shape, strict=True)
        periods = [f if 2 * f <= n else f - n for f, n in pairs]
        return f"errors with {' x '.join(f'{f:g}' for f in periods)} periods across the grid"
    if d.channel is None:
        return "-"
    place = "at any pixel" if d.pixel is None else f"at pixel {d.pixel}"
    return f"errors in channel {d.channel} {place}"


def _step(name: str, d: Diagnosis) -> str:
    growth = ", ".join("?" if math.isnan(g) else f"{g:.3g}" for g in d.growth or ()) or "-"
    return (
        f"{name + ' ' + d.name:28.28}{d.condition:>10.3g}  "
        f"{d.digits_float32:>7.1f} {d.digits_float64:>7.1f}  {growth}"
    )
