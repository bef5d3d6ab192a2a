"""The compiled kernel of the CPU, written with LLVM: its programs, machine code and threads.

Imports `invconv.arrays` and the pure functions of `invconv.kernels.primitives` only.
"""
