"""The kernel of CUDA devices: its source and plan, and modules that compile, load and launch it.

Only `driver` and `launch` need a device. Imports `invconv.arrays`, `invconv.kernels.order` and the
compiler of `invconv.kernels.cpu` only.
"""
