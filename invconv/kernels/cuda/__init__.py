"""The kernel of CUDA devices: its source and plan, and modules that compile, load and launch it.

`plan` chooses for a convolution, a grid and a device the constants of the code and the launches;
`compile` turns the source into machine code; `arguments` has the arguments of the launches;
`launch` solves, given the functions of an adapter on its arrays. Only `driver` and `launch` need a
device: they queue three kernels on the library's current stream, with no host read and no
synchronisation. `xla` has the same launches as custom calls of XLA. Imports `invconv.arrays`,
`invconv.kernels.order` and the compiler of `invconv.kernels.cpu` only.
"""
