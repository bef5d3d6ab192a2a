"""The words of a diagnosis: its report, and what to do about an inverse that cannot be trusted."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from invconv.operators.autoregressive import AutoregressiveConv
from invconv.operators.periodic import PeriodicConv
from invconv.trust import condition

if TYPE_CHECKING:
    from invconv.operators.base.operator import InvertibleConv
    from invconv.stability.diagnosis import Diagnosis

UNRESOLVED = (
    "not resolved: rounding in float64 alone may account for the smallest singular value, so that "
    "the condition says no more than that no digit is certain"
)
_WANTED = 2.0  # digits, below which `inverse` warns
_GROWING = 1.01  # per pixel, and
_GROWS = 0.5  # digits over a grid, from which the size of the grid is worth a word
_REFINEMENTS = 4
_FARTHEST = 4  # times the grid, up to which its growth is trusted
_LASTS = "two digits last"
_WIDTH = 96


def what_to_do(host: InvertibleConv, d: Diagnosis) -> tuple[str, ...]:
    """Return advice, the most useful first.

    Parameters
    ----------
    host : InvertibleConv
        What was diagnosed, of NumPy float64.
    d : Diagnosis
    """
    if d.digits >= _WANTED:
        return (f"nothing on this grid in {d.precision}", *_largest_grids(host, d))
    found = [_cause(host, d)]
    if d.precision == "float32" and d.digits_float64 >= _WANTED:
        found.append(f"or solve in float64, where {d.digits_float64:.1f} digits are left")
    return (*found, *_largest_grids(host, d))


def beyond_range(host: InvertibleConv, d: Diagnosis, smaller: Diagnosis) -> Diagnosis:
    """Complete the diagnosis of an inverse that overflows by that of the same on half the grid."""
    trouble = d.trouble
    known = not any(map(math.isnan, smaller.growth or ()))
    if smaller.growth is not None and known and math.isfinite(smaller.condition):
        pixels = zip(d.spatial_shape, smaller.spatial_shape, smaller.growth, strict=True)
        more = sum((n - m) * math.log10(g) for n, m, g in pixels if n > m)
        exponent = math.log10(smaller.condition) + more
        grid = _grid(smaller.spatial_shape)
        trouble += f"; about 1e+{exponent:.0f}, by its growth on a grid of {grid}"
    d = replace(d, growth=smaller.growth, trouble=trouble)
    lasts = [text for text in smaller.advice if text.startswith(_LASTS)]
    return replace(d, advice=(_cause(host, d), *lasts))


def _cause(host: InvertibleConv, d: Diagnosis) -> str:
    """Say what to change where too few digits are left."""
    if d.condition == math.inf and not d.trouble.startswith(condition.OVERFLOW):
        return "repair that first: nothing else can be said"
    if d.steps:
        name, worst = max(d.steps, key=lambda step: step[1].loss)
        if worst.digits >= _WANTED:
            return "no step is bad by itself: bring all parameters closer to their initialisation"
        return f"look at step {name}, {worst.name}: {worst.advice[0]}"
    if isinstance(host, AutoregressiveConv):
        causal = host._causal()
        rho = condition.neumann_ratio(causal.diagonal, causal.taps)
        if not math.isfinite(rho):
            return "bring D, the matrix of the pixel itself, closer to 1: D^-1 overflows"
        return (
            f"make the other taps smaller against those of the pixel itself: |D^-1| sum |taps| is "
            f"{rho:.3g}, and below 1 the inverse is safe on every grid"
        )
    if isinstance(host, PeriodicConv):
        return "change the kernel or the grid, so that the spectrum stays away from zero there"
    most = "" if d.channel is None else f": errors in channel {d.channel} grow most"
    return f"make the matrix less singular{most}"


def _largest_grids(host: InvertibleConv, d: Diagnosis) -> list[str]:
    """Say up to which grids of this shape the wanted digits last.

    The growth tells, for larger grids than that of the diagnosis; on smaller ones it is a first
    guess, which Newton's method improves.
    """
    per_grid = sum(
        n * math.log10(g)
        for n, g in zip(d.spatial_shape, d.growth or (), strict=False)
        if not g <= 1  # one that is not known makes all of it unknown
    )
    if not per_grid >= _GROWS or not math.isfinite(d.loss):
        return []
    found = []
    for precision, eps in condition.EPS.items():
        scale = 1 - (_WANTED + math.log10(d.loss * eps)) / per_grid
        for _ in range(_REFINEMENTS):
            if not 0 < scale < 1:
                break
            there = condition.number(host, _scaled(d.spatial_shape, scale)).value
            scale -= (_WANTED + math.log10(there * d.loss / d.condition * eps)) / per_grid
        if 0 < scale <= _FARTHEST:
            found.append(f"{_grid(_scaled(d.spatial_shape, scale))} in {precision}")
    return [f"{_LASTS} for grids of about {', '.join(found)}"] if found else []


def _scaled(shape: Sequence[int], scale: float) -> tuple[int, ...]:
    return tuple(max(1, int(n * scale)) for n in shape)


def report(d: Diagnosis) -> str:
    """Return the text of a diagnosis."""
    digits = "no digit is" if d.digits < 0.5 else f"{d.digits:.1f} digits are"
    lines = [f"{d.name} on a grid of {_grid(d.spatial_shape)}: {digits} left in {d.precision}"]
    for label, text in _rows(d):
        wrapped = [text] if len(text) <= _WIDTH - 15 else textwrap.wrap(text, _WIDTH - 15)
        lines += [f"  {label:<13}{wrapped[0]}", *(" " * 15 + more for more in wrapped[1:])]
    return "\n".join(lines)


def _rows(d: Diagnosis) -> list[tuple[str, str]]:
    kind = "exact" if d.exact else "an estimate from below" if d.resolved else "not resolved"
    number = f"{d.condition:.3g}" + (f" ({d.norm}, {kind})" if math.isfinite(d.condition) else "")
    rows = [("log-det", f"{d.log_det:.6g}"), ("condition", number)]
    if d.trouble:
        rows.append(("", d.trouble))
    if d.loss > 2 * d.condition:
        rows.append(("loss", f"{d.loss:.3g}, as the steps are solved one after the other"))
    for label, single, double, whose in (
        ("digits left", d.digits_float32, d.digits_float64, "at worst"),
        ("", d.typical_float32, d.typical_float64, "for a typical image"),
    ):
        text = f"{single:.1f} of 6.9 in float32, {double:4.1f} of 15.7 in float64, {whose}"
        rows.append((label, text))
    rows.append(("growth", _growth(d)))
    rows.append(("worst", _worst(d)))
    if d.steps:
        rows.append(("steps", f"{'':28}{'condition':>10}  {'float32':>7} {'float64':>7}  growth"))
        rows += [("", _step(name, step)) for name, step in d.steps]
    first, *others = d.advice
    return [*rows, ("to do", first), *(("", text) for text in others)]


def _grid(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape)) or "1"


def _growth(d: Diagnosis) -> str:
    """Say the growth along each axis, and the digits that a pixel costs."""
    if d.growth is None:
        return "not defined: " + ("see above" if d.trouble else "the grid is closed")
    if all(g < _GROWING for g in d.growth):
        return "none: a larger grid loses no more"
    found = [
        f"{g:.3g} a pixel along axis {axis} ({math.log10(g):.2f} digits)"
        for axis, g in enumerate(d.growth)
        if g >= _GROWING
    ]
    short = [str(axis) for axis, g in enumerate(d.growth) if math.isnan(g)]
    if short:
        found.append(f"not known along axis {' and '.join(short)}, too short for all taps")
    return ", ".join(found)


def _worst(d: Diagnosis) -> str:
    """Say where an error does most harm."""
    if d.frequency is not None:
        pairs = zip(d.frequency, d.spatial_shape, strict=True)
        periods = [f if 2 * f <= n else f - n for f, n in pairs]
        return f"errors with {_grid(periods)} periods across the grid"
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
