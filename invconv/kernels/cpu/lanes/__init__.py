"""The two assignments of the lanes of a solve: to images of a batch, or to rows of one image.

May import from `invconv.kernels.cpu.geometry` and `program`.
"""
