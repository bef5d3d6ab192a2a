"""The assignments of the lanes of a solve: to images, to rows of an image, to channels, or none.

May import from `invconv.kernels.cpu.geometry` and `program`.
"""
