"""The kernel of the CPU, compiled by LLVM; may import `arrays` and `kernels.primitives`, `order`."""
