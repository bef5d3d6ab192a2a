"""Jinja templates that extend ``base.html``: every value is escaped, no name may be missing."""

from __future__ import annotations

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
    """A row of the table that the macro ``table`` of ``base.html`` writes.

    Attributes
    ----------
    cells : sequence of str or Styled
    kind : str
        CSS classes of the row.
    id : str
        What a link to the row names.
    """

    cells: Sequence[str | Styled]
    kind: str = ""
    id: str = ""


def render(package: str, name: str, **values: Any) -> str:
    """Return a page.

    Parameters
    ----------
    package : str
        The package that the template is in.
    name : str
        Of the template's file.
    **values
        What the template shows.
    """
    loader = ChoiceLoader([PackageLoader(package, "."), PackageLoader(__package__, ".")])
    environment = Environment(
        loader=loader,
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(name).render(**values)
