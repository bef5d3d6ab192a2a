"""The laws of behaviour: kinds of arrays, memory, and other ways to the same numbers."""

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np

import invconv as ic
from invconv.arrays.namespaces import Array, dtype_name, library_name, to_numpy
from invconv.arrays.registry import PRIMITIVES, agnostic
from invconv.operators import dropins
from invconv_conformance.laws.law import Measure, largest, law, same, truth, values
from invconv_conformance.laws.setting import DIRECTIONS, PULLBACKS, Setting, everything
from invconv_conformance.libraries.memory import REPEATED, memories


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
    for what, wanted in first.items():
        yield same(kept[what], wanted, f"{what} keeps its result")
    for what, again in everything(s.conv, x).items():
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
    """Views of any strides, read-only memory and foreign byte orders give the same values, and the
    same bounded operator.
    """
    shape, bounded = s.case.spatial_shape, None
    with contextlib.suppress(TypeError):  # of one that has no rule
        if s.known:  # a class of one's own need not know of byte orders
            bounded = ic.bounded(s.plain, 2.0)
    for how, held in memories(s.target, s.dtype).items():
        x, conv = held(s.images[0]), s.plain
        if how != REPEATED:  # of parameters, another operator
            parameters = {n: held(to_numpy(a)) for n, a in s.plain.parameters().items()}
            conv = s.plain.asarrays(x).replace(**parameters)
        image = to_numpy(x).astype(np.float64)
        plain, y = s.array(image), s.forward(image)
        bound = s.unit * s.reach(image) + s.cast(s.norm(y))
        yield s.off(f"{how}: y", conv.forward(x), y, bound)
        back = values(conv.inverse(x))
        bound = s.unit * (s.reach(back) + s.norm(image)) + s.scales.gain * s.cast(s.norm(back))
        yield s.off(f"{how}: K x + b", s.forward(back), image, bound)
        pairs = [("K^T x", conv.transpose().forward(x), s.plain.transpose().forward(plain))]
        pairs += [("log_det", conv.log_det(shape), s.plain.log_det(shape))]
        for what in PULLBACKS:
            found, _ = getattr(conv, what)(x, x)
            wanted, _ = getattr(s.plain, what)(plain, plain)
            pairs += [(f"{what}, {n}_bar", found[n], wanted[n]) for n in wanted]
        if bounded is not None:
            found = ic.bounded(conv, 2.0).parameters()
            pairs += [(f"bounded, {n}", found[n], a) for n, a in bounded.parameters().items()]
        for what, one, other in pairs:
            size = largest(values(other)) + float(s.norm(image) @ s.norm(image))
            error = largest(values(one) - values(other))
            yield Measure(f"{how}: {what}", error, s.gradient_bound(size))


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
