"""Advice on an inverse that cannot be trusted: sentences for the report of `diagnose`."""

import math
from collections.abc import Sequence

from invconv.arrays.namespaces import grid_text
from invconv.families.pointwise import PointwiseFamily
from invconv.operators.base.judgement import judge
from invconv.operators.base.operator import InvertibleConv
from invconv.operators.inverse import Inverse
from invconv.stability.report import Diagnosis
from invconv.trust import condition, limits

_WANTED = -math.log10(limits.TOLERATED)  # digits: with fewer, `inverse` warns
_STEPS = 4  # of Newton's method


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
    harmless = d.loss * condition.EPS[d.precision] <= limits.TOLERATED  # but for the bias
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
    for precision, eps in condition.EPS.items():
        error = d.judgements[precision].error
        lost = max(0.0, at_worst + math.log10(eps)) if error >= 1 else math.log10(max(error, eps))
        scale = 1 - (_WANTED + lost) / per_grid
        grid = None
        for _ in range(_STEPS):
            if not 0 < scale < 1 or _scaled(d.spatial_shape, scale) == grid:
                break
            grid = _scaled(d.spatial_shape, scale)
            smaller = judge(host, grid, precision, times=2 * _STEPS * times)
            lost = math.log10(min(max(smaller.error, eps), 1.0))
            scale = max(grid) / max(d.spatial_shape) - (_WANTED + lost) / per_grid
        if 0 < scale <= limits.FARTHEST:
            grids.append(f"{grid_text(_scaled(d.spatial_shape, scale))} in {precision}")
    return [f"two digits last for grids of about {', '.join(grids)}"] if grids else []


def _scaled(shape: Sequence[int], scale: float) -> tuple[int, ...]:
    return tuple(max(1, int(n * scale)) for n in shape)
