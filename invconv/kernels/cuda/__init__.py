"""The kernel of CUDA devices; may import `arrays`, `kernels.order` and the CPU's compiler."""
