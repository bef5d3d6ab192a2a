"""Several libraries side by side, or one with no adapter: the same numbers, CuPy, Dask.

Imports every library that is installed; CuPy may be the stand-in.
"""
