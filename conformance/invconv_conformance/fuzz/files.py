"""Damaged parameter files: `invconv.load` returns an operator or raises InvalidFileError."""

from __future__ import annotations

import json
import tempfile
import traceback
import warnings
from pathlib import Path
from typing import Any

import numpy as np

import invconv as ic
from invconv.files.description import build, describe
from invconv_conformance.fuzz.damage import damaged
from invconv_conformance.fuzz.engine import Batch, Begin, Tally

_LIKE = np.empty(0)  # float64, since no number of a file is beyond it


def perform(batch: Batch, begin: Begin) -> Tally:
    """Load one damaged file after the other."""
    tally = Tally()
    with tempfile.TemporaryDirectory(prefix="invconv-") as folder:
        path = Path(folder, "damaged.safetensors")
        for number in range(batch.first, batch.first + batch.count):
            begin(f"files --seed {batch.seed} --only {number}:")
            path.write_bytes(item(batch.seed, number))
            try:
                end = load(path)
            except BaseException as error:
                if isinstance(error, (KeyboardInterrupt, SystemExit)):
                    raise
                end = f"unexpected {type(error).__name__}"
                told = "".join(traceback.format_exception(error)[-3:])
                tally.failures.append(f"files --seed {batch.seed} --only {number}: {told}")
            tally.ends[end] += 1
    return tally


def item(seed: int, number: int) -> bytes:
    """Return a damaged file."""
    return damaged(np.random.default_rng([seed, number]))


def load(path: Path) -> str:
    """Load a file and say how that ended; whatever is raised should not have been."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            conv = ic.load(path, like=_LIKE)
        except ic.InvalidFileError as error:
            return "InvalidFileError" if str(path) in str(error) else "a message without the file"
        repr(conv)
        arrays: dict[str, Any] = {}
        document = json.loads(json.dumps(describe(conv, arrays)))
        assert describe(build(document, arrays, set()), {}) == document
        assert all(np.isfinite(a).all() for a in arrays.values()), "NaN or inf came through"
    return "an operator"
