"""Drop-ins for flow libraries: a layer or an operator as a building block of each library.

Each takes a layer of `invconv_torch` (or any module with ``forward(x) -> (z, log_det)`` and
``inverse(z) -> (x, log_det)``), which it trains, or an operator, from which it makes a layer.
The layer's ``forward`` turns data into latent variables, z = K x + b, whichever direction a library
calls forward, so the same layer has the same density in all of them. For the opposite direction,
pass an `invconv.Inverse`.

A library is imported when its drop-in is first used.
"""

from typing import TYPE_CHECKING

from invconv.operators.dropins import lazily

if TYPE_CHECKING:
    from invconv_torch.interop.for_distributions import TorchTransform as TorchTransform
    from invconv_torch.interop.for_freia import FreiaModule as FreiaModule
    from invconv_torch.interop.for_nflows import NflowsTransform as NflowsTransform
    from invconv_torch.interop.for_normflows import NormflowsFlow as NormflowsFlow
    from invconv_torch.interop.for_pyro import PyroTransform as PyroTransform
    from invconv_torch.interop.for_zuko import ZukoTransform as ZukoTransform

DROP_INS = {
    "FreiaModule": ("for_freia", "FrEIA"),
    "NflowsTransform": ("for_nflows", "nflows"),
    "NormflowsFlow": ("for_normflows", "normflows"),
    "PyroTransform": ("for_pyro", "pyro-ppl"),
    "TorchTransform": ("for_distributions", "torch"),
    "ZukoTransform": ("for_zuko", "zuko"),
}
__getattr__ = lazily(__name__, DROP_INS)

__all__ = list(DROP_INS)
