"""The compiled kernel of the CPU, written with LLVM: programs, machine code, threads.

Imports `invconv.arrays` and the pure functions of `invconv.kernels.primitives` only.
"""
