"""The compiler: a writer of LLVM's IR, and the processor that code is compiled for.

`frame` has XLA's calling convention. `ir` and `frame` import llvmlite; nothing of ours is imported.
"""
