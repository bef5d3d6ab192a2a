"""Libraries that no law can run on: what they lack is said, and nothing ends in a traceback."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import invconv as ic
from invconv._cli import main
from invconv_conformance.libraries.library import Column
from invconv_conformance.run import check

# as MLX on Linux: arrays without a device, and a namespace with few functions
MODULE = """
import sys
import numpy as np
from numpy import abs, exp, float32, float64, linalg

class Array:
    def __init__(self, values, dtype):
        self.values = np.asarray(values, dtype)
        self.shape, self.ndim, self.dtype = self.values.shape, self.values.ndim, self.values.dtype
    def __array_namespace__(self, api_version=None):
        return sys.modules[__name__]
    def __array__(self, dtype=None, copy=None):
        return self.values.astype(dtype or self.dtype)

def asarray(values, dtype=float32, **options):
    return Array(values, dtype)
"""


def test_what_arrays_lack_is_said_in_one_sentence(
    tmp_path: Path, monkeypatch: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "few_functions.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    files = {kind: tmp_path / f"found.{kind}" for kind in ("json", "html")}
    options = [f"--{kind}={path}" for kind, path in files.items()]
    assert main(["conformance", "--namespace", "few_functions", "--quick", *options]) == 2
    out = " ".join(capsys.readouterr().out.split())
    sentence = "few_functions: no law can run, since its arrays lack a device; functions that the"
    assert sentence in out
    assert "fail" not in out
    (line,) = json.loads(files["json"].read_text())["not_run"]
    assert line.startswith(sentence)
    assert "concat" in line
    assert "exp," not in line
    assert sentence in files["html"].read_text()
    x = importlib.import_module("few_functions").asarray([1.0])
    with pytest.raises(TypeError, match=r"like: .* got one of few_functions, which has none"):
        ic.Conv1x1(np.eye(2)).asarrays(like=x)


def test_values_that_cannot_be_read_are_not_compared(monkeypatch: Any) -> None:
    def refuse(x: Any) -> Any:
        raise RuntimeError("no values for the host")

    monkeypatch.setattr(check, "to_numpy", refuse)
    column = Column("numpy", "cpu", "eager", "float64")
    assert check.outputs(check.setting("corner-bias", column)) == {}
