"""Diagnosis of an inverse: whether it can be trusted, why not, and what to do.

The error that round trips measure (`base.judgement`) says how many digits are left, and bounds in
float64 say how many are left at worst; the bounds alone would condemn many random operators that
keep three digits (``python -m invconv benchmark silent_error`` counts them).
"""

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from invconv.arrays.namespaces import Shape, dtype_name, grid_text, to_float
from invconv.families import path as paths
from invconv.families.path import Path
from invconv.families.pointwise import PointwiseFamily
from invconv.operators.base import conditions, judgement
from invconv.operators.base.calls import require_spatial_shape
from invconv.operators.base.factors import Holder, as_operator
from invconv.operators.base.operator import InvertibleConv
from invconv.operators.inverse import Inverse
from invconv.trust import condition, limits
from invconv.trust.condition import EPS, HALF_EPS, Condition, digits_left
from invconv.trust.limits import TOLERATED
from invconv.trust.round_trip import Judgement

_WIDTH = 96
_WANTED = -math.log10(TOLERATED)  # digits: with fewer, `inverse` warns
_STEPS = 4  # of Newton's method


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
        grid, the larger of an estimate on a part of it and a bound from below on the whole.
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
        The factor by which |K^-1| grows for one more pixel along an axis, NaN if the grid is too
        short for all taps; None on a closed grid, where |K^-1| follows no such law.
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
            begin = f"  {label:<13}"
            lines += textwrap.wrap(text, _WIDTH, initial_indent=begin, subsequent_indent=" " * 15)
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
    rows.append(("growth", _growth_text(d)))
    rows.append(("worst", _worst(d)))
    if d.steps:
        rows.append(("steps", f"{'':28}{'condition':>10}  {'float32':>7} {'float64':>7}  growth"))
        rows += [("", _step(name, step)) for name, step in d.steps]
    first, *others = d.advice
    return [*rows, ("to do", first), *(("", text) for text in others)]


def _growth_text(d: Diagnosis) -> str:
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


def diagnose(conv: InvertibleConv | Holder, spatial_shape: Shape, dtype: Any = None) -> Diagnosis:
    """Tell whether the inverse of an operator can be trusted, and why not.

    Parameters
    ----------
    conv : InvertibleConv, or layer or chain of invconv_torch
        An operator of any library; its values are copied to host memory and judged in float64.
    spatial_shape : tuple of int
        The grid.
    dtype : dtype or str, optional
        The dtype of the inverse; the parameters' dtype unless given. float16 and bfloat16 are
        solved in float32.

    Raises
    ------
    ValueError, TypeError
        If the grid does not fit the operator, or it cannot run in the dtype.

    Examples
    --------
    A kernel that looks harmless, on a grid of 32 x 32 and in float32. Measured numbers differ a
    little from call to call, since samples are drawn anew:

    >>> import numpy as np
    >>> from invconv import AutoregressiveConv, diagnose
    >>> kernel = np.asarray([[[[1.0, -0.5], [-0.5, -0.5]]]])
    >>> diagnose(AutoregressiveConv(kernel), (32, 32), "float32")  # doctest: +ELLIPSIS
    AutoregressiveConv on a grid of 32 x 32: no digit is left in float32
      log-det      0
      condition    7.73e+08 (1-norm, exact)
      digits left  0... of 6.9 in float32,  ... of 15.7 in float64, measured
                   0.0 of 6.9 in float32,  6.8 of 15.7 in float64, at worst
      measured     on round trips of random images
      growth       1.63 per pixel on axis 0 (0.21 digits), 1.63 per pixel on axis 1 (0.21 digits)
      worst        errors in channel 0 at pixel (0, 0)
      to do        make the other taps smaller against those of the pixel itself: |D^-1| sum |taps|
                   is 1.5, and below 1 the inverse is safe on every grid
                   or solve in float64, where ... digits are left
                   two digits last for grids of about 2... x 2... in float32, 4... x 4... in float64
    """
    operator: InvertibleConv = as_operator("conv", conv)
    shape = require_spatial_shape(operator, spatial_shape)
    precision, half = judgement.solved_in(operator), judgement.half_of(operator)
    if dtype is not None:
        name = dtype if isinstance(dtype, str) else getattr(dtype, "__name__", None)
        name = name or dtype_name(dtype)
        half = name if name in HALF_EPS else ""
        precision = "float32" if half else name
        if precision not in EPS:
            raise ValueError(
                f"dtype: expected float32, float64, or a half type (solved in float32), got {name}"
            )
    return _diagnose(operator.asarrays(np.empty(0)), shape, precision, half)


def _diagnose(
    host: InvertibleConv,
    shape: Shape,
    precision: str,
    half: str,
    times: float = 1,
    within: str = "",
) -> Diagnosis:
    """Return a diagnosis; ``times`` operators share the work, ``within`` prefixes step names."""
    if isinstance(host, Inverse):  # its forward map is the inverse of ``host.conv``: judge both
        inner = _diagnose(host.conv, shape, precision, half, times, f"{within}conv.")
        own = {name: judgement.judge(host, shape, name, times=times, half=half) for name in EPS}
        worse = {
            name: max(own[name], inner.judgements[name], key=lambda j: j.error) for name in EPS
        }
        title = f"Inverse of {inner.name}"
        return replace(inner, name=title, log_det=-inner.log_det, judgements=worse)
    steps = {within + name: step for name, step in host._parts().items()}
    each = times * len(steps)
    named = {n: _diagnose(s, shape, precision, half, each) for n, s in steps.items()}
    path = paths.linear(host._path())
    number, grid, more = conditions.condition_about(host, shape, times * (1 + len(path)) / 2)
    loss, cancelled, back = number.condition, 1.0, math.inf
    if math.isfinite(loss):
        loss, cancelled, back = _losses(path, host.channels, grid)
        loss = max(number.condition, loss * more)
    resolved = number.resolved and all(step.resolved for step in named.values())
    resolved = resolved and not min(loss, cancelled) * EPS["float64"] > limits.UNRESOLVED
    if not resolved:
        loss = max(loss, 1 / EPS["float64"])
        trouble = number.trouble or (
            "not resolved: rounding in float64 alone may account for the smallest singular value, "
            "so that the condition says no more than that no digit is certain"
        )
        number = replace(number, exact=False, resolved=False, trouble=trouble)
    growth = None
    if math.isfinite(number.condition) or number.trouble == condition.OVERFLOW:
        growth, grid = _growth(host, path, grid, back)
    if growth and not math.isfinite(number.condition):
        known = conditions.condition(host, grid).condition
        pixels = zip(growth, shape, grid, strict=True)
        exponent = math.log10(known) + sum((n - m) * math.log10(g) for g, n, m in pixels if n > m)
        if math.isfinite(exponent):
            about = f"about 1e+{exponent:.0f}, by its growth on a grid of {grid_text(grid)}"
            number = replace(number, trouble=f"{number.trouble}; {about}")
    judged = partial(judgement.judge, host, shape, times=times / 2, half=half)
    judgements = {name: judged(name) for name in EPS}
    lossy = judgements[precision].error > limits.NEAR * TOLERATED
    blamed = judgement.blame(host, shape, precision) if lossy else None
    with np.errstate(all="ignore"):
        log_det = to_float(host.log_det(shape))
    diagnosis = Diagnosis(
        **vars(number),
        name=type(host).__name__,
        spatial_shape=shape,
        precision=precision,
        log_det=log_det,
        loss=loss,
        judgements=judgements,
        blame=within + blamed.name if blamed and blamed.bad else "",
        growth=growth,
        steps=tuple(named.items()),
    )
    return replace(diagnosis, advice=what_to_do(host, diagnosis, times))


def _losses(path: Path, channels: int, shape: Shape) -> tuple[float, float, float]:
    """Return the loss of factors one after the other, the cancellation between them, and |K^-1|_1.

    With P_i = K_i ... K_1, the solve of factor i makes an error of eps |K_i| times its result
    P_(i-1) x, and P_i^-1 carries it on. The loss is max over i of |P_i^-1| |K_i| |P_(i-1)|, in the
    1-norm and the infinity norm. If the inverse of a factor is a product, its result has an error
    of eps |K_i^-1| |P_i x|, and P_(i-1)^-1 carries it on. The cancellation is the larger of
    prod |K_i| / |K| and prod |K_i^-1| / |K^-1|. Rounding makes |K| and |K^-1| uncertain by no more
    than eps times the smaller of the two; the inverse of matrices is right at any condition, since
    it is computed from the factors.
    """
    pixelwise = all(factor.family.pixelwise for factor in path)
    losses, cancelled = [], 1.0
    alone: Any
    upto: Any
    for norm in (math.inf, 1):
        if pixelwise:
            dense = zip(*conditions.matrices(path, channels), strict=True)
            alone, upto = ([[np.linalg.norm(m, norm) for m in p] for p in some] for some in dense)
        else:
            norms = partial(conditions.norms_of_path, channels=channels, shape=shape, norm=norm)
            alone = [norms([factor]) for factor in path]
            upto = [alone[0], *(norms(path[: i + 1]) for i in range(1, len(path)))]
            with np.errstate(over="ignore", invalid="ignore"):
                cancelled = float(np.max(np.prod(alone, axis=0) / upto[-1]))
        before: Any = (1.0, 1.0)
        for factor, own, after in zip(path, alone, upto, strict=True):
            solved, applied = (before, after) if factor.inverted else (after, before)
            losses.append(solved[1] * own[factor.inverted] * applied[0])
            before = after
    return float(max(losses)), cancelled, before[1]


def _growth(
    conv: InvertibleConv, path: Path, shape: Shape, norm: float
) -> tuple[tuple[float, ...] | None, Shape]:
    """Return the factor of |K^-1|_1 for one more pixel along each axis, and the grid measured.

    ``norm`` is |K^-1|_1 on the grid. With m half of an axis's pixels, the factor is (norm / |K^-1|
    with m pixels fewer)^(1/m). If |K^-1| overflows, the grid is halved; on a closed grid the growth
    is None.
    """
    if conv._closed:
        return None, shape
    if conv._pixelwise:
        return tuple(1.0 for _ in shape), shape

    def on(grid: Shape) -> float:
        return conditions.norms_of_path(path, conv.channels, grid, 1)[1]

    while not math.isfinite(norm):
        if max(shape) == 1:
            return None, shape
        shape = tuple(max(1, n // 2) for n in shape)
        norm = on(shape)
    factors = []
    for axis, n in enumerate(shape):
        if n <= max(family.reaches_back(axis) for family in conv._families):
            factors.append(math.nan)
            continue
        part = (*shape[:axis], n - n // 2, *shape[axis + 1 :])
        factors.append((norm / on(part)) ** (1 / max(1, n // 2)))
    return tuple(factors), shape


def what_to_do(host: InvertibleConv, d: Diagnosis, times: float = 1) -> tuple[str, ...]:
    """Return advice, the most useful first; ``times`` operators share the work."""
    grids = _largest_grids(host, d, times)
    if d.digits >= _WANTED:
        return (f"no change is needed on this grid in {d.precision}", *grids)
    remedies = [_cause(host, d)]
    if d.precision == "float32" and d.digits_float64 >= _WANTED:
        remedies.append(f"or solve in float64, where {d.digits_float64:.1f} digits are left")
    if host._has_least_squares:
        remedies.append(
            "or use least_squares(y, damp), which amplifies no error by more than 1 / (2 damp); "
            "damp_for_noise finds the damp"
        )
    return (*remedies, *grids)


def _cause(host: InvertibleConv, d: Diagnosis) -> str:
    """Return the change that helps if too few digits are left."""
    while isinstance(host, Inverse):  # d is the diagnosis of the inner operator
        host = host.conv
    if d.condition == math.inf and not d.trouble.startswith(condition.OVERFLOW):
        return "repair that first: nothing else can be said"
    for name, step in d.steps:
        if f"{d.blame}.".startswith(f"{name}."):
            lost, own = step.digits < _WANTED, name.rpartition(".")[2]
            cause = step.advice[0] if lost else _cause(host._parts()[own], step)
            return f"look at step {name}, {step.name}: {cause}"
    if d.steps and not d.blame:
        return (
            "no step is bad by itself: they undo each other, or all lose a little; bring all "
            "parameters closer to their initialisation"
        )
    matrices = all(isinstance(family, PointwiseFamily) for family in host._families)
    if matrices and len(host._families) > 1 and d.loss > limits.FACTORS_GROW * d.condition:
        return "bring the factors closer to their initialisation: their product hides how they grow"
    harmless = d.loss * EPS[d.precision] <= TOLERATED  # but for the bias
    if d.blame.endswith("bias") or (harmless and any(step.is_shift for step in host._path())):
        return "make the bias smaller: it hides the digits of an ordinary y"
    return host.advice(d.channel)


def _largest_grids(host: InvertibleConv, d: Diagnosis, times: float) -> list[str]:
    """Return a sentence on the largest grids of this shape that leave the wanted digits.

    For grids larger than the diagnosed one the growth gives the size. For smaller grids it gives a
    first guess, from the loss at worst, which Newton's method improves by measurements there.
    """
    per_grid = sum(
        n * math.log10(g)
        for n, g in zip(d.spatial_shape, d.growth or (), strict=False)
        if not g <= 1  # an unknown growth, NaN, makes the sum NaN
    )
    if not per_grid >= limits.GROWS:
        return []
    grids, at_worst = [], math.log10(d.loss) if math.isfinite(d.loss) else per_grid
    for precision, eps in EPS.items():
        error = d.judgements[precision].error
        lost = max(0.0, at_worst + math.log10(eps)) if error >= 1 else math.log10(max(error, eps))
        scale = 1 - (_WANTED + lost) / per_grid
        grid = None
        for _ in range(_STEPS):
            if not 0 < scale < 1 or _scaled(d.spatial_shape, scale) == grid:
                break
            grid = _scaled(d.spatial_shape, scale)
            smaller = judgement.judge(host, grid, precision, times=2 * _STEPS * times)
            lost = math.log10(min(max(smaller.error, eps), 1.0))
            scale = max(grid) / max(d.spatial_shape) - (_WANTED + lost) / per_grid
        if 0 < scale <= limits.FARTHEST:
            grids.append(f"{grid_text(_scaled(d.spatial_shape, scale))} in {precision}")
    return [f"two digits last for grids of about {', '.join(grids)}"] if grids else []


def _scaled(shape: Sequence[int], scale: float) -> tuple[int, ...]:
    return tuple(max(1, int(n * scale)) for n in shape)
