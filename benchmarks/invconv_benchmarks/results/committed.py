"""The results in the repository, not in the wheel: a folder for each version that measured any."""

from pathlib import Path

import invconv

# invconv says where the clone is: it is imported from there even where other packages are installed
RESULTS = Path(invconv.__file__).parents[1] / "benchmarks" / "results"


def newest(pattern: str) -> list[Path]:
    """Return the files that a pattern matches in the newest version's folder that has any."""
    versions = sorted(RESULTS.glob("[0-9]*"), key=lambda p: [*map(int, p.name.split("."))])
    found = (sorted(folder.glob(pattern)) for folder in reversed(versions))
    return next(filter(None, found), [])
