"""The kernel of CUDA devices: its source, its plan, what compiles it. Nothing here needs a device.

`plan` says for a convolution, a grid and a device what to compile and what to launch; `compile`
turns the source into machine code; `arguments` says what a launcher passes. A library's adapter
launches: three kernels on the library's current stream, with no host read, no synchronisation.
Imports `invconv.arrays` and `invconv.kernels.order` only.
"""
