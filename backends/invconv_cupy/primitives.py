"""CuPy: how the library runs the primitives of the core."""
