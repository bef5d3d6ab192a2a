"""The core names no framework in code: adapters answer for their libraries."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import invconv

CORE = Path(invconv.__file__).parent
FRAMEWORK = re.compile(r"\b(torch|pytorch|jax|jaxlib|cupy|mlx)\b", re.IGNORECASE)


def _words(tree: ast.AST) -> Iterator[str]:
    """Yield the names, attributes and strings of a program, docstrings left out."""
    docstrings = {id(n.value) for n in ast.walk(tree) if isinstance(n, ast.Expr)}
    for node in ast.walk(tree):
        match node:
            case ast.Name(id=word) | ast.Attribute(attr=word) | ast.alias(name=word):
                yield word
            case ast.Constant(value=str(word)) if id(node) not in docstrings:
                yield word


def test_no_file_of_the_core_compares_with_a_framework_or_looks_for_loaded_modules() -> None:
    for file in CORE.rglob("*.py"):
        words = list(_words(ast.parse(file.read_text())))
        assert [word for word in words if FRAMEWORK.fullmatch(word)] == [], file
        assert "modules" not in words, file  # of sys
