"""The kernel of the CPU, compiled by LLVM; may import `arrays`, `kernels.primitives`, `order`."""
