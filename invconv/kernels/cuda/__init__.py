"""The kernel of CUDA devices: its source, its plan, what compiles, loads and launches it.

`plan` says for a convolution, a grid and a device what to compile and what to launch; `compile`
turns the source into machine code; `arguments` says what is passed; `launch` solves by it, given
what a library's adapter says of its arrays. Only `driver` and `launch` need a device: three kernels
on the library's current stream, with no host read, no synchronisation. `xla` has the same launches
as calls that XLA makes by itself.
Imports `invconv.arrays`, `invconv.kernels.order` and the compiler of `invconv.kernels.cpu` only.
"""
