"""The laws of behaviour: kinds of arrays, memory, and other ways to the same numbers."""

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np

import invconv as ic
from invconv.arrays.namespaces import Array, dtype_name, library_name, namespace, to_numpy
from invconv.arrays.registry import PRIMITIVES, agnostic
from invconv.operators import dropins
from invconv_conformance.laws.law import Measure, largest, law, same, truth, values
from invconv_conformance.laws.setting import DIRECTIONS, PULLBACKS, Setting, everything
from invconv_conformance.truth import oracle
from invconv_conformance.truth.bounds import C_FACTOR, EPS


@law("kind")
def kind(s: Setting) -> Iterator[Measure]:
    """Results have the library, dtype, device and shape of the argument."""
    x = s.array(s.images[0])
    found = everything(s.conv, x)
    yield from _shapes(s, x, found)
    for what, array in (found | {"log_det of one sample": s.more("log_det", x)}).items():
        dtype = s.log_det_dtype if what.startswith("log_det") else s.dtype
        yield truth(library_name(array) == library_name(x), f"library of {what}")
        yield truth(dtype_name(array.dtype) == dtype, f"dtype of {what}")
        # an array of MLX, which has one memory, says none
        one, other = (getattr(a, "device", None) for a in (array, x))
        yield truth(one == other, f"device of {what}")


def _shapes(s: Setting, x: Array, found: dict[str, Array]) -> Iterator[Measure]:
    parameters = s.conv.parameters()
    for what, array in found.items():
        like: Any = parameters.get(what.rpartition(" by ")[2], x)
        wanted = tuple(like.shape)
        if what.startswith("log_det"):
            wanted = wanted[: len(s.case.batch_shape)]
        yield truth(tuple(array.shape) == wanted, f"shape of {what}")


@law("no_mutation")
def no_mutation(s: Setting) -> Iterator[Measure]:
    """Arguments and parameters keep their values."""
    x = s.array(s.images[0])
    wanted = s.fresh().parameters()  # the setting's may be overwritten by now
    for name, array in s.conv.parameters().items():
        yield same(array, wanted[name], f"{name}, before")
    held = {"x": x, **s.conv.parameters()}
    before = {name: to_numpy(array) for name, array in held.items()}
    everything(s.conv, x)
    for name, array in held.items():
        yield same(array, before[name], name)


@law("determinism", "reproducibility")
def determinism(s: Setting) -> Iterator[Measure]:
    """Two runs are equal bit by bit, whatever ran between."""
    x, other = (s.array(image) for image in s.images[:2])
    kept = everything(s.conv, x)
    first = {what: to_numpy(array) for what, array in kept.items()}
    everything(s.conv, other)
    for what, again in everything(s.conv, x).items():
        yield same(kept[what], first[what], f"{what} keeps its result")
        yield same(again, first[what], what)


@law("empty", "linearity")
def empty(s: Setting) -> Iterator[Measure]:
    """An empty batch gives an empty result, and gradients of zero."""
    if not s.case.batch_shape:
        return
    x = s.array(np.empty((0, *s.images[0].shape[1:])))
    found = everything(s.conv, x)
    yield from _shapes(s, x, found)
    for what, array in found.items():
        yield truth(not to_numpy(array).any(), what)


@law("layout", eager=True)
def layout(s: Setting) -> Iterator[Measure]:
    """A view with strides, or read-only memory, gives the same values."""
    if not s.target.library.views:
        return
    x = s.images[0]
    strided = s.plain.replace(**{n: _view(a) for n, a in s.plain.parameters().items()})
    array, y = _view(s.array(x)), s.forward(x)
    found = strided.forward(array)
    yield s.off("y", found, y, s.unit * s.reach(x) + s.cast(s.norm(values(found))))
    back = values(strided.inverse(array))
    bound = s.unit * (s.reach(back) + s.norm(x)) + s.scales.gain * s.cast(s.norm(back))
    yield s.off("K x + b", s.forward(back), x, bound)
    for what in PULLBACKS:
        found, _ = getattr(strided, what)(array, array)
        for name, wanted in getattr(s.plain, what)(s.array(x), s.array(x))[0].items():
            size = largest(values(wanted)) + float(s.norm(x) @ s.norm(x))
            error = largest(values(found[name]) - values(wanted))
            yield Measure(f"{what}, {name}_bar", error, s.gradient_bound(size))


def _view(array: Array) -> Array:
    """Return the same values as every other element of a larger array, read-only in NumPy."""
    xp = namespace(array)
    view = xp.stack([array, array], axis=-1)[..., 0]
    if isinstance(view, np.ndarray):
        view.flags.writeable = False
    return view


@law("prepared", eager=True)
def prepared(s: Setting) -> Iterator[Measure]:
    """A prepared inverse is the inverse of the values held when it was made, whatever happens to
    the operator's arrays, or to those of the prepared one's ``conv``.
    """
    y, conv = s.array(s.images[1]), s.fresh()
    x, log_det = s.plain.inverse_and_log_det(y)
    inverse = conv.prepare(s.case.spatial_shape, check=False)
    with contextlib.suppress(TypeError):  # JAX's arrays are never written to
        for array in (*conv.parameters().values(), *inverse.conv.parameters().values()):
            array[...] = 7.0
    found, found_log_det = inverse.inverse_and_log_det(y)
    yield same(found, x, "inverse")
    yield same(found_log_det, log_det, "log-determinant")
    yield truth(isinstance(inverse.plan.method, str), "plan")


@law("drop_in", eager=True)
def drop_in(s: Setting) -> Iterator[Measure]:
    """What a flow library calls takes any number of batch axes, as the operator does."""
    x = s.array(s.images[0])
    if not hasattr(x, "reshape"):
        return
    axes = dropins.event_ndim(s.plain.ndim, len(s.case.spatial_shape))
    for what in DIRECTIONS:
        run = getattr(s.plain, what)
        for one, other in zip(dropins.on_batch(run, x, axes), run(x), strict=True):
            yield same(one, other, what)


@law("squeeze", "torch's pixel_unshuffle", eager=True)
def squeeze(s: Setting) -> Iterator[Measure]:
    """squeeze(x)[c f^2 + i f + j, h, w] = x[c, h f + i, w f + j], or sum T_ik T_jl x[c, h f + k, w
    f + l] with Haar's or the cosines' T, and unsqueeze undoes it.
    """
    x = np.resize(s.images[0], (2, 3, 4, 6))
    wanted = [x[:, c, i::2, j::2] for c in range(3) for i in range(2) for j in range(2)]
    found = ic.squeeze(s.array(x))
    yield truth(np.array_equal(values(found), np.stack(wanted, 1)), "squeeze")
    yield truth(np.array_equal(values(ic.unsqueeze(found)), x), "unsqueeze")
    x = values(s.array(np.resize(s.images[0], (2, 3, 4, 8)))).astype(np.float64)
    bound = (C_FACTOR * 16 * EPS[s.log_det_dtype] + 2 * EPS[s.dtype]) * float(np.linalg.norm(x))
    for basis in ("haar", "dct"):
        matrix = oracle.block_transform(basis, 4).astype(float)
        blocks = np.einsum("ik,jl,bchkwl->bcijhw", matrix, matrix, x.reshape(2, 3, 1, 4, 2, 4))
        found = ic.squeeze(s.array(x), 4, basis=basis)
        off = values(found) - blocks.reshape(2, 48, 1, 2)
        yield Measure(f"squeeze, {basis}", float(np.linalg.norm(off)), bound)
        off = values(ic.unsqueeze(found, 4, basis=basis)) - x
        yield Measure(f"unsqueeze, {basis}", float(np.linalg.norm(off)), bound)


@law("parity", "one formula, several ways to run it")
def parity(s: Setting) -> Iterator[Measure]:
    """A native primitive gives what its agnostic twin gives, run by NumPy."""
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
    yield s.off("y", s.conv.forward(s.array(x)), forward, s.unit * s.reach(x))
    bound = 2 * s.lever * (s.norm(inverse) + s.scales.loss * s.shift_norm)
    yield s.off("x", s.conv.inverse(s.array(y)), inverse, bound)
    found, _ = s.conv.forward_vjp(s.array(x), s.array(bar))
    for name, gradient in gradients.items():
        wanted = values(gradient)
        off, size = (float(np.sqrt((a**2).sum())) for a in (values(found[name]) - wanted, wanted))
        size += float(np.linalg.norm(s.norm(x)) * np.linalg.norm(s.norm(bar)))
        yield Measure(f"{name}_bar", off, s.lever * size)
