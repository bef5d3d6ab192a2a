"""How a solve or a correlation runs: the compiled kernel for the CPU, and the plain wavefront.

May import `invconv.arrays` and what is below it, and llvmlite inside functions; nothing above.
"""
