"""What is in the lanes of a solve: images of a batch, or rows of one image.

May import from `invconv.kernels.cpu.plan` and `program`.
"""
