"""Options that are lists with commas between their parts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

T = TypeVar("T")


def words(text: str) -> tuple[str, ...]:
    """Return the parts of a list, each once: an argparse type."""
    return tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))


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
        raise ValueError(f"{option}: expected numbers with commas between, got {got!r}") from None
