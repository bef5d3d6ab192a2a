"""How a causal solve runs: the compiled kernel for the CPU, and rooms for what it is made of.

May import `invconv.arrays` and stencils, and llvmlite inside functions; nothing above.
"""
