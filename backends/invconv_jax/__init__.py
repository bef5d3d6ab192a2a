"""JAX adapter of invconv: native primitives, and every operator a pytree.

Importing it registers the operators' classes with JAX. The core imports it by itself when it first
runs a primitive on a JAX array.
"""

try:
    import jax  # noqa: F401
except ImportError as error:
    raise ImportError("invconv_jax needs JAX: pip install 'invconv[jax]'") from error
