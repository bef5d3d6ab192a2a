"""Drop-ins for flow libraries: an operator as a building block of each library.

Each takes an operator of JAX arrays, or one in `invconv_jax.channels_last` or
`invconv_jax.reversible`. It is a pytree whose leaves are the operator's arrays, so it trains as the
library's own do. (optax and NumPyro's inference do not take integer leaves, as `PLUConv1x1` has:
train ``conv.parameters()``, and make the operator by ``conv.replace(**parameters)``. flowjax and
bijx leave integers out by themselves.) The operator's ``forward`` turns data into latent variables,
z = K x + b, whichever direction a library calls forward, so the same operator has the same density
in all of them. For the opposite direction, pass an `invconv.Inverse`.

A library is imported when its drop-in is first used.
"""

from typing import TYPE_CHECKING

from invconv.operators.dropins import lazily

if TYPE_CHECKING:
    from invconv_jax.interop.for_bijx import BijxBijection as BijxBijection
    from invconv_jax.interop.for_distrax import DistraxBijector as DistraxBijector
    from invconv_jax.interop.for_flowjax import FlowjaxBijection as FlowjaxBijection
    from invconv_jax.interop.for_numpyro import NumpyroTransform as NumpyroTransform

DROP_INS = {
    "BijxBijection": ("for_bijx", "bijx"),
    "DistraxBijector": ("for_distrax", "distrax"),
    "FlowjaxBijection": ("for_flowjax", "flowjax"),
    "NumpyroTransform": ("for_numpyro", "numpyro"),
}
__getattr__ = lazily(__name__, DROP_INS)

__all__ = list(DROP_INS)
