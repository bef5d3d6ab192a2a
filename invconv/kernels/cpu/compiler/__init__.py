"""What machine code is made with: a writer of LLVM's IR, and the processor that it is for.

`frame` is how XLA calls it. May import llvmlite, at the top of `ir` and `frame`; nothing of ours.
"""
