"""Files that are damaged or made to do harm: refused, with the file and the reason, at no cost.

The law "file" damages every operator's file; here is what it does not think of.
"""

import json
import os
import pickle
import re
import struct
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import invconv as ic
from invconv.files.saving import DEEPEST
from invconv_conformance.laws.behaviour import unsealed

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
    text = json.dumps({"schema": schema, "operator": operator})
    text = operator if isinstance(operator, str) else text
    return {"__metadata__": {"invconv": text}, **(entry() if arrays is None else arrays)}


def entry(**changes: Any) -> Json:
    return {"w": ENTRY | changes}


def plain(kind: str = "Conv1x1", **changes: Any) -> bytes:
    return packed(described(PLAIN | {"class": kind} | changes))


def entered(operator: Json = PLAIN, **changes: Any) -> bytes:
    return packed(described(operator, entry(**changes)))


def nested(depth: int) -> bytes:
    operator = PLAIN
    for _ in range(depth - 1):
        operator = {"class": "Inverse", "settings": {}, "arrays": {}, "parts": {"conv": operator}}
    return packed(described(operator))


@contextmanager
def little_work(lines: int, memory: int) -> Iterator[None]:
    """Fail once more lines of Python have run, or more bytes are in use, than there may be."""
    left, before = lines, sys.gettrace()

    def count(frame: Any, event: str, arg: Any) -> Any:
        nonlocal left
        left -= event == "line"
        assert left > 0, f"more than {lines} lines"
        return count

    tracemalloc.start()
    sys.settrace(count)
    try:
        yield
    finally:
        sys.settrace(before)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < memory, f"{peak} bytes, more than {memory}"


class Evil:
    """What runs code when it is unpickled."""

    def __reduce__(self) -> Any:
        return os.mkdir, ("harm",)


DEEP = '{"schema": "invconv-operator/1", "operator": ' + "[" * 50_000 + "]" * 50_000 + "}"
CHAIN: Json = {"class": "Chain", "settings": {}, "arrays": {}, "parts": {"0": PLAIN, "1": PLAIN}}
SETTINGS = {"mask": "corner", "direction": 1, "channel_order": "lower", "dilation": [True]}
CORNER = PLAIN | {"class": "AutoregressiveConv", "settings": SETTINGS, "arrays": {"kernel": "w"}}
HEADER, AGAIN = json.dumps(described(PLAIN)).encode(), json.dumps(ENTRY).encode() + b"}"
LARGE = packed(described(PLAIN | {"max_gain": 10}), np.full((2, 2), 1e308).tobytes())
LATER = entry() | {"v": ENTRY | {"data_offsets": [32, 64]}}
UNUSED = packed(described(PLAIN, LATER), WEIGHT.tobytes() * 2)

HOSTILE: list[tuple[bytes, str]] = [
    (b"", "no whole safetensors file: .*header too small"),
    (pickle.dumps(Evil()), "no whole safetensors file: .*header too large"),
    (packed(b"{}", length=2**62), "header too large"),
    (packed(HEADER + b" " * 2**24), "at most 16777216"),
    (packed(described(PLAIN)) + b"0", "not fully covered"),
    (entered(shape=[2**62, 2**62]), "overflow"),
    (packed(described("")), "the description is no JSON: "),
    (packed(described(DEEP)), "no JSON: .*recursion|expected an operator"),
    (packed(described(PLAIN, schema="b/2")), "the schema 'inv.*/1', got 'b/2'"),
    (packed(described("[]")), "the description is no JSON object"),
    (plain(arrays={}), r"Conv1x1 has the arrays \['weight', 'bias'\]"),
    (plain(arrays={"weight": "w", "code": "w"}), "Conv1x1 has the arrays"),
    (plain("EmergingConv", settings={}, arrays={}), "the parts .*, not \\(\\)"),
    (packed(described(7)), "expected an operator, got 7"),
    (plain("InvertibleConv"), "unknown class 'InvertibleConv'"),
    (plain("S", module="my.a"), "unknown class 'S'; first import my.a, which defines it"),
    (
        plain("S", module="__main__"),
        "unknown class 'S'; first define it, as the script or notebook",
    ),
    (plain(module="os; rm -r /"), "module: expected the name of one"),
    (plain(code="harm"), "an operator has .*not .*code"),
    (plain(max_gain=1), "max_gain: expected a finite number above 1"),
    (LARGE, "weight: its norm is too large to be bounded"),
    (entered(CORNER, shape=[2, 2, 1]), r"Conv: dilation: expected no truth value, got \[True\]"),
    (packed(HEADER[:-1] + b', "w": ' + AGAIN), "an object has the entry 'w' twice"),
    (entered(dtype="I32", shape=[2, 4]), "'w' is I32; expected one of F64, F32, F16, BF16 or I64"),
    (packed(entry()), "its metadata has no entry 'invconv'"),
    (packed(described(CHAIN)), "the array 'w' is used twice"),
    (UNUSED, r"the operator has no arrays \['v'\]"),
    (nested(DEEPEST + 1), f"nested more than {DEEPEST} deep"),
]
pytestmark = pytest.mark.usefixtures("in_a_folder")


def test_the_file_that_the_others_are_made_of_is_read() -> None:
    for header in (HEADER, HEADER.ljust(2**24)):  # the longest
        Path("conv.safetensors").write_bytes(packed(header))
        conv = ic.load("conv.safetensors")
        assert isinstance(conv, ic.Conv1x1)
        assert np.array_equal(conv.weight, WEIGHT)
    Path("conv.safetensors").write_bytes(plain(module="my.a"))
    with pytest.warns(UserWarning, match=r"Conv1x1 of my\.a, .* for that of invconv\.") as told:
        assert np.array_equal(ic.load("conv.safetensors").weight, WEIGHT)
    assert told[0].filename == __file__


@pytest.mark.parametrize(("data", "message"), HOSTILE, ids=(message for _, message in HOSTILE))
def test_hostile_file(data: bytes, message: str) -> None:
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
    os.mkfifo("pipe")  # to open it would wait for ever
    for path in (".", "pipe", "/dev/zero"):
        with pytest.raises(ic.InvalidFileError, match=f"^{path}: not an ordinary file"):
            ic.load(path)
