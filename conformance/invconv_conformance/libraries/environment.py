"""Processes: the threads and the folder of compiled programs that workers get, and their memory."""

import os

_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "PJRT_NPROC")


def settings(threads: int, cache: str) -> dict[str, str]:
    """Return the variables for a number of threads and a folder of programs that workers share."""
    found = dict.fromkeys(_THREADS, str(threads))
    if cache:
        found["JAX_COMPILATION_CACHE_DIR"] = cache
        found["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    return found


def share_the_card() -> None:
    """Keep JAX, here and in workers, from taking most of a GPU's memory when it is first used."""
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
