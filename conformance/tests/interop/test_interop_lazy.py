"""The adapters import no flow library or compiler unasked, and say what is missing."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

import invconv_jax.interop
import invconv_torch.interop

ROOT = Path(__file__).parents[3]
PACKAGES: tuple[Any, ...] = (invconv_torch.interop, invconv_jax.interop)
FLOW_LIBRARIES = {
    "FrEIA",
    "bijx",
    "distrax",
    "flowjax",
    "nflows",
    "normflows",
    "numpyro",
    "pyro",
    "zuko",
}


def python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    return done.stdout.strip()


def test_adapters_import_no_flow_library_and_no_compiler() -> None:
    code = (
        "import sys, invconv_torch, invconv_jax;"
        "invconv_torch.interop, invconv_jax.interop;"
        "print(*sys.modules)"
    )
    loaded = set(python(code).split())
    assert {"torch", "jax"} <= loaded
    late = {"equinox", "sympy", "tensorflow_probability", "torch._dynamo", "torch._inductor"}
    assert loaded & (FLOW_LIBRARIES | late) == set()


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.__name__)
def test_names_are_listed_and_found(package: Any) -> None:
    assert sorted(package.DROP_INS) == sorted(package.__all__)
    for name, drop_in in package.DROP_INS.items():
        pytest.importorskip(f"{package.__name__}.{drop_in.module}", exc_type=ImportError)
        assert getattr(package, name).__name__ == name
    with pytest.raises(AttributeError, match="has no attribute 'NoSuchFlow'"):
        _ = package.NoSuchFlow


def test_the_extra_brings_them_all() -> None:
    needed = {d.package for p in PACKAGES for d in p.DROP_INS.values()} - {"torch"}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extra = project["optional-dependencies"]["interop"]
    assert {line.partition(">")[0] for line in extra} == needed


def test_a_missing_library_is_named() -> None:
    code = """
import sys
sys.modules |= dict.fromkeys(("nflows", "pyro", "distrax"))  # None: not to be imported
import invconv_torch.interop as of_torch
import invconv_jax.interop as of_jax
for package, name in (
    (of_torch, "NflowsTransform"), (of_torch, "PyroTransform"), (of_jax, "DistraxBijector")
):
    try: getattr(package, name)
    except ImportError as error: print(error)
"""
    messages = python(code).splitlines()
    pips = {"NflowsTransform": "nflows", "PyroTransform": "pyro-ppl", "DistraxBijector": "distrax"}
    for message, (name, pip) in zip(messages, pips.items(), strict=True):
        assert message.startswith(f"{name} needs {pip}, which cannot be imported (")
        assert f"pip install {pip}, or 'invconv[interop]'" in message
