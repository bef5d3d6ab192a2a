"""Options that are lists of numbers: `invconv_conformance.arguments.words` takes them apart."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from invconv.arrays.errors import CommandError

T = TypeVar("T")


def numbers(option: str, parts: Sequence[str], kind: Callable[[str], T]) -> tuple[T, ...]:
    """Return the parts of a list as numbers, each once.

    Raises
    ------
    ValueError
        If one of them is no number.
    """
    try:
        return tuple(dict.fromkeys(kind(part) for part in parts))
    except ValueError:
        got = ",".join(parts)
        raise CommandError(f"{option}: expected numbers with commas between, got {got!r}") from None
