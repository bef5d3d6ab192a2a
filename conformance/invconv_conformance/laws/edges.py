"""The laws at the edge: singular operators, and arguments that are refused."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

import invconv as ic
from invconv.arrays.namespaces import to_numpy
from invconv_conformance.laws.law import law, truth, values
from invconv_conformance.laws.setting import Measure, Setting


@law(
    "singular",
    "log_det = -inf; the inverse is a SingularConvError, or not finite where nobody may look",
    regular=False,
    singular=True,
)
def singular(s: Setting) -> Iterator[Measure]:
    """Of operators that are exactly singular as computed."""
    x = s.array(s.images[0])
    yield truth(float(values(s.log_det_and_transpose(x)[0])) == -math.inf, "log_det")
    log_det = values(s.conv.forward_and_log_det(x)[1])
    yield truth(bool((log_det == -math.inf).all()), "forward_and_log_det")
    try:
        with np.errstate(divide="ignore", invalid="ignore"):  # array-api-strict is NumPy inside
            got = values(s.conv.inverse(x))
        got = got.reshape(len(s.norm(s.images[0])), -1)
    except ic.SingularConvError as error:
        yield truth("singular" in str(error), "the message")
    else:
        yield truth(not s.target.looks, "no SingularConvError")
        yield truth(not np.isfinite(got).all(axis=1).any(), "an inverse with finite samples")
    log_det_bar = s.target.asarray(np.ones(s.case.batch_shape), s.log_det_dtype)
    try:
        with np.errstate(divide="ignore", invalid="ignore"):
            gradients, _ = s.conv.forward_vjp(x, x, log_det_bar)
    except ic.SingularConvError as error:
        yield truth(s.target.looks and "singular" in str(error), "the gradient of the log_det")
    else:
        # PLU's is a sum of parameters: its gradient is there, whatever they are
        summed = "log_scale" in gradients
        yield truth(summed or not s.target.looks, "no SingularConvError of the gradient")
        finite = all(np.isfinite(values(g)).all() for g in gradients.values())
        yield truth(summed or not finite, "a finite gradient of a log_det of -inf")
    if s.target.looks:
        yield _refuses(
            "a gradient of its inverse", ic.SingularConvError, "", s.conv.inverse_vjp, x, x
        )


@law("no_promotion", "an argument of another dtype or library is a TypeError", eager=True)
def no_promotion(s: Setting) -> Iterator[Measure]:
    """Whatever the library itself would have done with it."""
    x = s.images[0]
    other = "float32" if s.dtype != "float32" else "float64"
    wrong: dict[str, Any] = {"list": x.tolist(), "integers": np.ones(x.shape, np.int64)}
    wrong["dtype"] = s.target.asarray(x, other)
    if s.target.library.name != "numpy":
        wrong["library"] = x.astype("float32")
    good, prepared = s.array(x), s.plain.prepare(s.case.spatial_shape, check=False)
    methods = s.plain.forward, s.plain.inverse, prepared.inverse, prepared.inverse_and_log_det
    for what, argument in wrong.items():
        for method in methods:
            yield _refuses(what, TypeError, "", method, argument)
        for pull in (s.plain.forward_vjp, s.plain.inverse_vjp):
            yield _refuses(f"{what} as a cotangent", TypeError, "", pull, good, argument)
    parameters = s.plain.parameters()
    if len(parameters) > 1:
        name, array = list(parameters.items())[-1]
        mixed = {name: s.target.asarray(to_numpy(array), other)}
        yield _refuses(f"{name} of another dtype", TypeError, "", lambda: s.plain.replace(**mixed))
    promoted = "float64" if s.log_det_dtype == "float32" else "float32"
    log_det_bar = s.target.asarray(np.ones(s.case.batch_shape), promoted)
    for pull in (s.plain.forward_vjp, s.plain.inverse_vjp):
        yield _refuses("log_det_bar's dtype", TypeError, "", pull, good, good, log_det_bar)


@law("no_transfer", "an argument on another device is a ValueError", eager=True)
def no_transfer(s: Setting) -> Iterator[Measure]:
    """Where the library has another device."""
    elsewhere = s.target.library.stranger(s.target.device)
    if elsewhere is None:
        return
    x = s.target.library.asarray(s.images[0], s.dtype, elsewhere)
    prepared = s.plain.prepare(s.case.spatial_shape, check=False)
    for method in (s.plain.forward, s.plain.inverse, prepared.inverse):
        yield _refuses(f"an array on {elsewhere}", ValueError, "device", method, x)


@law(
    "errors",
    "a wrong argument is a ValueError that names it and says what was expected",
    eager=True,
)
def errors(s: Setting) -> Iterator[Measure]:
    """Shapes, grids, names, cotangents."""
    x, conv, shape = s.array(s.images[0]), s.plain, s.case.spatial_shape
    batch = s.case.batch_shape
    more = s.array(np.ones((*batch, conv.channels + 1, *shape)))
    empty = s.array(np.ones((*batch, conv.channels, *(0 for _ in shape))))
    larger = s.array(np.ones((*batch, conv.channels, *(n + 1 for n in shape))))
    long = s.target.asarray(np.ones((*batch, 3)), s.log_det_dtype)
    prepared = conv.prepare(shape, check=False)
    calls: dict[str, tuple[Callable[..., Any], tuple[Any, ...], str]] = {
        "channels": (conv.forward, (more,), "x: expected shape"),
        "channels of y": (conv.inverse, (more,), "y: expected shape"),
        "no pixels": (conv.forward, (empty,), "x: expected at least one pixel"),
        "an empty grid": (conv.log_det, ((0,) * len(shape),), "at least one pixel"),
        "another grid": (prepared.inverse, (larger,), "y: expected the grid"),
        "a grid of other pixels": (
            prepared.inverse_and_log_det,
            (larger,),
            "y: expected the grid",
        ),
        "channels, prepared": (prepared.inverse, (more,), "y: expected shape"),
        "an unknown array": (lambda: conv.replace(nothing=x), (), "has no array named 'nothing'"),
        "y_bar": (conv.forward_vjp, (x, larger), "y_bar: expected the shape of x"),
        "x_bar": (conv.inverse_vjp, (x, larger), "x_bar: expected the shape of y"),
        "log_det_bar": (conv.forward_vjp, (x, x, long), "log_det_bar: expected the batch shape"),
    }
    if conv.ndim is not None:
        calls["axes"] = (conv.log_det, ((2,) * (conv.ndim + 1),), "spatial axes")
    for what, (function, arguments, message) in calls.items():
        yield _refuses(what, ValueError, message, function, *arguments)
    yield _refuses(
        "a grid of floats", TypeError, "spatial_shape", conv.log_det, (2.0,) * len(shape)
    )
    yield from _wrong_parameters(s)
    yield from _wrong_settings(s)


def _wrong_parameters(s: Setting) -> Iterator[Measure]:
    """Try every parameter with twice the rows, which none but reflectors may have."""
    parameters = s.plain.parameters()
    for name, array in parameters.items():
        last = name.rpartition(".")[2]
        alone = last == "log_scale" and name.replace(last, "bias") not in parameters
        if last == "reflectors" or (alone and name.replace(last, "lower") not in parameters):
            continue
        values = to_numpy(array)
        twice = {name: s.array(np.concatenate([values, values]))}
        yield _refuses(
            f"{name} of twice the rows",
            ValueError,
            "expected",
            lambda a=twice: s.plain.replace(**a),
        )


def _wrong_settings(s: Setting) -> Iterator[Measure]:
    """Try settings that are out of range, of the operators that have them."""
    wrong = {
        "direction": 2,
        "dilation": 0,
        "mask": "disc",
        "channel_order": "any",
        "ndim": -1,
        "padding": "reflect",
    }
    for name in s.plain._setting_names:
        change = functools.partial(dataclasses.replace, s.plain, **{name: wrong[name]})
        yield _refuses(name, ValueError, f"{name}: expected", change)
    no_flag: dict[str, Any] = {"check": "no"}
    prepare = functools.partial(s.plain.prepare, s.case.spatial_shape, **no_flag)
    yield _refuses("check", TypeError, "check: expected", prepare)


def _refuses(
    what: str, kind: type[Exception], message: str, function: Callable[..., Any], *arguments: Any
) -> Measure:
    try:
        function(*arguments)
    except kind as error:
        return truth(message in str(error), f"{what}: the message")
    return truth(False, f"{what} is taken")
