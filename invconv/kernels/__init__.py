"""How a solve or a correlation runs: the agnostic twins, and faster ways of a library.

Imports `invconv.arrays` only. `cpu` is the compiled kernel, `pitched` the wavefront without it.
"""
