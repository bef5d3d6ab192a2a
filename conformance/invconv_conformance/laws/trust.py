"""The laws of trust: condition numbers, warnings, diagnoses and guards."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np

import invconv as ic
from invconv.arrays.namespaces import to_numpy
from invconv.families import path as paths
from invconv.operators import dropins
from invconv.operators.base import conditions, judgement
from invconv.stability.guard import MOST_DIGITS, InverseGuard, steps_of
from invconv_conformance.laws.law import law, truth, values
from invconv_conformance.laws.setting import Measure, Setting
from invconv_conformance.truth.bounds import C_FACTOR, EPS

_TOLERATED = 1e-2  # error of an entry, over the largest: what a warning promises
_SAMPLES_DIFFER = 2.0  # digits, of the few images of a case and the worst of many kinds
_ENOUGH = 2.0  # digits, with which nothing is to be done


@law(
    "condition",
    "condition(shape) is |K| |K^-1|, in the 2-norm or in the 1-norm",
    "N. J. Higham, ibid. ch. 15; exact up to 512 unknowns",
    eager=True,
)
def condition(s: Setting) -> Iterator[Measure]:
    """Against the dense matrix and its inverse in extended precision; another grid has its own."""
    fresh = s.plain.replace()  # without the numbers that other laws made it remember
    fresh.condition((1,) * len(s.case.spatial_shape))
    found = fresh.condition(s.case.spatial_shape)
    errors = [abs(found / number - 1) for number in _conditions(s)]
    lost = max(_conditions(s)) * EPS["float64"]
    yield Measure("condition", min(errors), 1e-9 + 1e2 * lost)
    largest = _conditions(s, math.inf)
    found = fresh.condition(s.case.spatial_shape, norm=math.inf)
    yield Measure("condition in the infinity norm", abs(found / largest[0] - 1), 1e-9 + 1e2 * lost)
    cheap = judgement.bound(s.host, s.case.spatial_shape)
    yield truth(cheap >= largest[0] * (1 - 1e-9 - 1e2 * lost), "the bound from above")
    yield from _transposed_maps(s)


def _transposed_maps(s: Setting) -> Iterator[Measure]:
    """Hold K^T and K^-T, by which norms of large grids are estimated, to the dense matrix."""
    turned = paths.transposed(s.host._path())
    apply, solve = conditions.linear_maps(turned, s.case.spatial_shape)
    batch = s.images[0].reshape(-1, s.host.channels, *s.case.spatial_shape)
    rows, unit = s.rows(batch), C_FACTOR * s.scales.terms * EPS["float64"]
    wanted = rows @ s.affine[0]
    error = s.norm(values(apply(batch)).reshape(wanted.shape) - wanted)
    yield s.worst("K^T x", error, unit * s.scales.gain * s.norm(rows))
    wanted = s.lu.solve(rows.T, transposed=True).T
    error = s.norm(values(solve(batch)).reshape(wanted.shape) - wanted)
    yield s.worst("K^-T x", error, unit * s.scales.gain * s.scales.loss * s.norm(wanted))


def _conditions(s: Setting, *norms: float) -> tuple[float, ...]:
    """Return the condition numbers in norms, the 1-norm and the 2-norm unless given."""
    pair = s.affine[0].astype(float), s.lu.inverse.astype(float)
    return tuple(math.prod(float(np.linalg.norm(a, n)) for a in pair) for n in norms or (1, 2))


@law(
    "warning",
    "an inverse warns if and only if an entry is off by more than 1e-2 of the largest, as it says; "
    "what it says is right to a digit",
    eager=True,
)
def warning(s: Setting) -> Iterator[Measure]:
    """Where the core may look at values; elsewhere it never does."""
    conv, shape = s.plain.replace(), s.case.spatial_shape
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ic.IllConditionedWarning)
        conv.inverse(s.array(s.images[0]))
    warned = any(issubclass(w.category, ic.IllConditionedWarning) for w in caught)
    if not s.target.looks:
        yield truth(not warned, "a warning where the core may not look")
        return
    said = judgement.remembered(conv, shape, s.log_det_dtype).error
    yield truth(warned == (said > _TOLERATED), "a warning, or none, against what is said")
    error = _error(s)
    yield Measure("digits too many", _digits(s, said) - _digits(s, error), 1.0)
    # one image says little, and sums of few bits may be exact, as those of half types
    if s.dtype == s.log_det_dtype and (not s.case.batch_shape or len(s.images[0]) > 1):
        yield Measure("digits too few", _digits(s, error) - _digits(s, said), _SAMPLES_DIFFER)


def _digits(s: Setting, error: float) -> float:
    return -math.log10(min(max(error, EPS[s.log_det_dtype]), 1.0))


def _error(s: Setting) -> float:
    """Return by how much an entry of the inverse is off, over the largest entry of its sample.

    Half types are solved in float32, and judged there.
    """
    working: Any = s.plain._in_working_precision()
    inverse = working.prepare(s.case.spatial_shape, check=False).inverse
    x, y = (s.target.asarray(image, s.log_det_dtype) for image in s.images[:2])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ic.IllConditionedWarning)
        pairs = [(working.forward(x), s.images[0]), (y, s.inverse(s.images[1]))]
    errors = []
    for y, right in pairs:
        off = np.abs(s.rows(values(inverse(y))) - s.rows(right)).max(axis=1)
        errors.append((off / np.abs(s.rows(right)).max(axis=1)).max())
    return float(max(errors))


@law(
    "diagnosis",
    "diagnose says the condition, the log-determinant, the worst column and the digits as they are",
    eager=True,
)
def diagnosis(s: Setting) -> Iterator[Measure]:
    """On the host, where it runs whatever the library: of NumPy's float32 alone."""
    if s.target.library.name != "numpy" or s.dtype != "float32":
        return
    shape = s.case.spatial_shape
    found = ic.diagnose(s.plain, shape)
    yield truth(found.condition == s.plain.condition(shape) or not found.exact, "condition")
    exact = float(s.lu.log_det())
    gap, rounding = abs(found.log_det - exact), len(s.affine[0]) * s.scales.gain * s.scales.loss
    yield Measure("log_det", gap, 1e-9 * (1 + abs(exact)) + 1e2 * rounding * EPS["float64"])
    error = _error(s)
    for what, digits in (("digits", found.digits), ("digits in float32", found.digits_float32)):
        yield Measure(f"{what}, too many", digits - _digits(s, error), 1.0)
    yield truth(found.digits_float64 >= found.digits, "fewer digits in float64")
    nothing = found.advice[0].startswith("nothing")
    yield truth(nothing == (found.digits >= _ENOUGH), "advice")
    yield truth(repr(found).startswith(type(s.plain).__name__), "the operator's name")
    if found.norm == "1-norm" and found.exact and found.pixel is not None:
        # of an Inverse, what its forward, which solves, does to errors
        solved = s.affine[0] if isinstance(s.plain, ic.Inverse) else s.lu.inverse
        columns = np.abs(solved).sum(axis=0).astype(float)
        place = np.ravel_multi_index((found.channel or 0, *found.pixel), (s.plain.channels, *shape))
        yield truth(columns[place] >= (1 - 1e-6) * columns.max(), "the worst column")


@law(
    "guard",
    "a guard looks at every layer in turn, knows the worst one, and warns below its digits",
    eager=True,
)
def guard(s: Setting) -> Iterator[Measure]:
    """Beside a layer that loses nothing; on the host, as diagnoses are."""
    if s.target.library.name != "numpy" or s.dtype != "float32":
        return
    shape = s.case.spatial_shape
    good = ic.ActNorm(np.zeros(s.plain.channels, np.float32), None, ndim=len(shape))
    chain = ic.Chain([good, s.plain])
    names = list(steps_of("", chain))
    for digits, loud in ((0.0, False), (float(MOST_DIGITS), True)):
        watch = InverseGuard(chain, shape, digits=digits, every=1)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", ic.IllConditionedWarning)
            for _ in names:
                worst = watch.step(chain)
        yield truth(list(watch.known) == names, "layers that were judged")
        yield truth(bool(caught) == loud, f"a warning below {digits:g} digits, or none")
        least = min(one.digits for one in watch.known.values())
        yield truth(worst.digits == least, "the worst layer")
    if len(names) == 2:  # the steps of a chain do not tell its own digits
        digits = watch.known[names[1]].digits
        yield Measure("digits too many", digits - _digits(s, _error(s)), 1.0)


@law(
    "drop_in",
    "what a flow library calls takes any number of batch axes, as the operator does",
    eager=True,
)
def drop_in(s: Setting) -> Iterator[Measure]:
    """Of both directions, by what the drop-ins share; needs `reshape`, as those libraries have."""
    x = s.array(s.images[0])
    if not hasattr(x, "reshape"):
        return
    axes = dropins.event_ndim(s.plain.ndim, len(s.case.spatial_shape))
    for what in ("forward_and_log_det", "inverse_and_log_det"):
        run = getattr(s.plain, what)
        for one, other in zip(dropins.on_batch(run, x, axes), run(x), strict=True):
            yield truth(tuple(one.shape) == tuple(other.shape), f"shape of {what}")
            yield truth(np.array_equal(to_numpy(one), to_numpy(other)), what)
