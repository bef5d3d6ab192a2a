"""The laws of derivatives: exact gradients, in both directions."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from invconv.arrays.namespaces import Array
from invconv_conformance.laws.compiled import PULLBACKS
from invconv_conformance.laws.law import Floats, Measure, largest, law, values
from invconv_conformance.laws.setting import Setting
from invconv_conformance.truth.bounds import EPS

_DIFFERENCES_HOLD = 1e-10  # condition x eps beyond which the dense differences are no truth


@law("vjp.input", "linear algebra", singular=True)
def vjp_input(s: Setting) -> Iterator[Measure]:
    """x_bar = K^T y_bar, and y_bar = K^-T x_bar through the inverse."""
    bar = s.images[2]
    wanted = s.transposed(bar)
    cases = [("x_bar", wanted, s.unit * s.scales.gain * s.norm(bar))]
    if not s.case.singular:
        solved = s.transposed(bar, inverse=True)
        cases.append(("y_bar", solved, s.lever * s.norm(solved)))
    # K does not depend on x, so that the log-determinant adds nothing
    more = (None,) if s.case.singular else (None, s.ones)
    for (what, right, bound), method, image in zip(cases, PULLBACKS, s.images, strict=False):
        for log_det_bar in more:
            _, found = getattr(s.conv, method)(s.array(image), s.array(bar), log_det_bar)
            yield s.off(what, found, right, bound + s.cast(s.norm(right)))


@law("vjp.parameters", "central differences of fourth order of the dense matrix")
def vjp_parameters(s: Setting) -> Iterator[Measure]:
    """The gradients of <y_bar, K x + b> + s log|det K|, and of the inverse's, by each parameter."""
    if s.scales.condition * EPS["float64"] > _DIFFERENCES_HOLD:
        return
    batch = s.case.batch_shape
    s_bar = np.linspace(-1.0, 2.0, max(1, math.prod(batch))).reshape(batch)
    gradients = [
        (
            f"{method[:7]}{' and log_det' * (log_det_bar is not None)}",
            getattr(s.conv, method)(s.array(image), s.array(s.images[2]), log_det_bar)[0],
        )
        for method, image in zip(PULLBACKS, s.images, strict=False)
        for log_det_bar in (None, s.cotangent(s_bar))
    ]
    rng = s.case.rng()
    for name, array in s.host.parameters().items():
        direction = rng.standard_normal(array.shape)
        direction /= max(1.0, float(np.linalg.norm(direction)))
        truth = _differences(s, name, direction, s_bar)
        for (what, found), (slope, size) in zip(gradients, truth, strict=True):
            terms = values(found[name]) * direction
            reach = float(np.abs(terms).sum())
            bound = (s.lever + 1e-9) * (size + reach) + float(s.cast(np.asarray(reach)))
            yield Measure(f"{what}, {name}_bar", abs(float(terms.sum()) - slope), bound)


@law("autodiff", "the chain rule", eager=True)
def autodiff(s: Setting) -> Iterator[Measure]:
    """The library's own automatic differentiation gives the same gradients."""
    pullback = s.target.library.pullback
    if pullback is None:
        return
    bar = s.array(s.images[2])
    for what, image in zip(("forward", "inverse"), s.images, strict=False):
        x = s.array(image)

        def run(parameters: dict[str, Array], x: Array, what: str = what) -> tuple[Array, ...]:
            conv = s.plain.replace(**parameters)
            found: tuple[Array, ...] = getattr(conv, f"{what}_and_log_det")(x)
            return found

        found, x_bar = pullback(run, s.plain.parameters(), x, (bar, s.ones))
        wanted, wanted_x_bar = getattr(s.plain, f"{what}_vjp")(x, bar, s.ones)
        pairs = {f"{name}_bar": (found[name], wanted[name]) for name in wanted}
        for name, (one, other) in (pairs | {"x_bar": (x_bar, wanted_x_bar)}).items():
            size = largest(values(other))
            size += float(np.linalg.norm(values(x)) * np.linalg.norm(values(bar)))
            error = largest(values(one) - values(other))
            yield Measure(f"{what}, {name}", error, s.gradient_bound(size))


def _differences(
    s: Setting, name: str, direction: Floats, s_bar: Floats
) -> list[tuple[float, float]]:
    """Return the derivative and the size of the quotient's numbers.

    Of the forward, of it with the log-determinant, of the inverse, and of it with its own.
    """
    x, y, bar = (image.reshape(-1, len(s.affine[0])) for image in s.images)
    array = s.host.parameters()[name]
    linear = name.rpartition(".")[2] in ("kernel", "weight")
    step = (max(1.0, float(np.abs(array).max())) if linear else 1.0) * 1e-3 / (1 + s.scales.loss)
    slopes, size = np.zeros(4), np.zeros(4)
    for steps, weight in ((1, 8 / 12), (-1, -8 / 12), (2, -1 / 12), (-2, 1 / 12)):
        moved = array + steps * step * direction
        matrix, shift = s.dense(s.host.replace(**{name: moved}))
        log_det = float(np.linalg.slogdet(matrix)[1])
        rows, solved = x @ matrix.T + shift, np.linalg.solve(matrix, (y - shift).T).T
        numbers = np.repeat([(bar * rows).sum(), (bar * solved).sum()], 2)
        numbers += s_bar.sum() * log_det * np.asarray([0, 1, 0, -1])
        slopes += weight * numbers / step
        size = np.maximum(size, np.abs(numbers) + np.abs(bar * solved).sum())
    return [(float(slopes[i]), float(1 + size[i]) * 1e-3 / step) for i in range(4)]
