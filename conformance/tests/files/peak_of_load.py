"""Print the peak memory of `invconv.load`, in sizes of the file: ``peak_of_load.py LIBRARY FILE``.

1.0 is the arrays themselves, 2.0 a second copy of them. Run it in a process of its own.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

import invconv as ic
from invconv_benchmarks.measure import memory


def main(library: str, path: str) -> None:
    """Load a small file, which imports and plans, then this one."""
    like: Any = np.empty(0, np.float32)
    if library == "torch":
        import torch

        like = torch.empty(0)
    elif library == "jax":
        import jax.numpy as jnp

        like = jnp.empty(0, "float32")
    with tempfile.TemporaryDirectory() as folder:
        small = Path(folder, "small.safetensors")
        ic.save(ic.Conv1x1(np.eye(2, dtype=np.float32)), small)
        ic.load(small, like=like)
    taken, _ = memory.peak_of(lambda: ic.load(path, like=like))
    if taken is None:
        raise RuntimeError("expected /proc/self/clear_refs, by which memory is measured")
    print(taken / os.path.getsize(path))


if __name__ == "__main__":
    main(*sys.argv[1:])
