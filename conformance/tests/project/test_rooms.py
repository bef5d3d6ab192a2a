"""The project's own rules: a core without frameworks, versions, walks."""

from __future__ import annotations

import ast
import re
import runpy
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

import invconv as ic
import invconv_jax.private
import invconv_torch
import invconv_torch.private
from invconv.kernels.cpu import machine
from tests.project.lowest_versions import lowest

ROOT = Path(__file__).parents[3]
FRAMEWORK = re.compile(r"\b(torch|pytorch|jax|jaxlib|cupy|mlx)\b", re.IGNORECASE)


def words(tree: ast.AST) -> Iterator[str]:
    """Yield the names, attributes and strings of a program, docstrings left out."""
    docstrings = {id(n.value) for n in ast.walk(tree) if isinstance(n, ast.Expr)}
    for node in ast.walk(tree):
        match node:
            case ast.Name(id=word) | ast.Attribute(attr=word) | ast.alias(name=word):
                yield word
            case ast.Constant(value=str(word)) if id(node) not in docstrings:
                yield word


def test_no_file_of_the_core_compares_with_a_framework_or_looks_for_loaded_modules() -> None:
    """Adapters answer for their libraries."""
    for file in (ROOT / "invconv").rglob("*.py"):
        said = list(words(ast.parse(file.read_text())))
        assert [word for word in said if FRAMEWORK.fullmatch(word)] == [], file
        assert "modules" not in said, file  # of sys


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


FOLDERS = ("invconv/", "backends/")
VOCABULARY = "invconv/arrays/"  # dtypes, namespaces, and the registry of native functions


def listed(title: str) -> list[str]:
    """Return the files that CONTRIBUTING names for a walk, one per step."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    walk = text.split(f"### {title}\n")[1].split("\n##")[0]
    files = re.findall(r"^\d\. `([\w/]+\.py)`", walk, re.MULTILINE)
    return [name if name.startswith(FOLDERS) else f"invconv/{name}" for name in files]


def stack_at(last: str, call: Callable[[], Any]) -> list[str]:
    """Return the files of ours on the stack when the file ``last`` is first entered by a call."""
    stacks: list[list[str]] = []

    def note(frame: FrameType | None, event: str, _: Any) -> None:
        if event != "call" or frame is None or not frame.f_code.co_filename.endswith(last):
            return
        files: list[str] = []
        while frame is not None:
            name = frame.f_code.co_filename.removeprefix(f"{ROOT}/")
            ours = name.startswith(FOLDERS) and not name.startswith(VOCABULARY)
            if ours and name not in files[-1:]:
                files.append(name)
            frame = frame.f_back
        stacks.append(files[::-1])

    call()  # compiles
    sys.setprofile(note)
    try:
        call()
    finally:
        sys.setprofile(None)
    return stacks[0]


CONV = ic.EmergingConv.init(3, rng=np.random.default_rng(0))
PERIODIC = ic.PeriodicConv.init(3, rng=np.random.default_rng(0))
IMAGES, ON_JAX = np.ones((1, 3, 4, 4)), CONV.asarrays(jnp.ones(1))
GIVEN = jnp.ones((1, 3, 4, 4), ON_JAX.first.kernel.dtype)
CALLS: dict[str, Callable[[], Any]] = {  # of new operators, which remember nothing
    "`EmergingConv.inverse(y)`, NumPy": lambda: CONV.replace().inverse(IMAGES),
    "The torch layer's forward": lambda: invconv_torch.EmergingConv2d(3)(torch.ones(1, 3, 4, 4)),
    "JAX's jitted inverse": lambda: jax.jit(lambda y: ON_JAX.inverse(y))(GIVEN),
    "`PeriodicConv.log_det(shape)`": lambda: PERIODIC.replace().log_det((4, 4)),
}


@pytest.mark.parametrize("title", CALLS)
def test_a_walk_goes_down_through_the_listed_files(title: str) -> None:
    steps = listed(title)
    assert len(steps) == 5
    assert stack_at(steps[-1], CALLS[title]) == steps
