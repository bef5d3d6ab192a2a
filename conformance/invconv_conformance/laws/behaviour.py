"""The laws of behaviour: kinds of arrays, bad samples, and what is refused."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

import invconv as ic
from invconv.arrays.namespaces import dtype_name, library_name, namespace, to_numpy
from invconv.arrays.registry import PRIMITIVES, agnostic
from invconv_conformance.laws.law import law, truth, values
from invconv_conformance.laws.setting import Array, Measure, Setting
from invconv_conformance.truth import oracle
from invconv_conformance.truth.bounds import C_FACTOR, EPS


@law("kind", "results have the library, dtype, device and shape of the argument")
def kind(s: Setting) -> Iterator[Measure]:
    """Of values, log-determinants and gradients."""
    x = s.array(s.images[0])
    y, log_det = s.conv.forward_and_log_det(x)
    back, inverse_log_det = s.conv.inverse_and_log_det(x)
    gradients, x_bar = s.conv.forward_vjp(x, x)
    inverse_gradients, y_bar = s.conv.inverse_vjp(x, x)
    arrays = {"y": y, "x": back, "x_bar": x_bar, "y_bar": y_bar}
    arrays |= {f"forward's {name}_bar": g for name, g in gradients.items()}
    arrays |= {f"inverse's {name}_bar": g for name, g in inverse_gradients.items()}
    for what, array in arrays.items():
        yield truth(library_name(array) == library_name(x), f"library of {what}")
        yield truth(dtype_name(array.dtype) == s.dtype, f"dtype of {what}")
        yield truth(_device(array) == _device(x), f"device of {what}")
    for array in (log_det, inverse_log_det, s.log_det_and_transpose(x)[0]):
        yield truth(library_name(array) == library_name(x), "library of the log-det")
        yield truth(dtype_name(array.dtype) == s.log_det_dtype, "log-det dtype")
        yield truth(_device(array) == _device(x), "log-det device")
    for what in ("y", "x", "x_bar", "y_bar"):
        yield truth(tuple(arrays[what].shape) == tuple(x.shape), f"shape of {what}")
    for name, array in s.conv.parameters().items():
        for found in (gradients, inverse_gradients):
            yield truth(tuple(found[name].shape) == tuple(array.shape), f"shape of {name}_bar")


@law("no_mutation", "arguments and parameters keep their values")
def no_mutation(s: Setting) -> Iterator[Measure]:
    """Through every method that computes."""
    x = s.array(s.images[0])
    wanted = s.case.conv().asarrays(x).parameters()  # the setting's may be overwritten by now
    yield from (
        truth(np.array_equal(to_numpy(array), to_numpy(wanted[name])), f"{name}, before")
        for name, array in s.conv.parameters().items()
    )
    held = {"x": x, **s.conv.parameters()}
    before = {name: to_numpy(array) for name, array in held.items()}
    s.conv.forward_and_log_det(x)
    s.conv.inverse_and_log_det(x)
    s.conv.forward_vjp(x, x)
    s.conv.inverse_vjp(x, x)
    for name, array in held.items():
        yield truth(np.array_equal(to_numpy(array), before[name]), name)


@law("determinism", "two runs are equal bit by bit, whatever ran between", "reproducibility")
def determinism(s: Setting) -> Iterator[Measure]:
    """Of both directions and their gradients; no result is in memory that another call uses."""
    x, other = (s.array(image) for image in s.images[:2])
    for what in ("forward_and_log_det", "inverse_and_log_det", "forward_vjp", "inverse_vjp"):

        def run(image: Array, what: str = what) -> list[Array]:
            arguments = (image, image) if what.endswith("vjp") else (image,)
            one, two = getattr(s.conv, what)(*arguments)
            return [*one.values(), two] if isinstance(one, dict) else [one, two]

        kept = run(x)
        first = [to_numpy(array) for array in kept]
        run(other)
        for array, again, was in zip(kept, run(x), first, strict=True):
            yield truth(np.array_equal(to_numpy(array), was), f"{what} keeps its result")
            yield truth(np.array_equal(to_numpy(again), was), what)


@law("isolation", "a NaN or inf in one sample leaves the others as they were", "linearity")
def isolation(s: Setting) -> Iterator[Measure]:
    """Bit for bit, and the log-determinant too."""
    if not s.case.batch_shape or s.images[0].shape[0] < 2:
        return
    for bad, place in ((math.nan, 0), (math.inf, -1)):
        x = s.images[0].copy()
        x.reshape(x.shape[0], -1)[place, 0] = bad
        others = slice(1, None) if place == 0 else slice(-1)
        for what in ("forward_and_log_det", "inverse_and_log_det"):
            with np.errstate(invalid="ignore"):
                got, log_det = map(values, getattr(s.conv, what)(s.array(x)))
            good, wanted = map(values, getattr(s.conv, what)(s.array(s.images[0])))
            yield truth(np.array_equal(got[others], good[others]), f"{what}, {bad}")
            yield truth(np.array_equal(log_det, wanted), f"log-determinant of {what}, {bad}")
            yield truth(not np.isfinite(got[place]).all(), f"{what}, {bad} is passed on")


def _device(array: Array) -> Any:
    """Return where an array is; None in a library with one memory, as MLX."""
    return getattr(array, "device", None)


@law("empty", "an empty batch gives an empty result, and gradients of zero", "linearity")
def empty(s: Setting) -> Iterator[Measure]:
    """Where there is a batch axis."""
    if not s.case.batch_shape:
        return
    shape = (0, *s.images[0].shape[1:])
    x = s.array(np.empty(shape))
    for what in ("forward_and_log_det", "inverse_and_log_det"):
        value, log_det = getattr(s.conv, what)(x)
        yield truth(tuple(value.shape) == shape, what)
        yield truth(tuple(log_det.shape) == (0, *s.case.batch_shape[1:]), what)
    for what in ("forward_vjp", "inverse_vjp"):
        gradients, x_bar = getattr(s.conv, what)(x, x)
        yield truth(tuple(x_bar.shape) == shape, f"{what}, by the image")
        for name, array in s.conv.parameters().items():
            found = to_numpy(gradients[name])
            yield truth(found.shape == tuple(array.shape) and not found.any(), f"{what}, {name}")


@law("layout", "a view with strides, or read-only memory, gives the same values", eager=True)
def layout(s: Setting) -> Iterator[Measure]:
    """Of the argument and of the parameters, where the library has such views."""
    if not s.target.library.views:
        return
    x = s.images[0]
    strided = s.plain.replace(**{n: _view(a) for n, a in s.plain.parameters().items()})
    array = _view(s.array(x))
    reach = s.scales.gain * s.norm(x) + s.shift_norm
    y = values(strided.forward(array))
    yield s.worst("y", s.norm(y - s.forward(x)), s.unit * reach + s.cast(s.norm(y)))
    back = values(strided.inverse(array))
    reach = s.scales.gain * s.norm(back) + s.shift_norm + s.norm(x)
    bound = s.unit * reach + s.scales.gain * s.cast(s.norm(back))
    yield s.worst("K x + b", s.norm(s.forward(back) - x), bound)
    for what in ("forward_vjp", "inverse_vjp"):
        found, _ = getattr(strided, what)(array, array)
        for name, wanted in getattr(s.plain, what)(s.array(x), s.array(x))[0].items():
            error = np.abs(values(found[name]) - values(wanted)).max(initial=0)
            size = float(np.abs(values(wanted)).max(initial=0)) + float(s.norm(x) @ s.norm(x))
            lever = (s.scales.gain * s.scales.loss) ** 2
            most = s.unit * lever * size + float(s.cast(np.asarray(size)))
            yield Measure(f"{what}, {name}_bar", float(error), most)


@law(
    "prepared", "a prepared inverse is the inverse of the values held when it was made", eager=True
)
def prepared(s: Setting) -> Iterator[Measure]:
    """Whatever is written into the arrays afterwards, where they can be written to."""
    y = s.array(s.images[1])
    x, log_det = s.plain.inverse_and_log_det(y)
    conv = s.case.conv().asarrays(y)
    made = conv.prepare(s.case.spatial_shape, check=False)
    for array in conv.parameters().values():
        try:
            array[...] = 7.0
        except TypeError:  # JAX's arrays are never written to
            continue
    found, found_log_det = made.inverse_and_log_det(y)
    yield truth(np.array_equal(to_numpy(found), to_numpy(x)), "inverse")
    yield truth(np.array_equal(to_numpy(found_log_det), to_numpy(log_det)), "log-determinant")
    yield truth(isinstance(made.plan.get("method"), str), "plan")


@law(
    "squeeze",
    "squeeze(x)[c f^2 + i f + j, h, w] = x[c, h f + i, w f + j], or sum T_ik T_jl x[c, h f + k, "
    "w f + l] with Haar's or the cosines' T, and unsqueeze undoes it",
    "torch's pixel_unshuffle",
    eager=True,
)
def squeeze(s: Setting) -> Iterator[Measure]:
    """On images of two axes, of even sizes."""
    x = np.resize(s.images[0], (2, 3, 4, 6))
    wanted = np.stack(
        [x[:, c, i::2, j::2] for c in range(3) for i in range(2) for j in range(2)], 1
    )
    found = ic.squeeze(s.array(x))
    yield truth(np.array_equal(values(found), wanted), "squeeze")
    yield truth(np.array_equal(values(ic.unsqueeze(found)), x), "unsqueeze")
    yield from _in_bases(s)


def _in_bases(s: Setting) -> Iterator[Measure]:
    """Yield the errors of blocks of 4 x 4 pixels in Haar's basis and in that of cosines."""
    x = values(s.array(np.resize(s.images[0], (2, 3, 4, 8)))).astype(np.float64)
    bound = (C_FACTOR * 16 * EPS[s.log_det_dtype] + 2 * EPS[s.dtype]) * float(np.linalg.norm(x))
    for basis in ("haar", "dct"):
        matrix = oracle.block_transform(basis, 4).astype(float)
        blocks = x.reshape(2, 3, 1, 4, 2, 4)
        wanted = np.einsum("ik,jl,bchkwl->bcijhw", matrix, matrix, blocks).reshape(2, 48, 1, 2)
        found = ic.squeeze(s.array(x), 4, basis=basis)
        back = ic.unsqueeze(found, 4, basis=basis)
        for what, error in (("squeeze", values(found) - wanted), ("unsqueeze", values(back) - x)):
            yield Measure(f"{what}, {basis}", float(np.linalg.norm(error)), bound)


def _view(array: Array) -> Array:
    """Return the same values as every other element of a larger array, read-only in NumPy."""
    xp = namespace(array)
    view = xp.stack([array, array], axis=-1)[..., 0]
    if isinstance(view, np.ndarray):
        view.flags.writeable = False
    return view


@law(
    "parity",
    "a native primitive gives what its agnostic twin gives, run by NumPy",
    "one formula, several ways to run it",
)
def parity(s: Setting) -> Iterator[Measure]:
    """Where the library has native primitives, in the dtypes that they run in."""
    library = library_name(s.array(s.images[0]))
    native = any(p.native(library) for p in PRIMITIVES.values())
    yield truth(native == s.target.library.native, "native primitives are found")
    if not native or s.dtype not in ("float64", "float32"):
        return
    x, y, bar = (image.astype(s.dtype) for image in s.images)
    twin = s.host.asarrays(x)
    with agnostic():
        forward, inverse = values(twin.forward(x)), values(twin.inverse(y))
        gradients, _ = twin.forward_vjp(x, bar)
        plan = twin.prepare(s.case.spatial_shape, check=False).plan
    yield truth("compiled kernel" not in str(plan), "the twin's own way")
    error = s.norm(values(s.conv.forward(s.array(x))) - forward)
    yield s.worst("y", error, s.unit * (s.scales.gain * s.norm(x) + s.shift_norm))
    error = s.norm(values(s.conv.inverse(s.array(y))) - inverse)
    lever = s.unit * s.scales.gain * s.scales.loss
    yield s.worst("x", error, 2 * lever * (s.norm(inverse) + s.scales.loss * s.shift_norm))
    found, _ = s.conv.forward_vjp(s.array(x), s.array(bar))
    for name, gradient in gradients.items():
        wanted = values(gradient)
        difference = float(np.sqrt(((values(found[name]) - wanted) ** 2).sum()))
        size = float(np.linalg.norm(s.norm(x)) * np.linalg.norm(s.norm(bar)))
        size += float(np.sqrt((wanted**2).sum()))
        yield Measure(f"{name}_bar", difference, lever * size)
