"""What the core asks of an array library: namespaces, dtypes, stencils, the registry, validation.

Imports nothing else of this library.
"""
