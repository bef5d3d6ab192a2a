"""Options that several commands share: lists of numbers, and names of pictures to write."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from invconv.arrays.errors import CommandError

_FORMATS = (".png", ".jpg", ".pdf", ".svg")


def numbers(option: str, parts: Sequence[str], kind: Callable[[str], Any]) -> tuple[Any, ...]:
    """Return the parts of a list as numbers, each once."""
    try:
        return tuple(dict.fromkeys(kind(part) for part in parts))
    except ValueError:
        got = ",".join(parts)
        raise CommandError(f"{option}: expected numbers with commas between, got {got!r}") from None


def require_picture(option: str, path: Path) -> None:
    """Raise ValueError if no picture of this name can be written, before the work starts."""
    folder = path.absolute().parent
    if not folder.is_dir():
        raise CommandError(f"{option}: there is no folder {folder}")
    if not os.access(folder, os.W_OK) or path.is_dir():
        raise CommandError(f"{option}: {path} cannot be written")
    if path.suffix.lower() not in _FORMATS:
        expected = " or ".join(_FORMATS)
        raise CommandError(f"{option}: expected a name that ends in {expected}, got {path.name!r}")
