"""Failures that are known: who causes them, and where that is reported.

They are listed in ``expected_failures.toml``, each with a reason and a link. An entry that no
longer fails is an error, so that the list stays true.
"""

from __future__ import annotations

import dataclasses
import fnmatch
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from invconv.arrays.errors import CommandError
from invconv_conformance.cases.table import CASES
from invconv_conformance.laws.table import LAWS
from invconv_conformance.run.result import Result


@dataclass(frozen=True)
class Expected:
    """A pattern of results that are expected to fail.

    Attributes
    ----------
    library, law, case, device, mode, dtype : str
        Patterns such as "periodic-*".
    reason, link : str
        Why, and where upstream knows of it.
    """

    library: str
    law: str
    reason: str
    link: str
    case: str = "*"
    device: str = "*"
    mode: str = "*"
    dtype: str = "*"

    def matches(self, result: Result) -> bool:
        """Tell whether a result is one of these."""
        names = ("library", "law", "case", "device", "mode", "dtype")
        return all(fnmatch.fnmatchcase(getattr(result, n), getattr(self, n)) for n in names)

    def covered_by(self, cases: Sequence[str], laws: Sequence[str]) -> bool:
        """Tell whether these are all the cases and laws that it speaks of."""
        mine = [c.name for c in CASES if fnmatch.fnmatchcase(c.name, self.case)]
        return set(mine) <= set(cases) and set(fnmatch.filter(LAWS, self.law)) <= set(laws)


def load(path: Path | None = None) -> list[Expected]:
    """Return the entries of a file, of the one that ships unless a path is given.

    Raises
    ------
    ValueError
        If an entry lacks a field or has one that is not known.
    """
    source = files("invconv_conformance") / "expected_failures.toml" if path is None else path
    try:
        document = tomllib.loads(source.read_text(encoding="utf-8"))
        if unknown := set(document) - {"expected"}:
            raise TypeError(f"expected tables [[expected]], got {', '.join(sorted(unknown))}")
        entries = [Expected(**entry) for entry in document.get("expected", [])]
        for entry in entries:
            for name, value in vars(entry).items():
                if not isinstance(value, str):
                    raise TypeError(f"{name}: expected a text, got {value!r}")
        return entries
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, TypeError, OSError) as error:
        raise CommandError(f"expected failures: {source} cannot be used: {error}") from None


def mark(results: list[Result], entries: list[Expected]) -> tuple[list[Result], list[Expected]]:
    """Mark the expected failures, and return the entries that were tried and did not fail."""
    failed, tried = set(), set()
    marked = []
    for result in results:
        mine = [e for e in entries if e.matches(result)]
        if result.status != "not applicable":
            tried.update(mine)
        if mine and result.bad:
            failed.update(mine)
            reason = f"{mine[0].reason} ({mine[0].link})"
            marked.append(dataclasses.replace(result, status="expected", reason=reason))
        else:
            marked.append(result)
    return marked, [e for e in entries if e in tried and e not in failed]
