"""Types and places of arguments that several commands share. Imports nothing of ours."""

import argparse
import tempfile
from pathlib import Path


def positive(text: str) -> float:
    """Return a number above zero."""
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not number > 0:
        raise argparse.ArgumentTypeError(f"expected a positive number, got {text!r}")
    return number


def words(text: str) -> tuple[str, ...]:
    """Return the parts of a list with commas between them, each once."""
    found = tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    if not found:
        raise argparse.ArgumentTypeError(f"expected names with commas between, got {text!r}")
    return found


def require_writable(folder: Path) -> None:
    """Raise unless a file can be made in a folder, which permissions alone do not tell."""
    try:
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        text = f"expected a folder to write in: {error.strerror}"
        raise OSError(error.errno, text, str(folder)) from None
