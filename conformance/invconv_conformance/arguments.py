"""Types of command-line arguments that several commands share. Imports nothing of ours."""

from __future__ import annotations

import argparse


def words(text: str) -> tuple[str, ...]:
    """Return the parts of a list with commas between them, each once.

    >>> words("float64, float32,float64")
    ('float64', 'float32')
    """
    found = tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    if not found:
        raise argparse.ArgumentTypeError(f"expected names with commas between, got {text!r}")
    return found
