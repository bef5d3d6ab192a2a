"""What machine code is made with: a writer of LLVM's IR, and the processor that it is for.

May import llvmlite, at the top of `ir` alone; nothing of ours.
"""
