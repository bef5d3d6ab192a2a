"""How a solve or a correlation runs: the agnostic twins, and what is faster on a library.

Imports `invconv.arrays` only. `cpu` is the compiled kernel, `plain` what runs without it.
"""
