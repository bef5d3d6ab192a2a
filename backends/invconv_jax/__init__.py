"""JAX adapter of invconv: native primitives, and every operator a pytree.

Importing it registers the operators' classes with JAX. The core imports it by itself when it first
runs a primitive on a JAX array; import it before you pass an operator to jit, grad or vmap.
"""

try:
    import jax  # noqa: F401
except ImportError as error:
    raise ImportError("invconv_jax needs JAX: pip install 'invconv[jax]'") from error

from invconv_jax import private as _private  # noqa: F401  # refuses versions, before all else

# isort: split
from invconv.files.saving import save
from invconv_jax import flows, interop
from invconv_jax import pytrees as _pytrees  # noqa: F401  # every class of operators is one
from invconv_jax.flows import load
from invconv_jax.guard import InverseGuard
from invconv_jax.initialise import init
from invconv_jax.layout import channels_last
from invconv_jax.pytrees import register_with_flax
from invconv_jax.reversible_chain import reversible

__all__ = [
    "InverseGuard",
    "channels_last",
    "flows",
    "init",
    "interop",
    "load",
    "register_with_flax",
    "reversible",
    "save",
]
