"""Files that are damaged or made to do harm: refused, with the file and the reason, at no cost.

The law "file" damages every operator's file; here is what it does not think of.
"""

from __future__ import annotations

import json
import os
import pickle
import re
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import invconv as ic
from invconv.files.description import DEEPEST
from invconv_conformance.laws.state import unsealed
from tests.files.work import little_work

Json = dict[str, Any]
WEIGHT = np.asarray([[1.0, 2.0], [0.0, 3.0]])
ENTRY = {"dtype": "F64", "shape": [2, 2], "data_offsets": [0, 32]}
PLAIN: Json = {"class": "Conv1x1", "settings": {"ndim": None}, "arrays": {"weight": "w"}}
PLAIN["parts"] = {}


def packed(header: Any, body: bytes = WEIGHT.tobytes(), length: int | None = None) -> bytes:
    """Return a file by the format's definition: length, header, body."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + body


def described(operator: Any, arrays: Json | None = None, schema: Any = "invconv-operator/1") -> Any:
    """Return the header of a file with a weight, described as anything."""
    text = (
        operator
        if isinstance(operator, str)
        else json.dumps({"schema": schema, "operator": operator})
    )
    return {"__metadata__": {"invconv": text}, **({"w": ENTRY} if arrays is None else arrays)}


def plain(**changes: Any) -> bytes:
    return packed(described(PLAIN | changes))


def nested(depth: int) -> bytes:
    operator = PLAIN
    for _ in range(depth - 1):
        operator = {"class": "Inverse", "settings": {}, "arrays": {}, "parts": {"conv": operator}}
    return packed(described(operator))


def corner(**changes: Any) -> bytes:
    settings = {"mask": "corner", "direction": 1, "channel_order": "lower", "dilation": 1} | changes
    operator = {"class": "AutoregressiveConv", "settings": settings, "arrays": {"kernel": "w"}}
    return packed(described(operator | {"parts": {}}, {"w": ENTRY | {"shape": [2, 2, 1]}}))


def of_array(body: bytes = WEIGHT.tobytes(), **changes: Any) -> bytes:
    return packed(described(PLAIN, {"w": ENTRY | changes}), body)


class Evil:
    """What runs code when it is unpickled."""

    def __reduce__(self) -> Any:
        return os.mkdir, ("harm",)


DEEP = '{"schema": "invconv-operator/1", "operator": ' + "[" * 50_000 + "]" * 50_000 + "}"
BIG = np.where(WEIGHT == 3, np.inf, WEIGHT)
TWO = {"0": PLAIN, "1": PLAIN}
EMERGING: Json = {"class": "EmergingConv", "settings": {}, "arrays": {}, "parts": {"first": PLAIN}}
INVERSE: Json = {"class": "Inverse", "settings": {}, "arrays": {}, "parts": {"conv": PLAIN}}

HEADER = json.dumps(described(PLAIN)).encode()

HOSTILE: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "no whole safetensors file: .*header too small"),
    "five bytes": (b"junk\n", "no whole safetensors file: .*header too small"),
    "a pickle": (pickle.dumps(Evil()), "no whole safetensors file: .*header too large"),
    "text": (b"import os; os.mkdir('harm')", "no whole safetensors file: .*header too large"),
    "header beyond the file": (packed(b"{}", length=2**62), "header too large"),
    "header too long": (packed(HEADER + b" " * 2**24), "at most 16777216"),
    "header of no JSON": (packed(b"nothing"), "no whole safetensors file: .*invalid JSON"),
    "header not UTF-8": (packed(b'{"\xff": 1}'), "invalid UTF-8"),
    "too long": (packed(described(PLAIN)) + b"0", "not fully covered"),
    "offsets beyond the file": (of_array(data_offsets=[0, 2**50]), "invalid shape|not fully"),
    "offsets that overlap": (
        packed(described(PLAIN, {"w": ENTRY, "v": ENTRY})),
        "invalid offset",
    ),
    "offsets from behind": (of_array(data_offsets=[32, 0]), "invalid"),
    "shape of another size": (of_array(shape=[3, 3]), "invalid shape"),
    "shape of 2^124 numbers": (of_array(shape=[2**62, 2**62]), "overflow"),
    "shape of 2^62 times 0": (of_array(b"", shape=[2**62, 0], data_offsets=[0, 0]), "too big"),
    "shape of 70 axes": (of_array(shape=[4] + [1] * 69), "dimension"),
    "negative shape": (of_array(shape=[-2, -2]), "invalid"),
    "unknown dtype": (of_array(dtype="F128"), "no whole safetensors file"),
    "complex": (of_array(dtype="C64"), "'w' is C64; expected one of F64, F32, F16, BF16 or I64"),
    "float8": (of_array(b"1234", dtype="F8_E4M3", data_offsets=[0, 4]), "'w' is F8_E4M3"),
    "integers": (of_array(dtype="I64"), "expected arrays of one real dtype, got none"),
    "two dtypes": (
        packed(
            described(
                PLAIN | {"arrays": {"weight": "w", "bias": "b"}},
                {"w": ENTRY, "b": {"dtype": "BF16", "shape": [2], "data_offsets": [32, 36]}},
            ),
            WEIGHT.tobytes() + b"1234",
        ),
        r"expected arrays of one real dtype, got \['BF16', 'F64'\]",
    ),
    "inf": (of_array(BIG.tobytes()), "'w' holds NaN or inf"),
    "another's file": (packed({"w": ENTRY}), "its metadata has no entry 'invconv'"),
    "no description": (packed(described("")), "the description is no JSON: "),
    "a description of no object": (packed(described("[1]")), "no JSON object"),
    "a deep description": (packed(described(DEEP)), "no JSON: .*recursion|expected an operator"),
    "another schema": (
        packed(described(PLAIN, schema="invconv-operator/2")),
        "expected the schema 'invconv-operator/1', got 'invconv-operator/2'",
    ),
    "no operator": (packed(described(7)), "expected an operator, got 7"),
    "a base class": (plain(**{"class": "InvertibleConv"}), "unknown class 'InvertibleConv'"),
    "a dotted class": (plain(**{"class": "os.system"}), "unknown class"),
    "a class of no text": (plain(**{"class": ["Conv1x1"]}), "unknown class"),
    "a class of a module": (
        plain(**{"class": "Sharpen", "module": "my.filters"}),
        "unknown class 'Sharpen'; first import my.filters, which defines it",
    ),
    "a class of a script": (
        plain(**{"class": "Sharpen", "module": "__main__"}),
        "unknown class 'Sharpen'; first define it, as the script or notebook did",
    ),
    "a module of no text": (plain(module=["os"]), "module: expected the name of one"),
    "a module that is a command": (plain(module="os; rm -r /"), "module: expected the name of one"),
    "a further entry": (plain(code="harm"), "an operator has .*not .*code"),
    "a bound that is none": (plain(max_gain=1), "max_gain: expected a finite number above 1"),
    "a bound that is text": (plain(max_gain="10"), "max_gain: expected a finite number above 1"),
    "a bound of what has none": (
        packed(described(INVERSE | {"max_gain": 10})),
        "conv: expected an operator whose class bounds its inverse, got Inverse",
    ),
    "a norm beyond all bounds": (
        packed(described(PLAIN | {"max_gain": 10}), np.full((2, 2), 1e308).tobytes()),
        "weight: its norm is too large to be bounded",
    ),
    "unknown setting": (plain(settings={"ndim": None, "mode": 1}), "has the settings"),
    "missing setting": (plain(settings={}), "has the settings"),
    "settings of no object": (plain(settings=[]), "settings is no object"),
    "setting of a wrong kind": (plain(settings={"ndim": "2"}), "ndim: expected None or a number"),
    "setting out of range": (plain(settings={"ndim": -1}), "ndim: expected None or a number"),
    "truth values for integers": (
        corner(dilation=[True]),
        r"AutoregressiveConv: dilation: expected no truth value, got \[True\]",
    ),
    "array twice": (
        packed(HEADER[:-1] + b', "w": ' + json.dumps(ENTRY).encode() + b"}"),
        "an object has the entry 'w' twice",
    ),
    "unknown array": (plain(arrays={"weight": "w", "scale": "w"}), "has the arrays"),
    "missing array": (plain(arrays={}), "has the arrays"),
    "array of no name": (plain(arrays={"weight": ["w"]}), "no array"),
    "array that is not there": (plain(arrays={"weight": "v"}), "no array 'v'"),
    "array used twice": (
        packed(described({"class": "Chain", "settings": {}, "arrays": {}, "parts": TWO})),
        "the array 'w' is used twice",
    ),
    "array that is not used": (
        packed(
            described(PLAIN, {"w": ENTRY, "v": ENTRY | {"data_offsets": [32, 64]}}),
            WEIGHT.tobytes() * 2,
        ),
        r"the operator has no arrays \['v'\]",
    ),
    "wrong shape for the class": (of_array(shape=[4, 1]), r"Conv1x1: weight: expected shape"),
    "wrong class for the shape": (
        plain(**{"class": "PeriodicConv"}, settings={"dilation": 1}, arrays={"kernel": "w"}),
        r"PeriodicConv: kernel: expected shape \(C, C, \*k\)",
    ),
    "setting that the class refuses": (
        corner(mask="exec"),
        "mask: expected 'corner' or 'raster', got 'exec'",
    ),
    "missing part": (packed(described(EMERGING)), r"has the parts \('first', 'second'\)"),
    "unknown part": (plain(parts={"conv": PLAIN}), "used twice|has the parts"),
    "a chain of nothing": (
        packed(described({"class": "Chain", "settings": {}, "arrays": {}, "parts": {}})),
        "Chain has the parts",
    ),
    "too deep": (nested(DEEPEST + 1), f"nested more than {DEEPEST} deep"),
    "far too deep": (nested(200), f"nested more than {DEEPEST} deep"),
}


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_the_file_that_the_others_are_made_of_is_read() -> None:
    Path("conv.safetensors").write_bytes(packed(described(PLAIN)))
    conv = ic.load("conv.safetensors")
    assert isinstance(conv, ic.Conv1x1)
    assert np.array_equal(conv.weight, WEIGHT)
    ic.save(conv, "again.safetensors")
    assert np.array_equal(ic.load("again.safetensors").parameters()["weight"], WEIGHT)


def test_much_work_is_noticed() -> None:
    with pytest.raises(AssertionError, match="more than 9 lines"), little_work(9, 2**23):
        sum(i for i in range(10**9))
    with pytest.raises(AssertionError, match="more than 8388608"), little_work(9, 2**23):
        bytes(2**24)


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_file(name: str) -> None:
    data, message = HOSTILE[name]
    Path("conv.safetensors").write_bytes(data)
    with little_work(20_000, 2**23), pytest.raises(ic.InvalidFileError, match=message) as caught:
        ic.load("conv.safetensors")
    assert re.match(r"conv\.safetensors: ", str(caught.value))
    assert len(str(caught.value)) < 600
    assert os.listdir() == ["conv.safetensors"]


def test_what_the_classes_check_by_value_is_checked() -> None:
    plu = ic.PLUConv1x1.init(2, rng=np.random.default_rng(0))
    changes: list[tuple[str, Callable[[Any], Any], str]] = [
        ("permutation", lambda a: a * 0, "permutation: expected each of 0 to 1 once"),
        ("sign", lambda a: 0 * a, "sign: expected a positive or negative number"),
    ]
    for name, change, message in changes:
        broken = plu.replace()
        object.__setattr__(broken, name, change(getattr(plu, name)))
        with pytest.raises(ValueError, match=f"cannot be saved: PLUConv1x1: {message}"):
            ic.save(broken, "conv.safetensors")
        ic.save(plu, "conv.safetensors")
        data = unsealed(Path("conv.safetensors").read_bytes())
        old, new = (np.asarray(a).tobytes() for a in (getattr(plu, name), getattr(broken, name)))
        assert data.count(old) == 1
        Path("conv.safetensors").write_bytes(data.replace(old, new))
        with pytest.raises(ic.InvalidFileError, match=message):
            ic.load("conv.safetensors")


def test_what_is_no_file() -> None:
    with pytest.raises(FileNotFoundError):
        ic.load("nowhere.safetensors")
    os.mkfifo("pipe")  # to open it would wait for ever
    for path in (".", "pipe", "/dev/zero"):
        with pytest.raises(ic.InvalidFileError, match=f"^{path}: not an ordinary file"):
            ic.load(path)
