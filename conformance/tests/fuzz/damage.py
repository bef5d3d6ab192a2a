"""Damage to a parameter file: blind, to its bytes, and knowing, to its header and description."""

import copy
import functools
import json
import struct
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

import invconv as ic
from invconv_conformance.laws.state import unsealed
from tests.flows.small_flows import glow
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
    """Flip some bits anywhere, or cut the file off there."""
    changed = bytearray(data)
    for _ in range(rng.randrange(9) if data else 0):
        changed[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return bytes(changed) if changed != data else data[: rng.randrange(len(data) + 1)]


def _edit_header(data: bytes, rng: Random) -> bytes:
    """Change a value somewhere in the header."""
    parsed = _parse(data)
    return data if parsed is None else _file(_edited(parsed[0], rng), parsed[1])


def _edit_description(data: bytes, rng: Random) -> bytes:
    """Change a value somewhere in the description."""
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
    """Return header and body, or None where there are none."""
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
