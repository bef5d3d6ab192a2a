"""The assignments of the lanes of a solve's vectors; each module has one, and its buffer's layout.

The lanes are images of a batch (`images`), rows of one image, which are a wavefront (`rows`), or
the output channels of a pixel (`channels`).
May import from `invconv.kernels.cpu.geometry` and `program`.
"""
