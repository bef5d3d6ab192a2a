"""placeholder until the html branch lands."""

from typing import Any


def as_page(document: dict[str, Any]) -> str:
    """Return the page."""
    raise NotImplementedError
