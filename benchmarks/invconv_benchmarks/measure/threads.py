"""The number of threads that a library's solves use on the CPU."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from threadpoolctl import threadpool_limits

from invconv.kernels.cpu import threads


def number(library: str) -> int:
    """Return how many threads NumPy's or PyTorch's solves use; others' have no number to set."""
    if library == "torch":
        import torch

        return int(torch.get_num_threads())
    return threads.number() if library == "numpy" else 1


def set_number(library: str, count: int) -> None:
    """Set how many threads a library's solves use, where that can be set in a running process."""
    if library == "torch":
        import torch

        torch.set_num_threads(count)
    elif library == "numpy":
        threads.set_num_threads(count)


@contextlib.contextmanager
def one() -> Iterator[None]:
    """Let NumPy, its BLAS and PyTorch use one thread, in this process."""
    before = {library: number(library) for library in ("numpy", "torch")}
    with threadpool_limits(1, user_api="blas"):
        try:
            for library in before:
                set_number(library, 1)
            yield
        finally:
            for library, count in before.items():
                set_number(library, count)
