"""JAX adapter of invconv."""
