"""A limit of the work in a test: lines of Python and bytes of memory, not seconds."""

from __future__ import annotations

import sys
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def little_work(lines: int, memory: int) -> Iterator[None]:
    """Fail once more lines of Python have run, or more bytes are in use, than there may be."""
    left, before = lines, sys.gettrace()

    def count(frame: Any, event: str, arg: Any) -> Any:
        nonlocal left
        left -= event == "line"
        assert left > 0, f"more than {lines} lines"
        return count

    tracemalloc.start()
    sys.settrace(count)
    try:
        yield
    finally:
        sys.settrace(before)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < memory, f"{peak} bytes, more than {memory}"
