"""The laws of trust: refusals, and warnings of inverses that are lost.

Singular operators, wrong arguments; condition numbers, warnings, diagnoses and guards.
"""

import dataclasses
import functools
import math
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

import invconv as ic
from invconv.arrays.namespaces import to_numpy
from invconv.families import path as paths
from invconv.operators.base import conditions, judgement
from invconv.stability.guard import MOST_DIGITS, InverseGuard, steps_of
from invconv.trust.condition import HALF_EPS
from invconv.trust.round_trip import Judgement
from invconv_conformance.laws.law import Measure, law, refuses, truth, values
from invconv_conformance.laws.setting import Setting
from invconv_conformance.truth.bounds import C_FACTOR, EPS

# for each setting, a value that is refused
_WRONG = {"direction": 2, "dilation": 0, "mask": "disc", "channel_order": "any", "ndim": -1}
_WRONG |= {"padding": "reflect", "boundary": "disc"}


@law("singular", regular=False, singular=True)
def singular(s: Setting) -> Iterator[Measure]:
    """log_det = -inf; the inverse is a SingularConvError, or not finite where nobody may look."""
    x, looks = s.array(s.images[0]), s.target.looks
    yield truth(float(values(s.more("log_det", x))) == -math.inf, "log_det")
    log_det = values(s.conv.forward_and_log_det(x)[1])
    yield truth(bool((log_det == -math.inf).all()), "forward_and_log_det")
    try:
        with np.errstate(divide="ignore", invalid="ignore"):  # array-api-strict is NumPy inside
            got = s.rows(values(s.conv.inverse(x)))
    except ic.SingularConvError as error:
        yield truth("singular" in str(error), "the message")
    else:
        yield truth(not looks, "no SingularConvError")
        yield truth(not np.isfinite(got).all(axis=1).any(), "an inverse with finite samples")
    try:
        with np.errstate(divide="ignore", invalid="ignore"):
            gradients, _ = s.conv.forward_vjp(x, x, s.ones)
    except ic.SingularConvError as error:
        yield truth(looks and "singular" in str(error), "the gradient of the log_det")
    else:
        # PLU's is a sum of parameters, and always has a gradient
        summed = "log_scale" in gradients
        yield truth(summed or not looks, "no SingularConvError of the gradient")
        finite = all(np.isfinite(values(g)).all() for g in gradients.values())
        yield truth(summed or not finite, "a finite gradient of a log_det of -inf")
    if looks:
        what, kind = "a gradient of its inverse", ic.SingularConvError
        yield refuses(what, kind, "", s.conv.inverse_vjp, x, x)


@law("no_promotion", eager=True)
def no_promotion(s: Setting) -> Iterator[Measure]:
    """An argument of another dtype or library is a TypeError."""
    x = s.images[0]
    other = "float32" if s.dtype != "float32" else "float64"
    wrong: dict[str, Any] = {"list": x.tolist(), "integers": np.ones(x.shape, np.int64)}
    wrong["dtype"] = s.target.asarray(x, other)
    if s.target.library.name != "numpy":
        wrong["library"] = x.astype("float32")
    good, prepared = s.array(x), s.plain.prepare(s.case.spatial_shape, check=False)
    methods = s.plain.forward, s.plain.inverse, prepared.inverse, prepared.inverse_and_log_det
    pullbacks = s.plain.forward_vjp, s.plain.inverse_vjp
    for what, argument in wrong.items():
        for method in methods:
            yield refuses(what, TypeError, "", method, argument)
        for pull in pullbacks:
            yield refuses(f"{what} as a cotangent", TypeError, "", pull, good, argument)
    parameters = s.plain.parameters()
    if len(parameters) > 1:
        *_, (name, array) = parameters.items()
        mixed = {name: s.target.asarray(to_numpy(array), other)}
        yield refuses(f"{name} of another dtype", TypeError, "", lambda: s.plain.replace(**mixed))
    promoted = "float64" if s.log_det_dtype == "float32" else "float32"
    log_det_bar = s.target.asarray(np.ones(s.case.batch_shape), promoted)
    for pull in pullbacks:
        yield refuses("log_det_bar's dtype", TypeError, "", pull, good, good, log_det_bar)


@law("no_transfer", eager=True)
def no_transfer(s: Setting) -> Iterator[Measure]:
    """An argument on another device is a ValueError."""
    elsewhere = s.target.library.stranger(s.target.device)
    if elsewhere is None:
        return
    x = s.target.library.asarray(s.images[0], s.dtype, elsewhere)
    prepared = s.plain.prepare(s.case.spatial_shape, check=False)
    for method in (s.plain.forward, s.plain.inverse, prepared.inverse):
        yield refuses(f"an array on {elsewhere}", ValueError, "device", method, x)


@law("errors", eager=True)
def errors(s: Setting) -> Iterator[Measure]:
    """A wrong argument is a ValueError that names it and says what was expected."""
    x, conv, shape = s.array(s.images[0]), s.plain, s.case.spatial_shape
    batch, channels = s.case.batch_shape, conv.channels
    more = s.array(np.ones((*batch, channels + 1, *shape)))
    empty = s.array(np.ones((*batch, channels, *(0 for _ in shape))))
    larger = s.array(np.ones((*batch, channels, *(n + 1 for n in shape))))
    other = larger if shape else more
    long = s.cotangent(np.ones((*batch, 3)))
    prepared = conv.prepare(shape, check=False)
    calls: dict[str, tuple[str, Callable[..., Any], tuple[Any, ...]]] = {
        "channels": ("x: expected shape", conv.forward, (more,)),
        "channels of y": ("y: expected shape", conv.inverse, (more,)),
        "channels, prepared": ("y: expected shape", prepared.inverse, (more,)),
        "an unknown array": ("has no array named 'nothing'", lambda: conv.replace(nothing=x), ()),
        "y_bar": ("y_bar: expected the shape of x", conv.forward_vjp, (x, other)),
        "x_bar": ("x_bar: expected the shape of y", conv.inverse_vjp, (x, other)),
        "log_det_bar": ("log_det_bar: expected the batch shape", conv.forward_vjp, (x, x, long)),
    }
    if shape:
        calls |= {
            "no pixels": ("x: expected at least one pixel", conv.forward, (empty,)),
            "an empty grid": ("at least one pixel", conv.log_det, ((0,) * len(shape),)),
            "another grid": ("y: expected the grid", prepared.inverse, (larger,)),
            "other pixels": ("y: expected the grid", prepared.inverse_and_log_det, (larger,)),
        }
    if conv.ndim is not None:
        calls["axes"] = ("spatial axes", conv.log_det, ((2,) * (conv.ndim + 1),))
    for what, (message, function, arguments) in calls.items():
        yield refuses(what, ValueError, message, function, *arguments)
    grid = (2.0,) * (len(shape) or 1)
    yield refuses("a grid of floats", TypeError, "spatial_shape", conv.log_det, grid)
    no_flag: dict[str, Any] = {"check": "no"}
    prepare = functools.partial(conv.prepare, shape, **no_flag)
    yield refuses("check", TypeError, "check: expected", prepare)
    if s.known:  # what a user's class refuses is its own matter
        parameters = conv.parameters()
        for name, array in parameters.items():
            last = name.rpartition(".")[2]
            alone = last == "log_scale" and name.replace(last, "bias") not in parameters
            if last == "reflectors" or (alone and name.replace(last, "lower") not in parameters):
                continue
            twice = {name: s.array(np.concatenate([to_numpy(array)] * 2))}
            change = functools.partial(conv.replace, **twice)
            yield refuses(f"{name} of twice the rows", ValueError, "expected", change)
        for name in conv._setting_names:
            change = functools.partial(dataclasses.replace, conv, **{name: _WRONG[name]})
            yield refuses(name, ValueError, f"{name}: expected", change)


_TOLERATED = 1e-2  # error of an entry over the largest entry, beyond which an inverse warns
_SAMPLES_DIFFER = 2.0  # digits, between a case's few images and the worst of many kinds
_ON_THE_HOST = "numpy", "float32"  # checks that run on the host for every library run once, there
_ENOUGH = 2.0  # digits; with more of them there is no advice


@law("condition", "N. J. Higham, ibid. ch. 15; exact up to 512 unknowns", eager=True)
def condition(s: Setting) -> Iterator[Measure]:
    """condition(shape) is |K| |K^-1|, in the 2-norm or in the 1-norm."""
    shape, fresh = s.case.spatial_shape, s.plain.replace()  # a fresh copy
    fresh.condition((1,) * len(shape))
    pair = s.affine[0].astype(float), s.lu.inverse.astype(float)
    orders = (1, 2, math.inf)
    one, two, largest = (math.prod(float(np.linalg.norm(a, n)) for a in pair) for n in orders)
    bound = 1e-9 + 1e2 * max(one, two) * EPS["float64"]
    found = fresh.condition(shape)
    yield Measure("condition", min(abs(found / number - 1) for number in (one, two)), bound)
    found = fresh.condition(shape, norm=math.inf)
    yield Measure("condition in the infinity norm", abs(found / largest - 1), bound)
    cheap = judgement.bound(s.host)
    yield truth(cheap >= largest * (1 - bound), "the bound from above")
    # K^T and K^-T, by which norms of large grids are estimated
    apply, solve = conditions.linear_maps(paths.transposed(s.host._path()), shape)
    batch = s.images[0].reshape(-1, s.host.channels, *shape)
    unit = C_FACTOR * s.scales.terms * EPS["float64"]
    yield s.off("K^T x", apply(batch), s.transposed(batch), unit * s.scales.gain * s.norm(batch))
    wanted = s.transposed(batch, inverse=True)
    yield s.off("K^-T x", solve(batch), wanted, unit * s.scales.condition * s.norm(wanted))


@contextmanager
def warned() -> Iterator[list[str]]:
    """Catch warnings of lost inverses; at the end the list has their messages."""
    messages: list[str] = []
    kind = ic.IllConditionedWarning
    with warnings.catch_warnings(record=True, action="always", category=kind) as caught:
        yield messages
    messages += [str(w.message) for w in caught if issubclass(w.category, kind)]


@law("warning", eager=True)
def warning(s: Setting) -> Iterator[Measure]:
    """An inverse warns exactly where an entry is off by 1e-2 of the largest, right to a digit."""
    conv, shape = s.plain.replace(), s.case.spatial_shape
    with warned() as told:
        conv.inverse(s.array(s.images[0]))
    if not s.target.looks:
        yield truth(not told, "a warning where the core may not look")
        return
    known = [one for one in conv._conditions.values() if isinstance(one, Judgement)]
    tolerated = max(_TOLERATED, 3 * HALF_EPS.get(s.dtype, 0.0))
    lost = any(one.error > tolerated for one in known)
    yield truth(bool(told) == lost, "a warning, or none, against what is said")
    # far from the limit few images show that nothing is lost, and no error is stated
    said = (known[0] if lost else judgement.judge(conv, shape, s.log_det_dtype)).error
    error = _error(s)
    digits = _digits(s, error)
    yield truth(lost or error <= 10 * tolerated, "an error of which nothing is said")
    yield Measure("digits too many", _digits(s, said) - digits, 1.0)
    # one image says little, and sums of few bits, as of half types, may be exact
    if s.dtype == s.log_det_dtype and (not s.case.batch_shape or len(s.images[0]) > 1):
        yield Measure("digits too few", digits - _digits(s, said), _SAMPLES_DIFFER)


def _digits(s: Setting, error: float) -> float:
    return -math.log10(min(max(error, EPS[s.log_det_dtype]), 1.0))


def _error(s: Setting) -> float:
    """Return by how much an entry of the inverse is off, over the largest entry of its sample."""
    working: Any = s.plain._in_working_precision()
    inverse = working.prepare(s.case.spatial_shape, check=False).inverse
    x, y = (s.cotangent(image) for image in s.images[:2])
    with warned():
        pairs = [(working.forward(x), s.images[0]), (y, s.inverse(s.images[1]))]
    errors = []
    for y, right in pairs:
        off = np.abs(s.rows(values(inverse(y))) - s.rows(right)).max(axis=1)
        errors.append((off / np.abs(s.rows(right)).max(axis=1)).max())
    return float(max(errors))


@law("diagnosis", eager=True)
def diagnosis(s: Setting) -> Iterator[Measure]:
    """Diagnose states the condition, the log-determinant, the worst column and the digits as they
    are.
    """
    if (s.target.library.name, s.dtype) != _ON_THE_HOST:
        return
    shape = s.case.spatial_shape
    found = ic.diagnose(s.plain, shape)
    yield truth(found.condition == s.plain.condition(shape) or not found.exact, "condition")
    exact = float(s.lu.log_det())
    gap, rounding = abs(found.log_det - exact), s.size * s.scales.condition
    yield Measure("log_det", gap, 1e-9 * (1 + abs(exact)) + 1e2 * rounding * EPS["float64"])
    measured = _digits(s, _error(s))
    yield Measure("digits, too many", found.digits - measured, 1.0)
    yield Measure("digits in float32, too many", found.digits_float32 - measured, 1.0)
    yield truth(found.digits_float64 >= found.digits, "fewer digits in float64")
    nothing = found.advice[0].startswith("no change")
    yield truth(nothing == (found.digits >= _ENOUGH), "advice")
    yield truth(repr(found).startswith(type(s.plain).__name__), "the operator's name")
    if found.norm == "1-norm" and found.exact and found.pixel is not None:
        # for an Inverse: how its forward, a solve, grows errors
        solved = s.affine[0] if isinstance(s.plain, ic.Inverse) else s.lu.inverse
        columns = np.abs(solved).sum(axis=0).astype(float)
        place = np.ravel_multi_index((found.channel or 0, *found.pixel), (s.plain.channels, *shape))
        yield truth(columns[place] >= (1 - 1e-6) * columns.max(), "the worst column")


@law("guard", eager=True)
def guard(s: Setting) -> Iterator[Measure]:
    """A guard looks at every layer in turn, knows the worst one, and warns below its digits."""
    if (s.target.library.name, s.dtype) != _ON_THE_HOST:
        return
    shape = s.case.spatial_shape
    good = ic.ActNorm(np.zeros(s.plain.channels, np.float32), None)
    chain = ic.Chain([good, s.plain])
    names = list(steps_of("", chain))
    for digits, loud in ((0.0, False), (float(MOST_DIGITS), True)):
        watch = InverseGuard(chain, shape, digits=digits, every=1)
        with warned() as told:
            for _ in names:
                worst = watch.step(chain)
        yield truth(list(watch.known) == names, "layers that were judged")
        yield truth(bool(told) == loud, f"a warning below {digits:g} digits, or none")
        least = min(one.digits for one in watch.known.values())
        yield truth(worst.digits == least, "the worst layer")
    if len(names) == 2:  # the steps of a chain do not tell its own digits
        digits = watch.known[names[1]].digits
        yield Measure("digits too many", digits - _digits(s, _error(s)), 1.0)
