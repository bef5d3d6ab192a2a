"""What the lanes of a solve's vectors are, and the layouts of the buffer.

May import from `invconv.kernels.cpu.geometry` and `program`.
"""
