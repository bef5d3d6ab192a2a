"""The laws of what is kept: copies, files, and what was remembered of arrays that then change."""

from __future__ import annotations

import copy
import importlib.util
import json
import pickle
import warnings
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

import invconv as ic
from invconv.arrays.namespaces import to_numpy
from invconv.files.whole_files import replacing
from invconv_conformance.laws.law import law, truth
from invconv_conformance.laws.setting import Array, Floats, Measure, Setting

_CHANGE = 1.25  # exact in every dtype, and regular stays regular


@law("updates", "after any change of the parameters nothing comes from the old ones", eager=True)
def updates(s: Setting) -> Iterator[Measure]:
    """Of copies with other arrays, of arrays that are written into, and of a library's layers."""
    x = s.array(s.images[0])
    try:
        x[...] = s.array(s.images[0])
    except TypeError:  # JAX's arrays are never written to
        return
    conv = s.case.conv().asarrays(x)
    changed = {n: s.array(_CHANGE * to_numpy(a)) for n, a in conv.parameters().items()}
    fresh = s.case.conv().asarrays(x).replace(**changed)
    old, wanted = _everything(conv, x), _everything(fresh, x)
    yield truth(not _equal(old, wanted), "a change that changes nothing")
    yield truth(_equal(_everything(conv.replace(**changed), x), wanted), "replace")
    yield truth(_equal(_everything(conv, x), old), "the operator that was copied")
    if s.target.library.layers is not None:
        yield from _layers(s, x)
    for name, array in conv.parameters().items():
        array[...] = changed[name]
    yield truth(_equal(_everything(conv, x), wanted), "in place")


def _layers(s: Setting, x: Array) -> Iterator[Measure]:
    """Invert with a layer, train it in every way there is, and invert again."""
    assert s.target.library.layers is not None
    for how, found, conv in s.target.library.layers(s.plain, x, _CHANGE):
        error = np.abs(to_numpy(found) - to_numpy(conv.inverse(x))).reshape(len(x) or 1, -1)
        lever = s.unit * (s.scales.gain * s.scales.loss) ** 2
        size = float(np.abs(to_numpy(found)).max(initial=1.0))
        yield Measure(f"a layer, {how}", float(error.max(initial=0)), lever * size)


def _everything(conv: ic.InvertibleConv, x: Array) -> list[Floats]:
    """Return all that an operator computes of an image."""
    gradients, x_bar = conv.forward_vjp(x, x)
    found = [*conv.forward_and_log_det(x), *conv.inverse_and_log_det(x), *gradients.values(), x_bar]
    return list(map(to_numpy, found))


def _equal(one: list[Floats], other: list[Floats]) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


@law(
    "copies",
    "a deep copy, or a pickle, of an operator or a prepared inverse gives the same bits",
    eager=True,
)
def copies(s: Setting) -> Iterator[Measure]:
    """Where the library's arrays can be pickled; the original is gone by then."""
    y = s.array(s.images[1])
    try:
        pickle.dumps(y)
    except Exception:  # array-api-strict's cannot
        return
    wanted = to_numpy(s.plain.inverse(y))
    for what, conv in (("a deep copy", copy.deepcopy(s.plain)), ("a pickle", _pickled(s.plain))):
        yield truth(np.array_equal(to_numpy(conv.inverse(y)), wanted), what)
    for what, duplicate in (("deep copy", copy.deepcopy), ("pickle", _pickled)):
        made = duplicate(s.case.conv().asarrays(y).prepare(s.case.spatial_shape, check=False))
        found = to_numpy(made.inverse(y))
        yield truth(np.array_equal(found, wanted), f"a {what} of a prepared inverse")


def _pickled(thing: object) -> ic.InvertibleConv:
    found: ic.InvertibleConv = pickle.loads(pickle.dumps(thing))
    return found


@law(
    "file.same",
    "save -> load gives the same settings, bits and log-determinant",
    singular=True,
    eager=True,
)
def file_same(s: Setting) -> Iterator[Measure]:
    """Of every operator that can be built, in the library and dtype that it was saved from."""
    if importlib.util.find_spec("safetensors") is None:
        return
    conv, like, shape = s.plain, s.array(np.zeros(())), s.case.spatial_shape
    with TemporaryDirectory(prefix="invconv-") as folder:
        ic.save(conv, Path(folder) / "conv.safetensors")
        back = ic.load(Path(folder) / "conv.safetensors", like=like)
    yield truth(repr(back) == repr(conv), "its classes, settings, shapes and dtypes")
    for (name, one), other in zip(conv._arrays().items(), back._arrays().values(), strict=True):
        yield truth(to_numpy(one).tobytes() == to_numpy(other).tobytes(), name)
    one, other = (to_numpy(c.log_det(shape)) for c in (conv, back))
    yield truth(np.array_equal(one, other, equal_nan=True), "its log-determinant")


@law(
    "file",
    "a damaged file is refused, and a write that fails leaves no trace",
    singular=True,
    eager=True,
)
def file(s: Setting) -> Iterator[Measure]:
    """With a checksum, which tells every damage, and without, as files of 0.2.0 are."""
    if importlib.util.find_spec("safetensors") is None or s.dtype == "bfloat16":
        return
    conv, like = s.plain, s.array(np.zeros(()))
    with TemporaryDirectory(prefix="invconv-") as folder:
        path = Path(folder) / "conv.safetensors"
        ic.save(conv, path)
        content = path.read_bytes()
        try:
            with replacing(path) as part:
                part.write_bytes(content[:9])
                raise InterruptedError
        except InterruptedError:
            whole = path.read_bytes() == content
        yield truth(whole and list(path.parent.iterdir()) == [path], "a write that fails")
        if s.dtype == "float64":
            yield _too_large(s, path)
            yield _too_small(s, path)
        for what, damaged in _damages(s, conv, content):
            path.write_bytes(damaged)
            try:
                ic.load(path, like=like)
            except ic.InvalidFileError as error:
                yield truth(path.name in str(error), f"{what}: the message")
            else:
                yield truth(False, f"{what} is taken")


def _too_large(s: Setting, path: Path) -> Measure:
    """Load numbers beyond the range of another dtype into it."""
    name = _save_with(s, path, 2.0**200)
    try:
        ic.load(path, like=s.target.asarray(np.zeros(()), "float32"))
    except ValueError as error:
        return truth(f"holds {name}" in str(error), "beyond the range: the message")
    return truth(False, "numbers beyond the range are taken")


def _too_small(s: Setting, path: Path) -> Measure:
    """Load numbers that are zero in another dtype into it."""
    name = _save_with(s, path, 2.0**-200)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        ic.load(path, like=s.target.asarray(np.zeros(()), "float32"))
    said = any(f"numbers of {name}" in str(w.message) for w in caught)
    return truth(said, "numbers that become zero are told")


def _save_with(s: Setting, path: Path, number: float) -> str:
    """Save the operator with a number in its largest parameter, and return which that is."""
    name, array = max(s.plain.parameters().items(), key=lambda item: np.prod(item[1].shape))
    values = to_numpy(array).copy()
    values.reshape(-1)[-1] = number
    ic.save(s.plain.replace(**{name: s.array(values)}), path)
    return name


def _damages(s: Setting, conv: ic.InvertibleConv, content: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield files with a NaN, cut short, of another class, and with settings that are none.

    All but the first have no checksum, so that it is not the checksum that refuses them.
    """
    yield "a flipped bit", content[:-1] + bytes([content[-1] ^ 1])
    content = unsealed(content)
    name, array = max(conv.parameters().items(), key=lambda item: np.prod(item[1].shape))
    numbers = to_numpy(array).astype(s.dtype)
    broken = np.full_like(numbers, np.nan).tobytes()
    yield f"NaN in {name}", content.replace(numbers.tobytes(), broken)
    yield "a file cut short", content[:-1]
    yield "an entry twice", _edited(content, "settings", "{", '{},"settings":{')
    for what, value in (("a truth value", "true"), ("a number without end", f"{10**30}")):
        changed = _edited(content, "ndim", "null", value)
        if changed != content:
            yield f"{what} for a number of axes", changed
    yield "another class", content.replace(b'class\\":\\"', b'class\\":\\"O')[: len(content)]


def unsealed(content: bytes) -> bytes:
    """Return a file as 0.2.0 wrote it, without a checksum."""
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    del header["__metadata__"]["invconv-crc32"]
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + content[8 + size :]


def _edited(content: bytes, entry: str, old: str, new: str) -> bytes:
    """Return a file in whose description an entry begins with something else."""
    size = int.from_bytes(content[:8], "little")
    before, after = (f'"{entry}":{value}'.replace('"', '\\"').encode() for value in (old, new))
    header = content[8 : 8 + size].replace(before, after, 1)
    return len(header).to_bytes(8, "little") + header + content[8 + size :]
