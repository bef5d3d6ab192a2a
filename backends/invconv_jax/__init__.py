"""JAX adapter of invconv: native primitives, and every operator a pytree.

Importing it registers the operators' classes with JAX. The core imports it by itself when it first
runs a primitive on a JAX array; import it before you pass an operator to jit, grad or vmap.
"""

from typing import TYPE_CHECKING

try:
    import jax  # noqa: F401
except ImportError as error:
    raise ImportError("invconv_jax needs JAX: pip install 'invconv[jax]'") from error

from invconv_jax import private as _private  # noqa: F401  # refuses versions, before all else

# isort: split
from invconv.arrays.errors import gone
from invconv.files.saving import save
from invconv_jax import flows, interop
from invconv_jax import pytrees as _pytrees  # noqa: F401  # every class of operators is one
from invconv_jax.flows import load
from invconv_jax.guard import InverseGuard
from invconv_jax.initialise import init
from invconv_jax.layout import channels_last
from invconv_jax.pytrees import register_with_flax
from invconv_jax.reversible_chain import reversible

if not TYPE_CHECKING:  # a type checker would think that every name is there
    __getattr__ = gone(
        __name__,
        {
            "ChannelsLast": "channels_last(conv) does the same",
            "ConditionGuard": "write InverseGuard(model, spatial_shape, every=100), whose "
            "step(model) judges one layer in every hundredth call and returns the worst",
            "Reversible": "reversible(chain, spatial_shape) does the same",
            "register": "every class of operators is a pytree from its definition on; leave the "
            "call out",
        },
    )

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
