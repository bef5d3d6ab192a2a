"""How the core finds a library: no framework at import, the registry, the standard's functions."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import array_api_strict as strict
import numpy as np
import pytest

import invconv as ic
from invconv.arrays import array_ops, registry
from invconv.arrays.registry import agnostic
from invconv_conformance.libraries.library import required_functions
from tests.programs import python

RNG = np.random.default_rng(0)


def test_importing_the_core_imports_no_framework() -> None:
    code = (
        "import sys, invconv, numpy as np;"
        "assert 'scipy' not in sys.modules, 'it takes as long as the rest';"
        "conv = invconv.EmergingConv.init(2, rng=np.random.default_rng(0));"
        "conv.inverse(conv.forward(np.ones((1, 2, 3, 3))));"
        "found = {'torch', 'jax', 'cupy', 'rich', 'matplotlib', 'skimage'} & set(sys.modules);"
        "assert not found, found"
    )
    python("-c", code)


def test_required_functions_exist_in_the_standard() -> None:
    required = required_functions()
    assert {"matmul", "take", "concat"} <= set(required[""])
    assert required["linalg"] == ["diagonal", "inv", "pinv", "qr", "slogdet", "solve"]
    assert required["fft"] == ["irfft", "irfftn", "rfft", "rfftn"]
    for extension, names in required.items():
        where: Any = getattr(strict, extension) if extension else strict
        for name in names:
            assert hasattr(where, name), name


@pytest.mark.parametrize(
    ("library", "title"), [("torch", "PyTorch"), ("jax", "JAX"), ("cupy", "CuPy"), ("mlx", "MLX")]
)
def test_without_a_library_its_adapter_says_what_to_install(library: str, title: str) -> None:
    code = f"import sys; sys.modules[{library!r}] = None; import invconv_{library}"
    message = f"invconv_{library} needs {title}: pip install 'invconv[{library}]'"
    assert f"ImportError: {message}" in python("-c", code, status=1).stderr


TOY = """
from invconv.arrays.registry import PRIMITIVES

calls = []


def correlate(stencil, x, *, wrap=False):
    calls.append(wrap)
    return PRIMITIVES["correlate"].agnostic(stencil, x, wrap=wrap)
"""


def test_a_third_party_backend_replaces_a_primitive(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "toy_backend.py").write_text(TOY)
    information = tmp_path / "toy_backend-1.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: toy-backend\nVersion: 1.0\n"
    )
    (information / "entry_points.txt").write_text(
        "[invconv.backends]\narray_api_strict = toy_backend\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(array_ops, "_backends", {})  # as in a process that has not looked yet
    monkeypatch.setattr(registry, "_modules", {})
    x = strict.ones((1, 2, 3, 3), dtype=strict.float64)
    conv = ic.PeriodicConv.init(2, rng=RNG, like=x)
    conv.forward(x)
    toy = sys.modules["toy_backend"]
    assert toy.calls == [True]
    with agnostic():
        conv.forward(x)
    assert toy.calls == [True]
    conv.inverse(x)  # primitives that the backend leaves out stay agnostic
