"""The laws of behaviour: kinds of arrays, memory, other ways to the same numbers, and state:
copies, files, and what was remembered of arrays that then change.
"""

import contextlib
import copy
import dataclasses
import functools
import importlib.util
import json
import pickle
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

import invconv as ic
from invconv.arrays.namespaces import Array, dtype_name, ops_of, to_numpy
from invconv.arrays.registry import PRIMITIVES, agnostic
from invconv.extend import Factor
from invconv.files.container import replacing
from invconv.operators import dropins
from invconv_conformance.laws.law import Floats, Measure, largest, law, refuses, same, truth, values
from invconv_conformance.laws.setting import DIRECTIONS, PULLBACKS, REPEATED, Setting, everything


@law("kind")
def kind(s: Setting) -> Iterator[Measure]:
    """Results have the library, dtype, device and shape of the argument."""
    x = s.array(s.images[0])
    found = everything(s.conv, x)
    yield from _shapes(s, x, found)
    for what, array in (found | {"log_det of one sample": s.more("log_det", x)}).items():
        dtype = s.log_det_dtype if what.startswith("log_det") else s.dtype
        yield truth(ops_of(array).name == ops_of(x).name, f"library of {what}")
        yield truth(dtype_name(array.dtype) == dtype, f"dtype of {what}")
        # MLX has one memory, and its arrays no device
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
    with contextlib.suppress(TypeError):  # raised where the operator has no rule
        if s.known:  # a user's class need not support byte orders
            bounded = ic.bounded(s.plain, 2.0)
    for how, held in s.memories().items():
        x, conv = held(s.images[0]), s.plain
        if how != REPEATED:  # repeated parameters are another operator
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
        size = float(s.norm(image) @ s.norm(image))
        for what, one, other in pairs:
            yield s.two_ways(f"{how}: {what}", values(one), values(other), size)


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
    """Methods that a flow library calls take any number of batch axes, as the operator does."""
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
    library = ops_of(s.array(s.images[0])).name
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


_CHANGE = 1.25  # exact in every dtype, and regular stays regular


@law("updates", eager=True)
def updates(s: Setting) -> Iterator[Measure]:
    """After any change of the parameters no result is of the old ones, even if an author's class
    keeps weights in a `functools.cached_property`.
    """
    x, layers = s.array(s.images[0]), s.target.library.layers

    def results(conv: ic.InvertibleConv) -> list[Floats]:
        # without the inverse's gradients, which overflow where numbers are tiny
        return list(map(to_numpy, everything(conv, x, PULLBACKS[:1]).values()))

    values = {n: to_numpy(array) for n, array in s.plain.parameters().items()}
    changed = {n: s.array(_CHANGE * v if v.any() else v + 0.25) for n, v in values.items()}
    old, wanted = results(s.fresh()), results(s.fresh().replace(**changed))
    changes = not (s.known and all(map(np.array_equal, old, wanted)))
    yield truth(changes, "a change that changes nothing")
    for conv, whose in (s.fresh(), ""), (_keeping(s.fresh()), ", of a class that keeps weights"):
        before, after = results(conv), results(conv.replace(**changed))
        yield truth(all(map(np.array_equal, before, old)), f"before{whose}")
        yield truth(all(map(np.array_equal, after, wanted)), f"replace{whose}")
        again = all(map(np.array_equal, results(conv), old))
        yield truth(again, f"the operator that was copied{whose}")
        for how, found, trained in () if layers is None else layers(conv, x, _CHANGE):
            error = largest(to_numpy(found) - to_numpy(trained.inverse(x)))
            size = max(1.0, largest(to_numpy(found)))
            yield Measure(f"{how}{whose}", error, s.lever * s.scales.condition * size)
    conv = s.fresh()
    try:
        for name, array in conv.parameters().items():
            array[...] = changed[name]
    except TypeError:  # JAX's arrays are never written to
        return
    yield truth(all(map(np.array_equal, results(conv), wanted)), "in place")


def _keeping(conv: Any) -> Any:
    """Return an operator of a subclass that makes its weights once."""
    fields, cls = dataclasses.fields(conv), _class_that_keeps(conv.__class__)
    return cls(**{field.name: getattr(conv, field.name) for field in fields})


@functools.cache
def _class_that_keeps(cls: type) -> Any:
    return type(f"{cls.__name__}ThatKeeps", (_Keeping, cls), {})


class _Keeping:
    @functools.cached_property
    def made(self) -> list[Factor]:
        made = (Factor(*factor) for factor in super().factors())  # type: ignore[misc]
        return [factor._replace(w=_copy_of(factor.w)) for factor in made]

    def factors(self) -> list[Factor]:
        return self.made


def _copy_of(w: Any) -> Any:
    return tuple(map(_copy_of, w)) if isinstance(w, tuple) else 1 * w


@law("copies", eager=True)
def copies(s: Setting) -> Iterator[Measure]:
    """A deep copy, or a pickle, of an operator or a prepared inverse gives the same bits."""
    y = s.array(s.images[1])
    try:
        pickle.dumps(y)
    except Exception:  # array-api-strict's arrays cannot be copied
        return
    wanted = s.plain.inverse(y)
    pickled: Callable[[Any], Any] = lambda thing: pickle.loads(pickle.dumps(thing))  # noqa: E731
    for what, duplicate in (("deep copy", copy.deepcopy), ("pickle", pickled)):
        yield same(duplicate(s.plain).inverse(y), wanted, f"a {what}")
        prepared = duplicate(s.fresh().prepare(s.case.spatial_shape, check=False))
        yield same(prepared.inverse(y), wanted, f"a {what} of a prepared inverse")


@law("file.same", singular=True, eager=True)
def file_same(s: Setting) -> Iterator[Measure]:
    """Save -> load gives the same settings, bits and log-determinant."""
    if importlib.util.find_spec("safetensors") is None:
        return
    conv, like, shape = s.plain, s.array(np.zeros(())), s.case.spatial_shape
    with TemporaryDirectory(prefix="invconv-") as folder:
        ic.save(conv, Path(folder) / "conv.safetensors")
        back = ic.load(Path(folder) / "conv.safetensors", like=like)
    yield truth(_settings(back) == _settings(conv), "its classes and settings")
    for (name, one), other in zip(conv._arrays().items(), back._arrays().values(), strict=True):
        alike = one.shape == other.shape and one.dtype == other.dtype
        yield truth(alike and to_numpy(one).tobytes() == to_numpy(other).tobytes(), name)
    yield same(back.log_det(shape), conv.log_det(shape), "its log-determinant")


def _settings(conv: Any) -> list[Any]:
    """Return the class of an operator and its settings, and those of its parts."""
    own = [getattr(conv, name) for name in conv._setting_names]
    return [type(conv), own, *map(_settings, conv._parts().values())]


@law("file", singular=True, eager=True)
def file(s: Setting) -> Iterator[Measure]:
    """A damaged file is refused, and a write that fails leaves no trace."""
    if importlib.util.find_spec("safetensors") is None or s.dtype == "bfloat16":
        return
    conv, like = s.plain, s.array(np.zeros(()))
    if 0 in _largest_parameter(conv)[1].shape:  # there is no number to damage
        return
    with TemporaryDirectory(prefix="invconv-") as folder:
        path = Path(folder) / "conv.safetensors"
        ic.save(conv, path)
        content = path.read_bytes()
        with contextlib.suppress(InterruptedError), replacing(path) as part:
            part.write_bytes(content[:9])
            raise InterruptedError
        whole = path.read_bytes() == content
        yield truth(whole and list(path.parent.iterdir()) == [path], "a write that fails")
        if s.dtype == "float64":
            yield from _beyond_the_range(s, path)
        for what, reason, damaged in _damages(s, conv, content):
            path.write_bytes(damaged)
            yield refuses(what, ic.InvalidFileError, (path.name, reason), ic.load, path, like)


def _beyond_the_range(s: Setting, path: Path) -> Iterator[Measure]:
    name, array = _largest_parameter(s.plain)
    like = s.target.asarray(np.zeros(()), "float32")
    for number in (2.0**200, 2.0**-200):
        numbers = to_numpy(array).copy()
        numbers.reshape(-1)[-1] = number  # if all were, it would be a zero vector
        ic.save(s.plain.replace(**{name: s.array(numbers)}), path)
        with warnings.catch_warnings(record=True, action="always") as caught:
            try:
                ic.load(path, like=like)
                refused = ""
            except ValueError as error:  # and a warning, if the only number of a vector is zero
                refused = str(error)
        message = " ".join([refused, *(str(w.message) for w in caught)])
        expected = f"holds {name}" if number > 1 else f"numbers of {name}"
        yield truth(expected in message, f"{number:g} in float32 is told")


def _largest_parameter(conv: ic.InvertibleConv) -> tuple[str, Array]:
    return max(conv.parameters().items(), key=lambda item: np.prod(item[1].shape))


def _damages(
    s: Setting, conv: ic.InvertibleConv, content: bytes
) -> Iterator[tuple[str, str, bytes]]:
    """Yield files with a NaN, cut short, ..., and why each is refused; most have no checksum."""
    yield "a flipped bit", "the checksum", content[:-1] + bytes([content[-1] ^ 1])
    content = unsealed(content)
    name, array = _largest_parameter(conv)
    size = 8 + int.from_bytes(content[:8], "little")
    start, end = (size + at for at in json.loads(content[8:size])[name]["data_offsets"])
    broken = np.full(array.shape, np.nan, s.dtype).tobytes()
    yield f"NaN in {name}", f"{name!r} holds NaN", content[:start] + broken + content[end:]
    yield "a file cut short", "no whole safetensors file", content[:-1]
    yield "an entry twice", "twice", _edited(content, "settings", "{", '{},"settings":{')
    for value in ("true", f"{10**30}"):
        changed = _edited(content, "ndim", "null", value)
        if changed != content:
            yield f"{value} for a number of axes", "ndim: expected", changed
    yield "another class", "unknown class 'O", _edited(content, "class", '"', '"O')


def unsealed(content: bytes) -> bytes:
    """Return a file as 0.2.0 wrote it, without a checksum."""
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    del header["__metadata__"]["invconv-crc32"]
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + content[8 + size :]


def _edited(content: bytes, entry: str, old: str, new: str) -> bytes:
    size = int.from_bytes(content[:8], "little")
    before, after = (f'"{entry}":{value}'.replace('"', '\\"').encode() for value in (old, new))
    header = content[8 : 8 + size].replace(before, after, 1)
    return len(header).to_bytes(8, "little") + header + content[8 + size :]
