"""The laws of derivatives: exact gradients, in both directions."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from invconv_conformance.laws.law import law, values
from invconv_conformance.laws.setting import Array, Floats, Measure, Setting
from invconv_conformance.truth.bounds import EPS

_DIFFERENCES_HOLD = 1e-10  # condition x eps beyond which the dense differences are no truth


@law(
    "vjp.input",
    "x_bar = K^T y_bar, and y_bar = K^-T x_bar through the inverse",
    "linear algebra",
    singular=True,
)
def vjp_input(s: Setting) -> Iterator[Measure]:
    """Against the dense matrix."""
    x, y, bar = s.images
    rows = s.rows(bar)
    wanted = (rows @ s.affine[0]).reshape(x.shape)
    bound = s.unit * s.scales.gain * s.norm(bar) + s.cast(s.norm(wanted))
    # K does not depend on x, so that the log-determinant adds nothing
    more = (None,) if s.case.singular else (None, _cotangent(s, np.ones(s.case.batch_shape)))
    for log_det_bar in more:
        _, x_bar = s.conv.forward_vjp(s.array(x), s.array(bar), log_det_bar)
        yield s.worst("x_bar", s.norm(values(x_bar) - wanted), bound)
    if s.case.singular:
        return
    truth = s.lu.solve(rows.T, transposed=True).T.reshape(x.shape)
    bound = s.unit * s.scales.gain * s.scales.loss * s.norm(truth) + s.cast(s.norm(truth))
    for log_det_bar in more:
        _, y_bar = s.conv.inverse_vjp(s.array(y), s.array(bar), log_det_bar)
        yield s.worst("y_bar", s.norm(values(y_bar) - truth), bound)


@law(
    "vjp.parameters",
    "the gradients of <y_bar, K x + b> + s log|det K|, and of the inverse's, by every parameter",
    "central differences of fourth order of the dense matrix",
)
def vjp_parameters(s: Setting) -> Iterator[Measure]:
    """Along a random direction of each parameter."""
    if s.scales.gain * s.scales.loss * EPS["float64"] > _DIFFERENCES_HOLD:
        return
    x, y, bar = s.images
    batch = s.case.batch_shape
    s_bar = np.linspace(-1.0, 2.0, max(1, math.prod(batch))).reshape(batch)
    gradients = [
        (f"{what}{' and log_det' * (c is not None)}", method(s.array(image), s.array(bar), c)[0])
        for what, method, image in (
            ("forward", s.conv.forward_vjp, x),
            ("inverse", s.conv.inverse_vjp, y),
        )
        for c in (None, _cotangent(s, s_bar))
    ]
    rng = s.case.rng()
    for name, array in s.host.parameters().items():
        direction = rng.standard_normal(array.shape)
        direction /= max(1.0, float(np.linalg.norm(direction)))
        truth = _differences(s, name, direction, (x, y, bar, s_bar))
        for (what, found), (slope, size) in zip(gradients, truth, strict=True):
            terms = values(found[name]) * direction
            lever = s.scales.gain * s.scales.loss
            reach = float(np.abs(terms).sum())
            bound = (s.unit * lever + 1e-9) * (size + reach) + float(s.cast(np.asarray(reach)))
            yield Measure(f"{what}, {name}_bar", abs(float(terms.sum()) - slope), bound)


@law(
    "autodiff",
    "the library's own automatic differentiation gives the same gradients",
    "the chain rule",
    eager=True,
)
def autodiff(s: Setting) -> Iterator[Measure]:
    """Of both directions with their log-determinants, beside the core's rules."""
    pullback = s.target.library.pullback
    if pullback is None:
        return
    bar, log_det_bar = s.array(s.images[2]), _cotangent(s, np.ones(s.case.batch_shape))
    lever = s.unit * (s.scales.gain * s.scales.loss) ** 2
    for what in ("forward", "inverse"):
        x = s.array(s.images[what == "inverse"])

        def run(parameters: dict[str, Array], x: Array, what: str = what) -> tuple[Array, ...]:
            conv = s.plain.replace(**parameters)
            found: tuple[Array, ...] = getattr(conv, f"{what}_and_log_det")(x)
            return found

        found, x_bar = pullback(run, s.plain.parameters(), x, (bar, log_det_bar))
        wanted, wanted_x_bar = getattr(s.plain, f"{what}_vjp")(x, bar, log_det_bar)
        pairs = {f"{name}_bar": (found[name], wanted[name]) for name in wanted}
        for name, (one, other) in (pairs | {"x_bar": (x_bar, wanted_x_bar)}).items():
            error = float(np.abs(values(one) - values(other)).max(initial=0))
            size = float(np.abs(values(other)).max(initial=0))
            size += float(np.linalg.norm(values(x)) * np.linalg.norm(values(bar)))
            yield Measure(f"{what}, {name}", error, lever * size + float(s.cast(np.asarray(size))))


def _cotangent(s: Setting, numbers: Floats) -> Array:
    return s.target.asarray(numbers, s.log_det_dtype)


def _differences(
    s: Setting, name: str, direction: Floats, arrays: tuple[Floats, ...]
) -> list[tuple[float, float]]:
    """Return the derivative and the size of the quotient's numbers.

    Of the forward, of it with the log-determinant, of the inverse, and of it with its own.
    """
    x, y, bar, s_bar = arrays
    array = s.host.parameters()[name]
    linear = name.rpartition(".")[2] in ("kernel", "weight")
    step = (max(1.0, float(np.abs(array).max())) if linear else 1.0) * 1e-3 / (1 + s.scales.loss)
    slopes, size = np.zeros(4), np.zeros(4)
    for steps, weight in ((1, 8 / 12), (-1, -8 / 12), (2, -1 / 12), (-2, 1 / 12)):
        moved = array + steps * step * direction
        matrix, shift = s.dense(s.host.replace(**{name: moved}))
        log_det = float(np.linalg.slogdet(matrix)[1])
        rows = x.reshape(-1, len(matrix)) @ matrix.T + shift
        solved = np.linalg.solve(matrix, (y.reshape(-1, len(matrix)) - shift).T).T
        flat = bar.reshape(-1, len(matrix))
        values = np.repeat([(flat * rows).sum(), (flat * solved).sum()], 2)
        values += s_bar.sum() * log_det * np.asarray([0, 1, 0, -1])
        slopes += weight * values / step
        size = np.maximum(size, np.abs(values) + np.abs(flat * solved).sum())
    return [(float(slopes[i]), float(1 + size[i]) * 1e-3 / step) for i in range(4)]
