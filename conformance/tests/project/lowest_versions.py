"""The lowest versions that pyproject.toml allows, as ``.ci/run`` installs them.

``python lowest_versions.py torch jax`` prints ``name==version`` for the core and those extras.
"""

import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

PROJECT = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())["project"]


def lowest(*extras: str) -> dict[str, str]:
    """Return the lowest version of each package that the core and some extras need, by its name."""
    found = dict(_lowest(PROJECT["dependencies"]))
    for extra in extras:
        found |= _lowest(PROJECT["optional-dependencies"][extra])
    return found


def _lowest(requirements: list[str]) -> Iterator[tuple[str, str]]:
    for requirement in requirements:
        if own := re.fullmatch(r"invconv\[(.*)\]", requirement):
            yield from lowest(*own[1].split(",")).items()
        elif known := re.fullmatch(r"([\w-]+)>=([\d.]+)(; .*)?", requirement):
            yield known[1], known[2]
        else:
            raise ValueError(f"pyproject.toml: expected name>=version, got {requirement}")


if __name__ == "__main__":
    print(*(f"{name}=={version}" for name, version in lowest(*sys.argv[1:]).items()))
