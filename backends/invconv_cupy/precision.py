"""Float32 products at full precision, even if CUPY_TF32=1 asks CuPy for TF32."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from cupy._core import get_compute_type, set_compute_type
from cupy._core._routines_linalg import COMPUTE_TYPE_DEFAULT

# CuPy has one setting for all threads: the first to enter changes it, and the last restores it.
_counting = threading.RLock()
_inside = 0
_outside: Any = COMPUTE_TYPE_DEFAULT


@contextmanager
def full_precision() -> Iterator[None]:
    """Multiply float32 matrices with all their digits inside this context."""
    global _inside, _outside
    with _counting:
        if not _inside:
            _outside = get_compute_type("float32")
            set_compute_type("float32", COMPUTE_TYPE_DEFAULT)
        _inside += 1
    try:
        yield
    finally:
        with _counting:
            _inside -= 1
            if not _inside:
                set_compute_type("float32", _outside)
