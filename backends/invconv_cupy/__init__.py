"""CuPy adapter of invconv."""
