"""The laws at the edge: singular operators, and arguments that are refused."""

import dataclasses
import functools
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

import invconv as ic
from invconv.arrays.namespaces import to_numpy
from invconv_conformance.laws.law import Measure, law, truth, values
from invconv_conformance.laws.setting import Setting

# a value of each setting that is refused
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
        # PLU's is a sum of parameters: its gradient is there, whatever they are
        summed = "log_scale" in gradients
        yield truth(summed or not looks, "no SingularConvError of the gradient")
        finite = all(np.isfinite(values(g)).all() for g in gradients.values())
        yield truth(summed or not finite, "a finite gradient of a log_det of -inf")
    if looks:
        what, kind = "a gradient of its inverse", ic.SingularConvError
        yield _refuses(what, kind, "", s.conv.inverse_vjp, x, x)


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
            yield _refuses(what, TypeError, "", method, argument)
        for pull in pullbacks:
            yield _refuses(f"{what} as a cotangent", TypeError, "", pull, good, argument)
    parameters = s.plain.parameters()
    if len(parameters) > 1:
        *_, (name, array) = parameters.items()
        mixed = {name: s.target.asarray(to_numpy(array), other)}
        yield _refuses(f"{name} of another dtype", TypeError, "", lambda: s.plain.replace(**mixed))
    promoted = "float64" if s.log_det_dtype == "float32" else "float32"
    log_det_bar = s.target.asarray(np.ones(s.case.batch_shape), promoted)
    for pull in pullbacks:
        yield _refuses("log_det_bar's dtype", TypeError, "", pull, good, good, log_det_bar)


@law("no_transfer", eager=True)
def no_transfer(s: Setting) -> Iterator[Measure]:
    """An argument on another device is a ValueError."""
    elsewhere = s.target.library.stranger(s.target.device)
    if elsewhere is None:
        return
    x = s.target.library.asarray(s.images[0], s.dtype, elsewhere)
    prepared = s.plain.prepare(s.case.spatial_shape, check=False)
    for method in (s.plain.forward, s.plain.inverse, prepared.inverse):
        yield _refuses(f"an array on {elsewhere}", ValueError, "device", method, x)


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
        yield _refuses(what, ValueError, message, function, *arguments)
    grid = (2.0,) * (len(shape) or 1)
    yield _refuses("a grid of floats", TypeError, "spatial_shape", conv.log_det, grid)
    no_flag: dict[str, Any] = {"check": "no"}
    prepare = functools.partial(conv.prepare, shape, **no_flag)
    yield _refuses("check", TypeError, "check: expected", prepare)
    if s.known:  # what a class of one's own refuses, it alone knows
        yield from _wrong_parameters(s)
        for name in conv._setting_names:
            change = functools.partial(dataclasses.replace, conv, **{name: _WRONG[name]})
            yield _refuses(name, ValueError, f"{name}: expected", change)


def _wrong_parameters(s: Setting) -> Iterator[Measure]:
    parameters = s.plain.parameters()
    for name, array in parameters.items():
        last = name.rpartition(".")[2]
        alone = last == "log_scale" and name.replace(last, "bias") not in parameters
        if last == "reflectors" or (alone and name.replace(last, "lower") not in parameters):
            continue
        twice = {name: s.array(np.concatenate([to_numpy(array)] * 2))}
        change = functools.partial(s.plain.replace, **twice)
        yield _refuses(f"{name} of twice the rows", ValueError, "expected", change)


def _refuses(
    what: str, kind: type[Exception], message: str, function: Callable[..., Any], *arguments: Any
) -> Measure:
    try:
        function(*arguments)
    except kind as error:
        return truth(message in str(error), f"{what}: the message")
    return truth(False, f"{what} is taken")
