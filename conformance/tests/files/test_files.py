"""Operators in files: every class, library, dtype and bound comes back exactly as it was."""

import contextlib
import copy
import json
import pickle
import sys
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
import torch
from jax import numpy as jnp

import invconv as ic
import invconv_torch as it
from invconv.arrays.namespaces import ops_of
from invconv.files.saving import DEEPEST, describe
from invconv_conformance.libraries import KNOWN
from tests.selected import FEW, turned

OPERATORS = {case.name: case.conv() for case in FEW}
PLU = OPERATORS["pluconv1x1-2d"]
CHAIN = ic.Chain([PLU, ic.Inverse(OPERATORS["corner-bias"]), OPERATORS["qrconv1x1-m0"]])
DTYPES = ("float64", "float32", "float16", "bfloat16")
LIBRARIES = ("numpy", "torch", "jax", "array_api_strict")
FILE = Path("conv.safetensors")
pytestmark = pytest.mark.usefixtures("in_a_folder")
HALVES = {"float16": ("numpy", "torch", "jax"), "bfloat16": ("torch", "jax")}


def like_of(library: str, dtype: str) -> Any:
    return KNOWN[library].asarray(np.empty(0), dtype, KNOWN[library].devices()[0])


def bits(array: Any) -> Any:
    """Return the values of an array of any library, as NumPy and exactly, by no code of ours."""
    if ops_of(array).name == "torch":
        return array.to(torch.float64 if array.is_floating_point() else torch.int64).numpy()
    if ops_of(array).name == "array_api_strict":
        return np.from_dlpack(array)
    return np.asarray(array).astype(np.int64 if array.dtype.kind == "i" else np.float64)


def assert_same(found: ic.InvertibleConv, expected: ic.InvertibleConv) -> None:
    assert type(found) is type(expected)
    assert describe(found, {}) == describe(expected, {})
    ours, theirs = found._arrays(), expected._arrays()
    assert list(ours) == list(theirs)
    for name, array in ours.items():
        assert np.array_equal(bits(array), bits(theirs[name])), name


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", OPERATORS)
def test_every_library_writes_the_same_bytes(name: str, dtype: str) -> None:
    contents = set()
    for library in HALVES.get(dtype, LIBRARIES):
        ic.save(OPERATORS[name].asarrays(like_of(library, dtype)), FILE)
        contents.add(FILE.read_bytes())
    assert len(contents) == 1


@pytest.mark.parametrize("dtype", DTYPES)
def test_safetensors_own_reader_finds_the_parameters(dtype: str) -> None:
    conv = CHAIN.asarrays(like_of("torch", dtype))
    ic.save(conv, FILE)
    found = safetensors.numpy.load_file(FILE)
    assert set(found) == set(conv._arrays())
    assert set(found) - set(conv.parameters()) == {"0.permutation", "0.sign"}
    for name, array in conv._arrays().items():
        assert np.array_equal(found[name].astype(np.float64), bits(array)), name
    content = FILE.read_bytes()
    length = int.from_bytes(content[:8], "little")
    assert length % 8 == 0  # so that arrays are aligned in a file that is mapped to memory
    header = json.loads(content[8 : 8 + length])
    for name, array in found.items():
        assert header[name]["data_offsets"][0] % array.itemsize == 0
    said = header["__metadata__"]  # the checksum that later versions will ask for
    checksum = zlib.crc32(said["invconv"].encode())
    for name, array in sorted(found.items()):
        text = f"{name!r} {array.dtype.name} {array.shape}"
        checksum = zlib.crc32(text.encode() + array.tobytes(), checksum)
    assert said["invconv-crc32"] == f"{checksum:08x}"
    kind = np.dtype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)
    assert {array.dtype for name, array in found.items() if name != "0.permutation"} == {kind}


def test_without_like_arrays_are_numpys_in_the_dtype_of_the_file() -> None:
    for dtype in ("float64", "float32", "float16"):
        ic.save(OPERATORS["emerging-biases"].asarrays(like_of("jax", dtype)), FILE)
        for array in ic.load(FILE).parameters().values():
            assert isinstance(array, np.ndarray)
            assert array.dtype == dtype
            assert array.flags.writeable


def test_like_may_be_of_another_dtype_as_in_asarrays() -> None:
    like = torch.empty(0, dtype=torch.float32)
    ic.save(CHAIN, FILE)
    assert_same(ic.load(FILE, like=like), CHAIN.asarrays(like))
    half = PLU.asarrays(like_of("torch", "bfloat16"))
    ic.save(half, FILE)
    assert_same(ic.load(FILE, like=np.empty(0, np.float32)), half)


@pytest.mark.parametrize("target", LIBRARIES)
def test_a_number_that_is_zero_for_xla_alone_is_told(target: str) -> None:
    """The law "file" has those that are zero for every library; all hold the largest number."""
    like = like_of(target, "float32")
    kind = np.finfo("f4")  # its smallest normal number is none of them
    ic.save(ic.Conv1x1(np.asarray([[kind.max, 0.0], [1e-45, kind.tiny]], float)), FILE)
    if target == "jax":
        lost = "up to 1e-45, are zero in float32, whose .* 1.18e-38"
        with pytest.warns(UserWarning, match=lost) as told:
            ic.load(FILE, like=like)
        assert told[0].filename == __file__
    else:
        ic.load(FILE, like=like)  # to a number of few digits, but to a number


def test_odd_memory_is_written_in_order() -> None:
    weight = np.arange(36.0).reshape(6, 6)
    for odd in (np.asfortranarray(weight[:3, :3]), weight[::2, ::-2], weight[:3, :3].astype(">f8")):
        ic.save(ic.Conv1x1(odd), FILE)
        assert np.array_equal(safetensors.numpy.load_file(FILE)["weight"], odd.astype(float))
    ic.save(PLU.replace(permutation=np.arange(PLU.channels, dtype=np.int16)), FILE)
    assert (safetensors.numpy.load_file(FILE)["permutation"] == np.arange(PLU.channels)).all()
    ic.save(ic.Conv1x1(torch.tensor(weight).T), FILE)
    assert np.array_equal(safetensors.numpy.load_file(FILE)["weight"], weight.T)


def nested(depth: int) -> ic.InvertibleConv:
    conv: ic.InvertibleConv = OPERATORS["conv1x1-2d"]
    for _ in range(depth - 1):
        conv = ic.Chain([conv])
    return conv


def test_the_deepest_operator_comes_back() -> None:
    """Twice as long for each level would be half an hour."""
    ic.save(nested(DEEPEST), FILE)
    assert_same(ic.load(FILE), nested(DEEPEST))


def test_a_file_is_in_memory_once() -> None:
    ic.save(ic.Conv1x1(np.eye(1024)), FILE)
    tracemalloc.start()
    ic.load(FILE)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1.1 * FILE.stat().st_size


def test_without_safetensors_it_says_what_to_install(monkeypatch: Any) -> None:
    monkeypatch.setitem(sys.modules, "safetensors", None)
    for call in (lambda path: ic.save(PLU, path), ic.load):
        with pytest.raises(ImportError, match=r"pip install 'invconv\[files\]'"):
            call(FILE)


BOUNDED: dict[str, Callable[[], Any]] = {
    "periodic": lambda: it.PeriodicConv2d(3, max_gain=4.0),
    "emerging": lambda: it.EmergingConv2d(3, mixing="plu", max_gain=4.0),
    "qr": lambda: it.Conv1x1(3, "qr", max_gain=4.0, dtype=torch.bfloat16),
    "chain": lambda: it.ReversibleChain([it.ActNorm(3), it.AutoregressiveConv2d(3, max_gain=4.0)]),
}


@pytest.mark.parametrize("name", BOUNDED)
def test_a_bound_is_saved_and_restored(name: str) -> None:
    """The layer of a loaded operator keeps the bound while it trains, as the one that was saved."""
    layer = BOUNDED[name]()
    dtype = next(layer.parameters()).dtype
    conv, x = layer.operator(), torch.randn(2, 3, 5, 4).to(dtype)
    ic.save(conv, FILE)
    loaded = ic.load(FILE, like=x)
    assert describe(loaded, {}) == describe(conv, {})
    torch.testing.assert_close(loaded.parameters(), conv.parameters())  # bounded by NumPy
    again = it.InvertibleModule(ic.load(FILE, like=x))
    for module in (layer, again):
        for weight in module.parameters():
            torch.manual_seed(weight.numel())  # in whatever order they come
            weight.data = (30 ** (weight.ndim > 1) * torch.randn(weight.shape)).to(dtype)
    torch.testing.assert_close(again(x), layer(x))
    if name == "qr":
        return  # its inverse in bfloat16 has no digits to spare
    units = torch.eye(60).reshape(60, 3, 5, 4)
    bounded = again if name != "chain" else again.get_submodule("1")
    matrix = (bounded(units)[0] - bounded(0 * units)[0]).detach().reshape(60, 60)
    assert 1 / torch.linalg.svdvals(matrix)[-1] < 4.001
    with pytest.raises(ValueError, match=r"expected 4\.0, by which conv is bounded, got 5"):
        it.InvertibleModule(bounded.operator(), max_gain=5.0)


def test_a_bound_travels_with_copies_and_not_with_other_arrays() -> None:
    conv = ic.bounded(ic.PeriodicConv.init(2, rng=np.random.default_rng(0)), 3.0)
    again = ic.bounded(conv, 2.0)
    copies = pickle.loads(pickle.dumps(conv)), copy.deepcopy(conv), conv.asarrays(torch.zeros(1))
    for kept in copies:
        assert describe(kept, {})["max_gain"] == 3.0
    ic.save(copies[-1], FILE)  # of torch's float32
    assert ic.load(FILE).parameters()["kernel"].dtype == np.float32
    held = conv.prepare((4, 4)).conv  # whose arrays conv's edits do not reach
    for other in (conv.replace(), conv.replace(bias=np.zeros(2)), conv.transpose(), held):
        assert "max_gain" not in describe(other, {})
    ic.save(again, FILE)
    loaded = ic.load(FILE)
    np.testing.assert_array_equal(loaded.parameters()["kernel"], again.kernel)
    ic.save(ic.Chain([ic.ActNorm.init(2), ic.Inverse(conv)]), FILE)
    loaded = ic.load(FILE, like=jnp.zeros(1, "float32"))
    assert describe(loaded, {})["parts"]["1"]["parts"]["conv"]["max_gain"] == 3.0


def test_what_the_reader_bounds_to_another_operator_is_refused() -> None:
    """Edited arrays, and nearly singular ones: a library, or a half type, may turn their QR."""
    half, flat = turned(0.15, 0.15, dtype=np.float16), ic.Conv1x1(np.full((3, 3), 0.1))
    edited = ic.bounded(half, 100.0)  # to numbers below one half
    half.weight[:] *= np.float16(1.04)
    near = ic.bounded(ic.Conv1x1(np.asarray([[1.0004, 1.0006], [1.0, 1.0004]])), 5.0)
    for conv in (edited, near.asarrays(half.weight)):  # where its determinant is below zero
        with pytest.raises(ValueError, match=r"got edited ones, or a nearly singular .* bound it "):
            ic.save(conv, FILE)
        ic.save(conv.replace(), FILE)
        assert_same(ic.load(FILE), conv.replace())
    free = ic.bounded(flat.asarrays(torch.zeros(1).double()), 5.0)
    with contextlib.suppress(ValueError):
        ic.save(free, FILE)
        np.testing.assert_allclose(ic.load(FILE).weight, free.weight.numpy())
    turns = ic.bounded(ic.OrthogonalConv1x1(np.zeros((0, 3))), 5.0)
    ic.save(turns, FILE)
    assert_same(ic.load(FILE), turns)
