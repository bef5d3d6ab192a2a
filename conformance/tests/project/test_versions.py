"""The versions that pyproject.toml allows, the README names, and the adapters refuse others."""

from __future__ import annotations

import re
import runpy
from pathlib import Path
from types import ModuleType

import jax
import pytest
import torch

import invconv_jax.private
import invconv_torch.private
from invconv.kernels.cpu import machine
from tests.project.lowest_versions import lowest

ROOT = Path(__file__).parents[3]
LOWEST = lowest("fast", "jax", "torch")
ADAPTERS = [(torch, invconv_torch.private), (jax, invconv_jax.private)]
PRIVATE = (
    r"\b(torch|jax|forward_ad)(\.\w+)*\._[a-zA-Z]|\._version\b"
    r"|\bjax\.(interpreters|extend|experimental)\b"  # which JAX does not promise to keep
)


def test_the_readme_and_the_adapters_have_the_lowest_versions_of_pyproject() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    (said,) = re.findall(r"lowest versions that pip accepts \((.*?)\)", text)
    assert said == ", ".join(f"{name} {version}" for name, version in LOWEST.items())
    assert LOWEST["llvmlite"] == machine.OLDEST
    for library, private in ADAPTERS:
        name = library.__name__
        assert private.VERSIONS.oldest == LOWEST[name]
        assert f"{name} {private.VERSIONS.newest}" in text


@pytest.mark.parametrize(("library", "private"), ADAPTERS)
def test_a_version_that_is_too_old_is_refused_with_a_sentence(
    library: ModuleType, private: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(library, "__version__", "0.7.9")
    said = rf"needs \w+ {private.VERSIONS.oldest} or later, .* got 0\.7\.9: pip install '"
    with pytest.raises(ImportError, match=said):
        runpy.run_path(str(private.__file__))


@pytest.mark.parametrize(
    ("private", "place", "part"),
    [
        (invconv_torch.private, torch._C._functorch, "peek_interpreter_stack"),
        (invconv_torch.private, torch.autograd.forward_ad, "_current_level"),
        (invconv_jax.private, jax.interpreters.mlir, "lower_fun"),
    ],
)
def test_a_version_without_a_private_part_is_refused_with_a_sentence(
    private: ModuleType, place: ModuleType, part: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(place, part)
    with pytest.raises(ImportError, match=rf"lacks a private part \(.*{part}.*pip install '"):
        runpy.run_path(str(private.__file__))


def test_what_is_private_to_a_library_is_in_one_file() -> None:
    files = [f for room in ("invconv", "backends") for f in (ROOT / room).rglob("*.py")]
    found = [f.parent.name for f in files if re.search(PRIVATE, f.read_text(encoding="utf-8"))]
    assert sorted(found) == ["invconv_jax", "invconv_torch"]
