"""HTML pages in one file each, from Jinja templates that extend ``base.html``.

Every value is escaped, no name may be missing. May import nothing of ours.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined


@dataclass(frozen=True)
class Styled:
    """A cell of a table with a CSS class."""

    text: str
    kind: str


@dataclass(frozen=True)
class Line:
    """A row of the table that the macro ``table`` of ``base.html`` writes."""

    cells: Sequence[str | Styled]
    kind: str = ""  # CSS classes of the row
    id: str = ""  # the anchor of links to the row


def render(package: str, name: str, **values: Any) -> str:
    """Return a page: a template's file of a package, and the values that it shows."""
    loader = ChoiceLoader([PackageLoader(package, "."), PackageLoader(__name__, ".")])
    strict: dict[str, Any] = {"autoescape": True, "undefined": StrictUndefined}
    environment = Environment(loader=loader, trim_blocks=True, lstrip_blocks=True, **strict)
    return environment.get_template(name).render(**values)
