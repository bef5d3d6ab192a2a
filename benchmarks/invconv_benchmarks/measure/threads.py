"""The number of threads that a library's solves use on the CPU."""

from __future__ import annotations

from invconv.kernels.cpu import threads


def set_number(library: str, count: int) -> None:
    """Set how many threads a library's solves use, where that can be set in a running process."""
    if library == "torch":
        import torch

        torch.set_num_threads(count)
    elif library == "numpy":
        threads.set_num_threads(count)
