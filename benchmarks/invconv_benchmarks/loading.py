"""How much memory `invconv.load` takes, against the size of the file.

``python -m invconv_benchmarks.loading`` writes a file of 1 GB and loads it into each library in a
process of its own. 1.0 is the arrays themselves, 2.0 a second copy of them.
"""

from __future__ import annotations

import argparse
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

import invconv as ic
from invconv_benchmarks import memory

_NAMES = ("numpy", "torch", "jax")


def peak(path: Path, library: str) -> float:
    """Return the peak memory of loading a file, in sizes of the file, from a process of its own."""
    command = [sys.executable, "-m", "invconv_benchmarks.loading", "--peak-of", library, str(path)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return float(done.stdout)


def _print_peak(path: Path, library: str) -> None:
    """Load a small file, then this one, and print what the second took at most."""
    like = _like(library)
    with tempfile.TemporaryDirectory() as folder:
        small = Path(folder, "small.safetensors")
        ic.save(ic.Conv1x1(np.eye(2, dtype=np.float32)), small)
        ic.load(small, like=like)  # what is imported and planned once
    bytes_taken, _ = memory.peak_of(lambda: ic.load(path, like=like))
    print(math.nan if bytes_taken is None else bytes_taken / os.path.getsize(path))


def _like(library: str) -> object:
    if library == "torch":
        import torch

        return torch.empty(0)
    if library == "jax":
        import jax.numpy as jnp

        return jnp.empty(0, "float32")
    return np.empty(0, np.float32)


def main(argv: Sequence[str] | None = None) -> None:
    """Print a line for each library."""
    parser = argparse.ArgumentParser(description=__doc__, prog="invconv_benchmarks.loading")
    parser.add_argument("--gigabytes", type=float, default=1.0, help="of the file")
    parser.add_argument("--peak-of", nargs=2, metavar=("LIBRARY", "PATH"), help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    if arguments.peak_of:
        library, path = arguments.peak_of
        _print_peak(Path(path), library)
        return
    channels = math.isqrt(int(arguments.gigabytes * 1e9 / 4))
    table = Table("library", "peak / size of the file", title=f"a file of {arguments.gigabytes} GB")
    with tempfile.TemporaryDirectory() as folder:
        large = Path(folder, "large.safetensors")
        ic.save(ic.Conv1x1(np.eye(channels, dtype=np.float32)), large)
        for library in _NAMES:
            table.add_row(library, f"{peak(large, library):.3f}")
    Console().print(table)


if __name__ == "__main__":
    main()
