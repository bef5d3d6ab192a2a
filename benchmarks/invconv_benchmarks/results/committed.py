"""The results in the repository: a folder for each version of invconv that measured any.

They are in a clone only, not in the wheel: `invconv` says where the clone is, since
``python -m invconv`` imports it from there even where the other packages are installed.
"""

from __future__ import annotations

from pathlib import Path

import invconv

RESULTS = Path(invconv.__file__).parents[1] / "benchmarks" / "results"


def newest(pattern: str) -> list[Path]:
    """Return the files that a pattern matches in the newest version's folder that has any.

    A version that measured nothing anew shows what an earlier one measured.
    """
    for folder in sorted(RESULTS.glob("[0-9]*"), key=_version, reverse=True):
        if paths := sorted(folder.glob(pattern)):
            return paths
    return []


def _version(folder: Path) -> tuple[int, ...]:
    return tuple(int(part) for part in folder.name.split("."))
