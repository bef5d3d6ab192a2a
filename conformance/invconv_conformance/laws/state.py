"""The laws of what is kept: copies, files, and what was remembered of arrays that then change."""

import contextlib
import copy
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
from invconv.arrays.namespaces import Array, to_numpy
from invconv.files.container import replacing
from invconv_conformance.laws.law import Floats, Measure, largest, law, same, truth
from invconv_conformance.laws.setting import PULLBACKS, Setting, everything

_CHANGE = 1.25  # exact in every dtype, and regular stays regular


@law("updates", eager=True)
def updates(s: Setting) -> Iterator[Measure]:
    """After any change of the parameters nothing comes from the old ones."""
    x = s.array(s.images[0])

    def results(conv: ic.InvertibleConv) -> list[Floats]:
        # without the inverse's gradients, which overflow where numbers are tiny
        return list(map(to_numpy, everything(conv, x, PULLBACKS[:1]).values()))

    conv = s.fresh()
    values = {n: to_numpy(array) for n, array in conv.parameters().items()}
    changed = {n: s.array(_CHANGE * v if v.any() else v + 0.25) for n, v in values.items()}
    old, wanted = results(conv), results(s.fresh().replace(**changed))
    changes = not (s.known and all(map(np.array_equal, old, wanted)))
    yield truth(changes, "a change that changes nothing")
    yield truth(all(map(np.array_equal, results(conv.replace(**changed)), wanted)), "replace")
    yield truth(all(map(np.array_equal, results(conv), old)), "the operator that was copied")
    layers = s.target.library.layers
    for how, found, trained in () if layers is None else layers(s.plain, x, _CHANGE):
        error = largest(to_numpy(found) - to_numpy(trained.inverse(x)))
        size = max(1.0, largest(to_numpy(found)))
        yield Measure(f"a layer, {how}", error, s.lever * s.scales.condition * size)
    try:
        for name, array in conv.parameters().items():
            array[...] = changed[name]
    except TypeError:  # JAX's arrays are never written to
        return
    yield truth(all(map(np.array_equal, results(conv), wanted)), "in place")


@law("copies", eager=True)
def copies(s: Setting) -> Iterator[Measure]:
    """A deep copy, or a pickle, of an operator or a prepared inverse gives the same bits."""
    y = s.array(s.images[1])
    try:
        pickle.dumps(y)
    except Exception:  # array-api-strict's cannot
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
            try:
                ic.load(path, like=like)
            except ic.InvalidFileError as error:
                told = path.name in str(error) and reason in str(error)
                yield truth(told, f"{what}: the message")
            else:
                yield truth(False, f"{what} is taken")


def _beyond_the_range(s: Setting, path: Path) -> Iterator[Measure]:
    name, array = _largest_parameter(s.plain)
    like = s.target.asarray(np.zeros(()), "float32")
    for number in (2.0**200, 2.0**-200):
        numbers = to_numpy(array).copy()
        numbers.reshape(-1)[-1] = number  # all of them would be a zero vector
        ic.save(s.plain.replace(**{name: s.array(numbers)}), path)
        with warnings.catch_warnings(record=True, action="always") as caught:
            try:
                ic.load(path, like=like)
                refused = ""
            except ValueError as error:  # beside a warning, where a vector of one number is zero
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
