"""JAX: primitives, derivatives, pytrees, sharded and lowered programs, training."""
