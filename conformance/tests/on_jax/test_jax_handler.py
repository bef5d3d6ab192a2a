"""The handler through which XLA calls the kernel: threads, processes, memory, records, targets."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from jax import numpy as jnp

import invconv as ic
import invconv_jax  # noqa: F401 - makes operators pytrees

jax.config.update("jax_enable_x64", True)

RNG = np.random.default_rng(0)


def convolution(channels: int) -> ic.AutoregressiveConv:
    return ic.AutoregressiveConv.init(channels, rng=RNG)


@pytest.mark.parametrize("shape", [(16, 48, 64, 64), (1, 12, 512, 512), (170, 12, 32, 32)], ids=str)
def test_a_large_solve_needs_a_third_of_its_input_beside_the_result(shape: tuple[int, ...]) -> None:
    conv = convolution(shape[1]).asarrays(jnp.zeros((), np.float32))
    y = jax.ShapeDtypeStruct(shape, np.float32)
    compiled = jax.jit(conv.prepare(shape[2:], check=False).inverse).lower(y).compile()
    assert compiled.memory_analysis().temp_size_in_bytes <= 0.3 * 4 * np.prod(shape)


def test_programs_on_a_disk_find_the_handler_in_another_process(tmp_path: Path) -> None:
    """Its address, which differs, is not in the program."""
    program = (
        "import jax, numpy as np, invconv as ic, invconv_jax\n"
        "conv = ic.AutoregressiveConv.init(3, rng=np.random.default_rng(0))\n"
        "y = np.ones((2, 3, 4, 5)); jax.config.update('jax_enable_x64', True)\n"
        "found = jax.jit(lambda c, y: c.inverse(y))(conv.asarrays(jax.numpy.zeros(())), y)\n"
        "assert np.array_equal(found, conv.inverse(y))\n"
    )
    settings = {
        "JAX_COMPILATION_CACHE_DIR": str(tmp_path),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    kept = []
    for _ in range(2):
        subprocess.run([sys.executable, "-c", program], check=True, env=os.environ | settings)
        kept.append({p.name for p in tmp_path.iterdir() if not p.name.endswith("-atime")})
    assert kept[0] == kept[1] != set()
