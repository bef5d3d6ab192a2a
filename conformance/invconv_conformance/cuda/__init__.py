"""The proof of the CUDA kernel without a device: ``python -m invconv_conformance.cuda [--quick]``.

The kernel's source is compiled for this processor, a fiber for each of CUDA's threads
(`on_cpu`), and by NVRTC. `proof` has the tests, on jobs, which are solves.
"""
