"""Random damage to files, random calls and random lives of an operator, each by Hypothesis.

``--hypothesis-profile=long`` makes 100,000 examples of each, new ones every time.
"""

import copy
import functools
import json
import pickle
import struct
from collections import Counter
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

import invconv as ic
from invconv.files.saving import build, describe
from invconv_conformance.laws.behaviour import unsealed
from invconv_torch.flows import Glow
from tests.flows.small_flows import glow
from tests.fuzz import judge
from tests.fuzz.judge import Call
from tests.fuzz.strategies import calls
from tests.selected import FEW

FLOWS = tuple(enumerate(("plain", "plu", "emerging_qr", "periodic", "exponential", "symmetric")))

_NUMBERS = (-1, 0, 1, 2, 3, 7, 2**31, 2**53, 2**63 - 1, 2**63, 2**64, 2**70, 10**400, 0.5, 1e308)
_WORDS = ("", "F64", "F32", "F16", "BF16", "I64", "BOOL", "C64", "F8_E4M3", "F4", "corner", "upper")
_CLASSES = ("Chain", "Inverse", "Conv1x1", "PLUConv1x1", "EmergingConv", "PeriodicConv", "Popen")
_NAMES = ("kernel", "bias", "conv", "0", "first", "operator", "class", "__metadata__", "__class__")
_OTHERS: tuple[Any, ...] = (None, True, [], {}, [1, 1], [1, -1], [2**40, 0], [1] * 70, "\x1b[2J\0")
_JUNK: tuple[Any, ...] = (*_NUMBERS, *_WORDS, *_CLASSES, *_NAMES, *_OTHERS)


@functools.cache
def undamaged(kind: str) -> tuple[bytes, ...]:
    """Return files of each "operator" in float64, and in the other dtypes by turns, or "flow".

    They have no checksum, which would refuse all damage before anything else is checked.
    """
    narrow: list[Any] = [np.empty(0, np.float32), np.empty(0, np.float16)]
    narrow.append(torch.empty(0, dtype=torch.bfloat16))
    models: list[Any] = [glow(m, levels=1, width=1, context=i % 2 or None) for i, m in FLOWS]
    if kind == "operator":
        pairs = [(case.conv(), narrow[i % 3]) for i, case in enumerate(FEW)]
        models = [conv for own, like in pairs for conv in (own, own.asarrays(like))]
    contents = []
    with TemporaryDirectory() as folder:
        path = Path(folder) / "model.safetensors"
        for model in models:
            ic.save(model, path)
            contents.append(unsealed(path.read_bytes()))
    return tuple(contents)


def damaged(rng: Random, kind: str) -> bytes:
    """Return a file, damaged up to three times; one in fifty is as it was."""
    data = rng.choice(undamaged(kind))
    for _ in range(0 if rng.random() < 0.02 else rng.randrange(1, 4)):
        data = rng.choice((_flip, _edit_header, _edit_description))(data, rng)
    return data


def _flip(data: bytes, rng: Random) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.randrange(9) if data else 0):
        changed[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return bytes(changed) if changed != data else data[: rng.randrange(len(data) + 1)]


def _edit_header(data: bytes, rng: Random) -> bytes:
    parsed = _parse(data)
    return data if parsed is None else _file(_edited(parsed[0], rng), parsed[1])


def _edit_description(data: bytes, rng: Random) -> bytes:
    header, body = _parse(data) or ({}, b"")
    try:
        new = _edited(json.loads(header["__metadata__"]["invconv"]), rng)
        header["__metadata__"]["invconv"] = new if isinstance(new, str) else json.dumps(new)
    except (KeyError, TypeError, ValueError, RecursionError):
        return data  # damaged before, so that there is no description
    return _file(header, body)


def _edited(value: Any, rng: Random) -> Any:
    """Return JSON with one value replaced, left out, doubled or renamed, anywhere in it."""
    if not isinstance(value, (dict, list)) or not value or rng.random() < 0.1:
        return copy.deepcopy(rng.choice(_JUNK))  # later damage changes it
    names = list(value) if isinstance(value, dict) else list(range(len(value)))
    name = rng.choice(names)
    kind = rng.random()
    if kind < 0.7:
        value[name] = _edited(value[name], rng)
    elif kind < 0.8:
        del value[name]
    elif isinstance(value, list):
        value.append(value[name])
    else:
        value[rng.choice(_NAMES)] = value[name] if kind < 0.9 else value.pop(name)
    return value


def _parse(data: bytes) -> tuple[Any, bytes] | None:
    length = int.from_bytes(data[:8], "little")
    try:
        header = json.loads(data[8 : 8 + length])
    except (ValueError, RecursionError, OverflowError):
        return None
    return (header, data[8 + length :]) if isinstance(header, dict) else None


def _file(header: Any, body: bytes) -> bytes:
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + body


def load(path: Path, like: Any) -> str:
    """Load a file and say how that ended; any other error should not have been raised."""
    try:
        conv = ic.load(path, like=like)
    except ic.InvalidFileError as error:
        return "InvalidFileError" if str(path) in str(error) else "no file in the message"
    if isinstance(conv, Glow):
        assert all(tensor.isfinite().all() for tensor in conv.state_dict().values())
        return "a flow"
    repr(conv)
    arrays: dict[str, Any] = {}
    document = json.loads(json.dumps(describe(conv, arrays)))
    assert describe(build(document, arrays, set()), {}) == document
    assert all(np.isfinite(a).all() for a in arrays.values()), "NaN or inf came through"
    return "an operator"


@pytest.mark.parametrize(("kind", "like"), [("operator", np.empty(0)), ("flow", torch.empty(0))])
def test_damaged_files_are_refused_or_read(kind: str, like: Any, tmp_path: Path) -> None:
    ends: Counter[str] = Counter()
    path = tmp_path / "damaged.safetensors"

    # of a seed: how deep JSON may nest, and so what is drawn, depends on the stack
    @given(st.randoms(use_true_random=True))
    def one(rng: Random) -> None:
        path.write_bytes(damaged(rng, kind))
        ends[load(path, like)] += 1

    one()
    (good,) = set(ends) - {"InvalidFileError"}
    assert kind in good
    assert ends.total() / 100 <= ends[good] < ends.total() / 2


def test_random_calls_end_as_documented() -> None:
    ends: Counter[str] = Counter()

    @given(calls())
    def one(call: Call) -> None:
        ends[judge.judge(call)] += 1

    one()
    assert {"a result", "ValueError", "TypeError", "SingularConvError"} <= set(ends)
    assert ends["a result"] >= ends.total() / 4


OPERATORS = {case.name: case.conv() for case in FEW}
FACTORS = st.sampled_from((0.5, 1.25, 2.0))  # exact, and what is regular stays so
GRIDS = st.integers(1, 4)


class Life(RuleBasedStateMachine):
    """Changes, copies, files and calls, each at any time."""

    @initialize(name=st.sampled_from(sorted(OPERATORS)))
    def begin(self, name: str) -> None:
        self.conv: Any = copy.deepcopy(OPERATORS[name])
        self.name, self.kept = name, self.conv.prepare(self.grid(2), check=False)
        self.expected = self.inverse_of(self.fresh(), 2)

    def grid(self, n: int) -> tuple[int, ...]:
        return (n,) * (self.conv.ndim or 2)

    def image(self, n: int) -> np.ndarray[Any, Any]:
        return np.random.default_rng(n).standard_normal((2, self.conv.channels, *self.grid(n)))

    def fresh(self) -> Any:
        values = {n: array.copy() for n, array in self.conv.parameters().items()}
        return copy.deepcopy(OPERATORS[self.name]).replace(**values)

    def inverse_of(self, conv: Any, n: int) -> Any:
        return conv.prepare(self.grid(n), check=False).inverse(self.image(n))

    @rule(factor=FACTORS)
    def edit_in_place(self, factor: float) -> None:
        """Write into a parameter; the prepared inverse is of the values before."""
        next(iter(self.conv.parameters().values()))[...] *= factor

    @rule(factor=FACTORS)
    def replace(self, factor: float) -> None:
        name, array = next(iter(self.conv.parameters().items()))
        self.conv = self.conv.replace(**{name: factor * array})

    @rule(way=st.sampled_from((copy.deepcopy, copy.copy, lambda c: pickle.loads(pickle.dumps(c)))))
    def duplicate(self, way: Any) -> None:
        self.conv = way(self.conv)

    @rule()
    def save_and_load(self) -> None:
        with TemporaryDirectory() as folder:
            ic.save(self.conv, Path(folder) / "conv.safetensors")
            self.conv = ic.load(Path(folder) / "conv.safetensors", like=np.empty(0))

    @rule(n=GRIDS)
    def prepare(self, n: int) -> None:
        self.kept = self.conv.prepare(self.grid(2), check=False)
        self.expected = self.inverse_of(self.fresh(), 2)
        self.conv.condition(self.grid(n))

    @rule(n=GRIDS)
    def call(self, n: int) -> None:
        x, new = self.image(n), self.fresh()
        for method in ("forward_and_log_det", "inverse_and_log_det"):
            pair = getattr(self.conv, method)(x), getattr(new, method)(x)
            for found, wanted in zip(*pair, strict=True):
                assert np.array_equal(found, wanted), method
        assert np.array_equal(self.inverse_of(self.conv, n), self.inverse_of(new, n))

    @invariant()
    def the_prepared_inverse_stays(self) -> None:
        if hasattr(self, "kept"):
            assert np.array_equal(self.kept.inverse(self.image(2)), self.expected)


Life.TestCase.settings = settings(max_examples=30, stateful_step_count=20)
TestLife = Life.TestCase
