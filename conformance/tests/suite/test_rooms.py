"""Folders hold at most 16 files, and files at most 300 lines; `lint-imports` holds the rest."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parents[3]
TOPS = ("invconv", "backends", "conformance", "benchmarks")


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
