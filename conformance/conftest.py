"""One thread a process: the arrays are small, and pytest-xdist runs a process a core."""

import os

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(name, "1")

# XLA compiles thousands of small programs for the tests; how fast they run does not matter.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")
