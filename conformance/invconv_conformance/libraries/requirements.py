"""What the core asks of an array library, read from its source: nothing has to be kept in step."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import invconv

EXTENSIONS = ("fft", "linalg")
_NATIVE = {"numpy_primitives.py", "cpu", "plain"}  # of libraries that are known


def required_functions() -> dict[str, list[str]]:
    """Return the array-API functions that the core calls, by extension ("" for the standard).

    Only the agnostic code counts: a native primitive needs just its own library.
    """
    found: dict[str, set[str]] = {"": set(), **{extension: set() for extension in EXTENSIONS}}
    core = Path(invconv.__file__).parent
    for source in core.rglob("*.py"):
        if not _NATIVE.isdisjoint(source.relative_to(core).parts):
            continue
        for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
            match node:
                case ast.Attribute(ast.Name("xp") | ast.Call(ast.Name("namespace")), name):
                    found[""].add(name)
                case ast.Attribute(
                    ast.Attribute(ast.Name("xp") | ast.Call(ast.Name("namespace")), extension), name
                ):
                    found.get(extension, set()).add(name)
    found[""] -= {*EXTENSIONS, "__name__"}
    return {extension: sorted(names) for extension, names in found.items()}


def lacking(xp: Any) -> list[str]:
    """Return the functions that the core needs and a namespace has not, such as "linalg.qr"."""
    return [
        f"{extension}.{name}".removeprefix(".")
        for extension, names in required_functions().items()
        for name in names
        if not hasattr(getattr(xp, extension, None) if extension else xp, name)
    ]
