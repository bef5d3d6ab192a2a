"""Files and folders stay small, the core names no framework; `lint-imports` holds the rest."""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[3]
TOPS = ("invconv", "backends", "conformance", "benchmarks")
FRAMEWORK = re.compile(r"\b(torch|pytorch|jax|jaxlib|cupy|mlx)\b", re.IGNORECASE)


def ours() -> list[Path]:
    """Return the project's files: no caches and no hidden ones."""
    paths = (path for top in TOPS for path in (ROOT / top).rglob("*") if path.is_file())
    hidden = (".", "__pycache__")
    return [p for p in paths if not any(part.startswith(hidden) for part in p.parts)]


def test_no_folder_has_many_files_and_no_file_is_long() -> None:
    files = Counter(path.parent for path in ours())
    assert {str(folder): n for folder, n in files.items() if n > 16} == {}
    lines = {p: p.read_text(encoding="utf-8").count("\n") for p in ours() if p.suffix == ".py"}
    assert {str(path): n for path, n in lines.items() if n > 300} == {}


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
