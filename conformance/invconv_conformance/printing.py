"""The console of all commands: as wide as the terminal, elsewhere so wide that nothing is cut."""

import os

from rich.console import Console

_WIDE = 1000  # columns, more than any table has


def console() -> Console:
    """Return a console of rich; in a file or a pipe, a table's rows are as long as they need to be.

    The environment's COLUMNS, where it is set, is the width anywhere.
    """
    found = Console()
    if not found.is_terminal and "COLUMNS" not in os.environ:
        found.width = _WIDE
    return found
