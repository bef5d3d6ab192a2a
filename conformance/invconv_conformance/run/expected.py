"""Failures that are known: who causes them, and where that is reported.

They are listed in ``expected_failures.toml``, each with a reason and a link, and become pytest's
strict xfail: a test that is listed and passes fails, so that the list stays true.
"""

from __future__ import annotations

import fnmatch
import tomllib
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from invconv.arrays.errors import CommandError
from invconv_conformance.run.check import Check


@dataclass(frozen=True)
class Expected:
    """Patterns of tests that are expected to fail, why, and a link to where upstream knows it."""

    library: str
    law: str
    reason: str
    link: str
    case: str = "*"
    device: str = "*"
    mode: str = "*"
    dtype: str = "*"

    def __post_init__(self) -> None:
        if wrong := [value for value in vars(self).values() if type(value) is not str]:
            raise TypeError(f"expected a text, got {wrong[0]!r}")

    def matches(self, check: Check) -> bool:
        """Tell whether a test is one of these."""
        names = {"case": check.case, "law": check.law, **check.column._asdict()}
        return all(fnmatch.fnmatchcase(name, getattr(self, n)) for n, name in names.items())


def load(path: str | None = None) -> list[Expected]:
    """Return the entries of a file, of the one that ships unless a path is given.

    Raises
    ------
    CommandError
        If an entry lacks a field or has one that is not known.
    """
    shipped = files("invconv_conformance") / "expected_failures.toml"
    source = shipped if path is None else Path(path)
    try:
        document = tomllib.loads(source.read_text(encoding="utf-8"))
        if unknown := set(document) - {"expected"}:
            raise TypeError(f"expected tables [[expected]], got {', '.join(sorted(unknown))}")
        return [Expected(**entry) for entry in document.get("expected", [])]
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, TypeError, OSError) as error:
        raise CommandError(f"expected failures: {source} cannot be used: {error}") from None
