"""The project's own rules: a core without frameworks, versions, walks."""

import ast
import re
import runpy
import sys
from collections.abc import Callable, Iterator
from types import FrameType, ModuleType
from typing import Any

import jax
import numpy as np
import pytest
import torch

import invconv as ic
import invconv_jax.private
import invconv_torch
import invconv_torch.private
from invconv.kernels.cpu import machine
from tests.programs import ROOT
from tests.project.lowest_versions import lowest

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


LOWEST = lowest("jax", "torch")
ADAPTERS = [(torch, invconv_torch.private), (jax, invconv_jax.private)]
PRIVATE = (
    r"\b(torch|jax|forward_ad)(\.\w+)*\._[a-zA-Z]|\._version\b"
    r"|\bjax\.(interpreters|extend|experimental)\b"  # which JAX does not promise to keep
)


def test_the_readme_and_the_adapters_have_the_lowest_versions_of_pyproject() -> None:
    text = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
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
        (invconv_torch.private, torch._C._functorch, "get_interpreter_stack"),
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
CONV = ic.EmergingConv.init(3, rng=np.random.default_rng(0))
IMAGES, TENSOR = np.ones((1, 3, 4, 4)), torch.ones(1, 3, 4, 4)
LAYER = invconv_torch.EmergingConv2d(3)


def step() -> None:
    z, log_det = LAYER(TENSOR)
    (z.square().sum() - log_det.sum()).backward()


CALLS: dict[str, Callable[[], Any]] = {
    "`EmergingConv.inverse(y)`, NumPy": lambda: CONV.inverse(IMAGES),
    "A training step of a torch layer": step,
}


def entered(call: Callable[[], Any]) -> set[str]:
    """Return the files of ours that a whole call enters, after it has run."""
    files: set[str] = set()

    def note(frame: FrameType, event: str, _: Any) -> None:
        if event == "call":
            files.add(frame.f_code.co_filename.removeprefix(f"{ROOT}/"))

    call()
    sys.setprofile(note)
    try:
        call()
    finally:
        sys.setprofile(None)
    return {name for name in files if name.startswith(FOLDERS)}


@pytest.mark.parametrize("title", CALLS)
def test_a_walk_names_every_file_that_the_whole_call_enters(title: str) -> None:
    """Its own text, or what is left out of each; and its steps are entered."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    about, *walks = text.split("## Walks\n")[1].split("\n## ")[0].split("\n### ")
    (walk,) = (walk for walk in walks if walk.startswith(f"{title}\n"))
    assert {walk.partition("\n")[0] for walk in walks} == {*CALLS}

    def named(text: str, pattern: str) -> set[str]:
        words = re.findall(pattern, text, re.MULTILINE)
        return {word if word.startswith(FOLDERS) else f"invconv/{word}" for word in words}

    files, steps = entered(CALLS[title]), re.findall(r"^\d+\. ", walk, re.MULTILINE)
    known = named(about + walk, r"`([\w/]+\.py|[\w/]+/)`")
    assert {f for f in files if f not in known and f.rpartition("/")[0] + "/" not in known} == set()
    assert named(walk, r"^\d+\. `([\w/]+\.py)`") <= files
    assert len(steps) == 10
