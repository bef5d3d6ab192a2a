"""A writer of LLVM's IR, with XLA's calling convention (`frame`); may import llvmlite alone."""
