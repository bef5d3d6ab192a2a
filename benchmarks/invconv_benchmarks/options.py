"""Options that several commands share: lists of numbers, and names of pictures to write."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from invconv.arrays.errors import CommandError
from invconv_conformance.arguments import require_writable

_FORMATS = (".png", ".jpg", ".pdf", ".svg")


def numbers(option: str, parts: Sequence[str], kind: Callable[[str], Any]) -> tuple[Any, ...]:
    """Return the parts of a list as numbers, each once."""
    try:
        return tuple(dict.fromkeys(kind(part) for part in parts))
    except ValueError:
        got = ",".join(parts)
        raise CommandError(f"{option}: expected numbers with commas between, got {got!r}") from None


def require_picture(option: str, path: Path) -> None:
    """Raise an error if no picture of this name can be written, before the work starts."""
    folder = path.absolute().parent
    if not folder.is_dir():
        raise CommandError(f"{option}: there is no folder {folder}")
    require_writable(folder)
    if path.is_dir():
        raise CommandError(f"{option}: {path} cannot be written")
    if path.suffix.lower() not in _FORMATS:
        expected = " or ".join(_FORMATS)
        raise CommandError(f"{option}: expected a name that ends in {expected}, got {path.name!r}")
